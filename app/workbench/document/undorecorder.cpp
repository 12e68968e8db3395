// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/undorecorder.h"

#include <QLocale>
#include <QUndoCommand>

#include <algorithm>
#include <utility>

namespace spectra {

namespace {

bool sameRows(const RowSet &a, const RowSet &b)
{
    if (a.size() == b.size())
        return a == b;
    RowSet larger = a.size() > b.size() ? a : b;
    const RowSet &smaller = a.size() > b.size() ? b : a;
    larger.subtract(smaller);
    return larger.empty() && a.count() == b.count();
}

} // namespace

class UndoStep : public QUndoCommand {
public:
    UndoStep(UndoRecorder &recorder, quint64 trace, UndoRecorder::Kind kind, UndoRecorder::Value before,
             UndoRecorder::Value after, const QString &text, bool merges)
        : QUndoCommand(text)
        , m_recorder(recorder)
        , m_trace(trace)
        , m_kind(kind)
        , m_before(std::move(before))
        , m_after(std::move(after))
        , m_merges(merges)
    {
    }
    int id() const override { return static_cast<int>(m_kind); }
    void undo() override { apply(m_before); }
    void redo() override
    {
        if (!std::exchange(m_done, true))
            return; // it was done by whoever caused the step
        apply(m_after);
    }
    bool mergeWith(const QUndoCommand *other) override
    {
        const auto *next = static_cast<const UndoStep *>(other);
        if (!next->m_merges || next->m_trace != m_trace)
            return false;
        m_after = next->m_after;
        setText(next->text());
        return true;
    }

private:
    void apply(const UndoRecorder::Value &value)
    {
        if (!m_recorder.apply(m_trace, m_kind, value))
            setObsolete(true);
    }

    UndoRecorder &m_recorder;
    quint64 m_trace;
    UndoRecorder::Kind m_kind;
    UndoRecorder::Value m_before, m_after;
    bool m_merges, m_done = false;
};

UndoRecorder::UndoRecorder(Session &session, QUndoStack &stack, QObject *parent)
    : QObject(parent), m_session(session), m_stack(stack)
{
    connect(&session, &Session::currentChanged, this, &UndoRecorder::reread);
    connect(&session, &Session::layerChanged, this, &UndoRecorder::layerSeen);
    connect(&session, &Session::rowsChanged, this, &UndoRecorder::rowsSeen);
    connect(&session, &Session::domainsChanged, this, &UndoRecorder::domainsSeen);
    connect(&session, &Session::groupsChanged, this, &UndoRecorder::groupsSeen);
    reread();
}

UndoRecorder::~UndoRecorder()
{
    m_stack.clear(); // steps refer to this object
}

void UndoRecorder::reread()
{
    const auto trace = m_session.current();
    m_trace = trace ? trace->id : 0;
    m_layer = m_session.layer();
    m_selection = trace ? trace->selection : RowSet();
    m_filter = trace ? trace->filter : RowSet();
    m_groups = m_session.groups();
    m_domains = m_session.shownDomains();
    endMerge();
}

void UndoRecorder::layerSeen()
{
    const int layer = m_session.layer(), before = std::exchange(m_layer, layer);
    const auto trace = m_session.current();
    if (before == layer || !trace || trace->id != m_trace)
        return;
    const auto &index = trace->info->decoderIndex;
    const int shown = layer >= 0 && layer < static_cast<int>(index.size()) ? index[static_cast<std::size_t>(layer)] : layer;
    push(Kind::layer, {.layer = before}, {.layer = layer}, tr("Layer %1").arg(shown));
}

void UndoRecorder::rowsSeen(RowLayer layer)
{
    const auto trace = m_session.current();
    if (layer == RowLayer::highlight || !trace || trace->id != m_trace)
        return;
    const bool selection = layer == RowLayer::selection;
    const RowSet &now = selection ? trace->selection : trace->filter;
    RowSet &seen = selection ? m_selection : m_filter;
    if (sameRows(now, seen)) {
        seen = now; // a trace that grew
        return;
    }
    // A filter of a growing trace grows by full rows: nothing that a user did.
    if (!selection && now.size() != seen.size()) {
        seen = now;
        return;
    }
    Value before{.rows = std::exchange(seen, now)}, after{.rows = now};
    const QString count = QLocale(QLocale::English).toString(static_cast<qulonglong>(now.count()));
    // The session knows what the user did; its words are better than a count.
    const QString said = m_session.undoText();
    const QString text = !said.isEmpty() ? said : selection ? (now.empty() ? tr("Clear selection") : tr("Select %1 tokens").arg(count))
                                   : (now.count() == now.size() ? tr("Clear filter") : tr("Filter to %1 tokens").arg(count));
    push(selection ? Kind::selection : Kind::filter, std::move(before), std::move(after), text);
}

void UndoRecorder::groupsSeen()
{
    const auto same = [](const RowGroup &a, const RowGroup &b) { return a.name == b.name && a.trace == b.trace && a.rows == b.rows; };
    if (m_applying || std::ranges::equal(m_groups, m_session.groups(), same)) {
        m_groups = m_session.groups();
        return;
    }
    Value before{.groups = std::exchange(m_groups, m_session.groups())}, after{.groups = m_groups};
    const bool added = after.groups.size() >= before.groups.size();
    endMerge(); // two groups are two steps
    push(Kind::groups, std::move(before), std::move(after), added ? tr("Save group") : tr("Remove group"));
    endMerge();
}

void UndoRecorder::domainsSeen()
{
    Value before{.domains = std::exchange(m_domains, m_session.shownDomains())}, after{.domains = m_domains};
    if (before.domains != after.domains)
        push(Kind::domains, std::move(before), std::move(after), tr("Domains shown"));
}

void UndoRecorder::push(Kind kind, Value before, Value after, const QString &text)
{
    if (m_applying || m_trace == 0)
        return;
    const bool merges = m_sinceStep.isValid() && m_sinceStep.elapsed() < (kind == Kind::layer ? layerMergeMs : rowsMergeMs);
    m_sinceStep.start();
    m_stack.push(new UndoStep(*this, m_trace, kind, std::move(before), std::move(after), text, merges));
}

bool UndoRecorder::apply(quint64 trace, Kind kind, const Value &value)
{
    const auto open = m_session.trace(trace);
    if (!open)
        return false;
    m_applying = true;
    if (m_trace != trace)
        m_session.setCurrent(trace);
    switch (kind) {
    case Kind::layer: m_session.setLayer(value.layer); break;
    case Kind::selection: {
        RowSet rows = value.rows;
        rows.resize(open->selection.size());
        m_session.select(rows, SelectMode::replace, tr("undo"));
        break;
    }
    case Kind::filter: {
        RowSet rows = value.rows;
        rows.resize(open->filter.size());
        m_session.setFilter(rows, tr("undo"));
        break;
    }
    case Kind::groups: m_session.setGroups(value.groups); break;
    case Kind::domains: m_session.setShownDomains(value.domains); break;
    }
    m_applying = false;
    endMerge();
    return true;
}

} // namespace spectra
