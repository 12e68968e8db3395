// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/session.h"

#include "views/colormap.h"
#include "views/latestjob.h"

#include <QJsonArray>

#include <algorithm>
#include <map>
#include <unordered_map>

namespace spectra {

SelectMode selectModeOf(Qt::KeyboardModifiers modifiers)
{
    const bool shift = modifiers.testFlag(Qt::ShiftModifier), ctrl = modifiers.testFlag(Qt::ControlModifier);
    if (shift && ctrl)
        return SelectMode::intersect;
    return shift ? SelectMode::add : ctrl ? SelectMode::remove : SelectMode::replace;
}

namespace {

/// A step that can be taken back: the sets before and after it. Bitsets of 1 M rows are 125 kB each.
struct Step {
    QString what;
    quint64 trace = 0;
    RowLayer layer = RowLayer::selection;
    RowSet before, after;
};
constexpr std::size_t kSteps = 100;

/// Row sets as runs [first, last): short for what people select.
QJsonArray toRuns(const RowSet &rows)
{
    QJsonArray runs;
    std::int64_t first = -1, last = -1;
    rows.forEach([&](std::size_t r) {
        const auto row = static_cast<std::int64_t>(r);
        if (row != last) {
            if (first >= 0) {
                runs.append(static_cast<double>(first));
                runs.append(static_cast<double>(last));
            }
            first = row;
        }
        last = row + 1;
    });
    if (first >= 0) {
        runs.append(static_cast<double>(first));
        runs.append(static_cast<double>(last));
    }
    return runs;
}

RowSet fromRuns(const QJsonArray &runs, std::size_t size)
{
    RowSet rows(size);
    for (qsizetype i = 0; i + 1 < runs.size(); i += 2) {
        const double a = runs[i].toDouble(-1), b = runs[i + 1].toDouble(-1);
        if (a >= 0 && b > a && b <= static_cast<double>(size))
            rows.insertRange(static_cast<std::size_t>(a), static_cast<std::size_t>(b));
    }
    return rows;
}

} // namespace

struct Session::Private {
    std::vector<std::shared_ptr<OpenTrace>> traces;
    std::map<quint64, std::unique_ptr<LatestJob>> readers;
    std::unordered_map<std::string, int> domainIndex; // of the current trace
    quint64 nextId = 1;
    quint64 currentId = 0;
    int layer = 0;
    bool synchronous = false;
    std::optional<std::int64_t> focus, hover;
    std::optional<int> hoverExpert;
    std::vector<int> experts, domains;
    std::vector<RowGroup> groups;
    std::vector<Step> undo, redo;

    void indexDomains(const OpenTrace *trace)
    {
        domainIndex.clear();
        if (trace != nullptr)
            for (std::size_t i = 0; i < trace->info->domains.size(); ++i)
                domainIndex.emplace(trace->info->domains[i], static_cast<int>(i));
    }
};

Session::Session(QObject *parent) : QObject(parent), d(std::make_unique<Private>()) {}
Session::~Session() = default;

void Session::setSynchronous(bool on)
{
    d->synchronous = on;
}
bool Session::isSynchronous() const
{
    return d->synchronous;
}

static void readSequences(Session *session, LatestJob *job, const std::shared_ptr<OpenTrace> &trace, bool synchronous)
{
    const std::weak_ptr<OpenTrace> weak = trace;
    const auto function = [session, weak, source = trace->source](JobContext &) -> Result<LatestJob::Apply> {
        auto read = source->sequences();
        if (!read)
            return read.error();
        return LatestJob::Apply([session, weak, sequences = *read] {
            if (const auto t = weak.lock()) {
                t->sequences = sequences;
                Q_EMIT session->sequencesRead(t->id);
            }
        });
    };
    if (synchronous)
        job->runNow(function);
    else
        job->start(function);
}

quint64 Session::addTrace(std::shared_ptr<const TraceSource> source, const QString &name)
{
    auto trace = std::make_shared<OpenTrace>();
    trace->id = d->nextId++;
    trace->source = std::move(source);
    trace->info = trace->source->info();
    trace->color = traceColor(static_cast<int>(trace->id) - 1);
    QString unique = name;
    for (int n = 2; std::any_of(d->traces.begin(), d->traces.end(), [&](const auto &t) { return t->name == unique; }); ++n)
        unique = QStringLiteral("%1 (%2)").arg(name).arg(n);
    trace->name = unique;
    const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(trace->info->tokens, 0));
    trace->filter = RowSet(rows, true);
    trace->selection = RowSet(rows);
    trace->highlight = RowSet(rows);
    d->traces.push_back(trace);
    auto job = std::make_unique<LatestJob>();
    connect(job.get(), &LatestJob::failed, this,
            [this, id = trace->id](const Error &e) { Q_EMIT readFailed(id, QString::fromStdString(e.what)); });
    LatestJob *reader = job.get();
    d->readers.emplace(trace->id, std::move(job));
    Q_EMIT tracesChanged();
    if (d->currentId == 0)
        setCurrent(trace->id);
    readSequences(this, reader, trace, d->synchronous);
    return trace->id;
}

void Session::removeTrace(quint64 id)
{
    const auto at = std::find_if(d->traces.begin(), d->traces.end(), [&](const auto &t) { return t->id == id; });
    if (at == d->traces.end())
        return;
    d->readers.erase(id);
    d->traces.erase(at);
    std::erase_if(d->undo, [&](const Step &s) { return s.trace == id; });
    std::erase_if(d->redo, [&](const Step &s) { return s.trace == id; });
    std::erase_if(d->groups, [&](const RowGroup &g) { return g.trace == id; });
    if (d->currentId == id) {
        d->currentId = 0;
        if (!d->traces.empty())
            setCurrent(d->traces.front()->id);
        else {
            d->focus.reset();
            d->hover.reset();
            d->experts.clear();
            d->domains.clear();
            d->layer = 0;
            d->indexDomains(nullptr);
            Q_EMIT currentChanged();
        }
    }
    Q_EMIT tracesChanged();
    Q_EMIT historyChanged();
    Q_EMIT groupsChanged();
}

void Session::updateTrace(quint64 id, std::shared_ptr<const TraceSource> source)
{
    const auto t = trace(id);
    if (!t)
        return;
    const bool noFilter = t->filter.count() == t->filter.size();
    t->source = std::move(source);
    t->info = t->source->info();
    const auto rows = static_cast<std::size_t>(std::max<std::int64_t>(t->info->tokens, 0));
    const std::size_t before = t->filter.size();
    t->filter.resize(rows);
    if (noFilter && rows > before)
        t->filter.insertRange(before, rows);
    t->selection.resize(rows);
    t->highlight.resize(rows);
    if (id == d->currentId) {
        d->indexDomains(t.get());
        if (d->layer >= t->info->layers())
            d->layer = std::max(0, t->info->layers() - 1);
    }
    readSequences(this, d->readers.at(id).get(), t, d->synchronous);
    Q_EMIT traceGrew(id);
}

const std::vector<std::shared_ptr<OpenTrace>> &Session::traces() const
{
    return d->traces;
}

std::shared_ptr<OpenTrace> Session::trace(quint64 id) const
{
    for (const auto &t : d->traces)
        if (t->id == id)
            return t;
    return nullptr;
}

std::shared_ptr<OpenTrace> Session::current() const
{
    return trace(d->currentId);
}

void Session::setCurrent(quint64 id)
{
    const auto t = trace(id);
    if (!t || id == d->currentId)
        return;
    const int decoder = decoderLayer();
    d->currentId = id;
    d->indexDomains(t.get());
    const auto &index = t->info->decoderIndex;
    const auto at = std::find(index.begin(), index.end(), decoder);
    d->layer = at != index.end() ? static_cast<int>(at - index.begin()) : 0;
    d->focus.reset();
    d->hover.reset();
    d->hoverExpert.reset();
    d->experts.clear();
    d->domains.clear();
    Q_EMIT currentChanged();
}

int Session::layer() const
{
    return d->layer;
}

int Session::decoderLayer() const
{
    const auto t = current();
    if (!t || d->layer < 0 || d->layer >= t->info->layers())
        return -1;
    return t->info->decoderIndex[static_cast<std::size_t>(d->layer)];
}

void Session::setLayer(int layer)
{
    const auto t = current();
    if (!t || t->info->layers() == 0)
        return;
    layer = std::clamp(layer, 0, t->info->layers() - 1);
    if (layer == d->layer)
        return;
    d->layer = layer;
    // An expert belongs to its layer: the same index elsewhere is another one.
    if (!d->experts.empty()) {
        d->experts.clear();
        Q_EMIT expertsChanged();
    }
    Q_EMIT layerChanged(layer);
}

static void apply(RowSet &set, const RowSet &rows, SelectMode mode)
{
    switch (mode) {
    case SelectMode::replace: set = rows; break;
    case SelectMode::add: set.unite(rows); break;
    case SelectMode::remove: set.subtract(rows); break;
    case SelectMode::intersect: set.intersect(rows); break;
    }
}

void Session::select(const RowSet &rows, SelectMode mode, const QString &what)
{
    const auto t = current();
    if (!t)
        return;
    Step step{what, t->id, RowLayer::selection, t->selection, t->selection};
    apply(step.after, rows, mode);
    step.after.resize(t->filter.size());
    if (step.after == step.before)
        return;
    t->selection = step.after;
    d->undo.push_back(std::move(step));
    if (d->undo.size() > kSteps)
        d->undo.erase(d->undo.begin());
    d->redo.clear();
    Q_EMIT rowsChanged(RowLayer::selection);
    Q_EMIT historyChanged();
}

void Session::setFilter(const RowSet &rows, const QString &what)
{
    const auto t = current();
    if (!t)
        return;
    Step step{what, t->id, RowLayer::filter, t->filter, rows};
    step.after.resize(t->filter.size());
    if (step.after == step.before)
        return;
    t->filter = step.after;
    d->undo.push_back(std::move(step));
    if (d->undo.size() > kSteps)
        d->undo.erase(d->undo.begin());
    d->redo.clear();
    Q_EMIT rowsChanged(RowLayer::filter);
    Q_EMIT historyChanged();
}

void Session::clearFilter()
{
    if (const auto t = current())
        setFilter(RowSet(t->filter.size(), true), tr("Show all tokens"));
}

void Session::invertSelection()
{
    if (const auto t = current()) {
        RowSet rows = t->selection;
        rows.invert();
        rows.intersect(t->filter);
        select(rows, SelectMode::replace, tr("Invert selection"));
    }
}

void Session::clearSelection()
{
    if (const auto t = current())
        select(RowSet(t->selection.size()), SelectMode::replace, tr("Clear selection"));
}

bool Session::canUndo() const
{
    return !d->undo.empty();
}
bool Session::canRedo() const
{
    return !d->redo.empty();
}
QString Session::undoText() const
{
    return d->undo.empty() ? QString() : d->undo.back().what;
}
QString Session::redoText() const
{
    return d->redo.empty() ? QString() : d->redo.back().what;
}

void Session::undo()
{
    if (d->undo.empty())
        return;
    Step step = std::move(d->undo.back());
    d->undo.pop_back();
    const auto t = trace(step.trace);
    RowSet &set = step.layer == RowLayer::filter ? t->filter : t->selection;
    const std::size_t rows = set.size();
    set = step.before;
    set.resize(rows);
    const RowLayer layer = step.layer;
    d->redo.push_back(std::move(step));
    setCurrent(t->id);
    Q_EMIT rowsChanged(layer);
    Q_EMIT historyChanged();
}

void Session::redo()
{
    if (d->redo.empty())
        return;
    Step step = std::move(d->redo.back());
    d->redo.pop_back();
    const auto t = trace(step.trace);
    RowSet &set = step.layer == RowLayer::filter ? t->filter : t->selection;
    const std::size_t rows = set.size();
    set = step.after;
    set.resize(rows);
    const RowLayer layer = step.layer;
    d->undo.push_back(std::move(step));
    setCurrent(t->id);
    Q_EMIT rowsChanged(layer);
    Q_EMIT historyChanged();
}

void Session::highlight(std::optional<std::int64_t> token)
{
    const auto t = current();
    if (!t)
        return;
    if (token && (*token < 0 || *token >= static_cast<std::int64_t>(t->highlight.size())))
        token.reset();
    if (token == d->hover && (token || t->highlight.empty()))
        return;
    d->hover = token;
    t->highlight.clear();
    if (token)
        t->highlight.insert(static_cast<std::size_t>(*token));
    Q_EMIT rowsChanged(RowLayer::highlight);
}

void Session::highlightRows(const RowSet &rows)
{
    const auto t = current();
    if (!t)
        return;
    RowSet set = rows;
    set.resize(t->highlight.size());
    if (set == t->highlight && !d->hover)
        return;
    d->hover.reset();
    t->highlight = std::move(set);
    Q_EMIT rowsChanged(RowLayer::highlight);
}

std::optional<std::int64_t> Session::highlightedToken() const
{
    return d->hover;
}

std::optional<std::int64_t> Session::focusedToken() const
{
    return d->focus;
}

void Session::focusToken(std::optional<std::int64_t> token)
{
    const auto t = current();
    if (token && (!t || *token < 0 || *token >= t->info->tokens))
        token.reset();
    if (token == d->focus)
        return;
    d->focus = token;
    Q_EMIT focusChanged();
}

void Session::saveGroup(const QString &name)
{
    const auto t = current();
    if (!t || name.trimmed().isEmpty())
        return;
    std::erase_if(d->groups, [&](const RowGroup &g) { return g.name == name && g.trace == t->id; });
    d->groups.push_back({name.trimmed(), t->id, t->selection});
    Q_EMIT groupsChanged();
}

void Session::removeGroup(const QString &name)
{
    if (std::erase_if(d->groups, [&](const RowGroup &g) { return g.name == name && g.trace == d->currentId; }) > 0)
        Q_EMIT groupsChanged();
}

const std::vector<RowGroup> &Session::groups() const
{
    return d->groups;
}

void Session::setGroups(std::vector<RowGroup> groups)
{
    std::erase_if(groups, [&](const RowGroup &g) { return !trace(g.trace); });
    d->groups = std::move(groups);
    Q_EMIT groupsChanged();
}

void Session::selectGroup(const QString &name, SelectMode mode)
{
    for (const RowGroup &g : d->groups)
        if (g.name == name && g.trace == d->currentId) {
            const RowSet rows = g.rows;
            select(rows, mode, tr("Select group %1").arg(name));
            return;
        }
}

const std::vector<int> &Session::selectedExperts() const
{
    return d->experts;
}

void Session::setSelectedExperts(const std::vector<int> &experts)
{
    const auto t = current();
    std::vector<int> kept;
    for (const int e : experts)
        if (t && e >= 0 && e < t->info->experts)
            kept.push_back(e);
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    if (kept == d->experts)
        return;
    d->experts = std::move(kept);
    Q_EMIT expertsChanged();
}

void Session::selectExpert(int expert, SelectMode mode)
{
    std::vector<int> set = d->experts;
    const bool has = std::find(set.begin(), set.end(), expert) != set.end();
    switch (mode) {
    case SelectMode::replace:
        if (has && set.size() == 1)
            set.clear();
        else
            set = {expert};
        break;
    case SelectMode::add: set.push_back(expert); break;
    case SelectMode::remove: std::erase(set, expert); break;
    case SelectMode::intersect:
        if (has)
            set = {expert};
        else
            set.clear();
        break;
    }
    setSelectedExperts(set);
}

std::optional<int> Session::highlightedExpert() const
{
    return d->hoverExpert;
}

void Session::highlightExpert(std::optional<int> expert)
{
    if (expert == d->hoverExpert)
        return;
    d->hoverExpert = expert;
    Q_EMIT expertHighlightChanged();
}

const std::vector<int> &Session::shownDomains() const
{
    return d->domains;
}

void Session::setShownDomains(const std::vector<int> &domains)
{
    const auto t = current();
    std::vector<int> kept;
    for (const int q : domains)
        if (t && q >= 0 && q < static_cast<int>(t->info->domains.size()))
            kept.push_back(q);
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    if (t && kept.size() == t->info->domains.size())
        kept.clear(); // all
    if (kept == d->domains)
        return;
    d->domains = std::move(kept);
    Q_EMIT domainsChanged();
}

bool Session::domainShown(int domain) const
{
    return d->domains.empty() || std::binary_search(d->domains.begin(), d->domains.end(), domain);
}

int Session::domainOf(std::int32_t sequence) const
{
    const auto t = current();
    if (!t || !t->sequences || sequence < 0 || static_cast<std::size_t>(sequence) >= t->sequences->size())
        return -1;
    const auto at = d->domainIndex.find((*t->sequences)[static_cast<std::size_t>(sequence)].domain);
    return at == d->domainIndex.end() ? -1 : at->second;
}

QJsonObject Session::saveState() const
{
    QJsonObject state;
    state[QStringLiteral("decoder_layer")] = decoderLayer();
    QJsonArray experts, domains, traces, groups;
    for (const int e : d->experts)
        experts.append(e);
    const auto t = current();
    for (const int q : d->domains)
        domains.append(QString::fromStdString(t->info->domains[static_cast<std::size_t>(q)]));
    state[QStringLiteral("experts")] = experts;
    state[QStringLiteral("domains")] = domains;
    if (d->focus)
        state[QStringLiteral("focus")] = static_cast<double>(*d->focus);
    for (const auto &open : d->traces) {
        QJsonObject o;
        o[QStringLiteral("uuid")] = QString::fromStdString(open->info->uuid);
        o[QStringLiteral("name")] = open->name;
        o[QStringLiteral("current")] = open->id == d->currentId;
        o[QStringLiteral("selection")] = toRuns(open->selection);
        if (open->filter.count() != open->filter.size())
            o[QStringLiteral("filter")] = toRuns(open->filter);
        traces.append(o);
    }
    for (const RowGroup &g : d->groups)
        if (const auto open = trace(g.trace))
            groups.append(QJsonObject{{QStringLiteral("name"), g.name},
                                      {QStringLiteral("uuid"), QString::fromStdString(open->info->uuid)},
                                      {QStringLiteral("rows"), toRuns(g.rows)}});
    state[QStringLiteral("traces")] = traces;
    state[QStringLiteral("groups")] = groups;
    return state;
}

void Session::restoreState(const QJsonObject &state)
{
    const auto byUuid = [this](const QString &uuid) -> std::shared_ptr<OpenTrace> {
        for (const auto &t : d->traces)
            if (!uuid.isEmpty() && QString::fromStdString(t->info->uuid) == uuid)
                return t;
        return nullptr;
    };
    for (const QJsonValue &v : state[QStringLiteral("traces")].toArray()) {
        const QJsonObject o = v.toObject();
        const auto t = byUuid(o[QStringLiteral("uuid")].toString());
        if (!t)
            continue;
        t->selection = fromRuns(o[QStringLiteral("selection")].toArray(), t->filter.size());
        if (o.contains(QStringLiteral("filter")))
            t->filter = fromRuns(o[QStringLiteral("filter")].toArray(), t->filter.size());
        if (o[QStringLiteral("current")].toBool())
            setCurrent(t->id);
    }
    d->groups.clear();
    for (const QJsonValue &v : state[QStringLiteral("groups")].toArray()) {
        const QJsonObject o = v.toObject();
        if (const auto t = byUuid(o[QStringLiteral("uuid")].toString()))
            d->groups.push_back({o[QStringLiteral("name")].toString(), t->id,
                                 fromRuns(o[QStringLiteral("rows")].toArray(), t->filter.size())});
    }
    const auto t = current();
    if (t) {
        const auto &index = t->info->decoderIndex;
        const auto at = std::find(index.begin(), index.end(), state[QStringLiteral("decoder_layer")].toInt(-1));
        if (at != index.end())
            setLayer(static_cast<int>(at - index.begin()));
        std::vector<int> experts, domains;
        for (const QJsonValue &v : state[QStringLiteral("experts")].toArray())
            experts.push_back(v.toInt(-1));
        for (const QJsonValue &v : state[QStringLiteral("domains")].toArray())
            if (const auto found = d->domainIndex.find(v.toString().toStdString()); found != d->domainIndex.end())
                domains.push_back(found->second);
        setSelectedExperts(experts);
        setShownDomains(domains);
        if (state.contains(QStringLiteral("focus")))
            focusToken(static_cast<std::int64_t>(state[QStringLiteral("focus")].toDouble(-1)));
    }
    Q_EMIT rowsChanged(RowLayer::filter);
    Q_EMIT rowsChanged(RowLayer::selection);
    Q_EMIT groupsChanged();
}

} // namespace spectra
