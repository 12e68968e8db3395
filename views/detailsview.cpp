// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/detailsview.h"

#include "engine/core/routingrecord.h"
#include "views/paintkit.h"
#include "views/tracecolumns.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>

#include <algorithm>
#include <cmath>

namespace spectra {

struct DetailsData {
    std::shared_ptr<const TokenColumns> columns;
    std::vector<std::shared_ptr<const LayerRouting>> layers;
    std::vector<std::int32_t> decoderIndex;
    std::vector<std::string> domains;
    int experts = 0;
    std::int64_t tokens = 0;
};

/// All experts of one layer, counted in one pass.
struct ExpertCards {
    struct Word {
        std::int32_t id = 0;
        std::int64_t count = 0;
        double score = 0;
    };
    struct Card {
        std::int64_t load = 0;
        std::vector<std::int64_t> byDomain;
        std::vector<Word> words; ///< most typical first
    };
    int layer = -1;
    std::int64_t assignments = 0;
    std::vector<std::int64_t> domainAssignments;
    std::vector<Card> cards;
};

namespace {

Result<std::shared_ptr<const ExpertCards>> countCards(const DetailsData &data, int layer, const std::stop_token &stop)
{
    auto cards = std::make_shared<ExpertCards>();
    cards->layer = layer;
    const auto domains = data.domains.size();
    cards->cards.resize(static_cast<std::size_t>(data.experts));
    cards->domainAssignments.assign(domains, 0);
    for (auto &c : cards->cards)
        c.byDomain.assign(domains, 0);
    const LayerRouting &r = *data.layers[static_cast<std::size_t>(layer)];
    std::vector<std::unordered_map<std::int32_t, std::int64_t>> words(cards->cards.size());
    std::unordered_map<std::int32_t, std::int64_t> all;
    for (std::int64_t n = 0; n < data.tokens; ++n) {
        if ((n & 0xffff) == 0 && stop.stop_requested())
            return cancelledError();
        const auto i = static_cast<std::size_t>(n);
        if (data.columns->mask[i] == 0)
            continue;
        const int q = data.columns->domain(n);
        for (int s = 0; s < r.slots; ++s) {
            const std::uint16_t e = r.experts[i * static_cast<std::size_t>(r.slots) + static_cast<std::size_t>(s)];
            if (e >= cards->cards.size())
                continue;
            auto &card = cards->cards[e];
            ++card.load;
            ++cards->assignments;
            if (q >= 0 && static_cast<std::size_t>(q) < domains) {
                ++card.byDomain[static_cast<std::size_t>(q)];
                ++cards->domainAssignments[static_cast<std::size_t>(q)];
            }
            ++words[e][data.columns->id[i]];
            ++all[data.columns->id[i]];
        }
    }
    for (std::size_t e = 0; e < words.size(); ++e) {
        auto &card = cards->cards[e];
        for (const auto &[id, count] : words[e]) {
            // How many bits the expert gains by this token: count · log2 of its lift. One sighting proves nothing.
            const double lift = static_cast<double>(count) / static_cast<double>(card.load)
                / (static_cast<double>(all[id]) / static_cast<double>(cards->assignments));
            if (count >= 2 && lift > 1)
                card.words.push_back({id, count, static_cast<double>(count) * std::log2(lift)});
        }
        std::sort(card.words.begin(), card.words.end(),
                  [](const auto &a, const auto &b) { return a.score != b.score ? a.score > b.score : a.id < b.id; });
        if (card.words.size() > 40)
            card.words.resize(40);
    }
    return std::shared_ptr<const ExpertCards>(cards);
}

QString visible(QString s)
{
    s.replace(QLatin1Char('\n'), QStringLiteral("↵"));
    s.replace(QLatin1Char('\t'), QStringLiteral("⇥"));
    return s;
}

} // namespace

DetailsView::DetailsView(QWidget *parent)
    : View(QStringLiteral("details"), tr("Token and expert"), parent), m_cardJob(std::make_unique<LatestJob>())
{
    addOption({QStringLiteral("token"), tr("Token"), tr("A token to stay with; −1 follows the mouse"), {}, -1, 1e12, true, false, QStringLiteral("-1")});
    addOption({QStringLiteral("expert"), tr("Expert"), tr("An expert to stay with; −1 follows the mouse and the selection"), {}, -1, 1e6, true, false, QStringLiteral("-1")});
    setBarVisible(false);
}

DetailsView::~DetailsView()
{
    m_cardJob.reset();
}

void DetailsView::sessionReset()
{
    m_data.reset();
    m_cards.reset();
    m_cardJob->cancel();
    m_targets.clear();
}

void DetailsView::refresh()
{
    const auto t = current();
    if (t->info->layers() == 0 || t->info->experts == 0 || t->info->tokens == 0) {
        showEmpty(tr("Move the mouse over a token to see which experts took it."));
        return;
    }
    load(tr("Reading routes"), [this, source = t->source](JobContext &job) -> Result<LatestJob::Apply> {
        const auto info = source->info();
        auto loaded = std::make_shared<DetailsData>();
        loaded->decoderIndex = info->decoderIndex;
        loaded->domains = info->domains;
        loaded->experts = info->experts;
        loaded->tokens = info->tokens;
        SPECTRA_TRY(loaded->columns, tokenColumns(source, job.stop()));
        for (int l = 0; l < info->layers(); ++l) {
            auto routing = layerRouting(source, l, job.stop());
            if (!routing)
                return routing.error();
            loaded->layers.push_back(*routing);
        }
        return LatestJob::Apply([this, loaded] {
            m_data = loaded;
            m_cards.reset();
            readCards();
            describe();
            showReady();
        });
    });
}

void DetailsView::readCards()
{
    if (!m_data || (m_cards && m_cards->layer == session()->layer()))
        return;
    const LatestJob::Function job = [this, known = m_data, layer = session()->layer()](JobContext &context) -> Result<LatestJob::Apply> {
        auto cards = countCards(*known, layer, context.stop());
        if (!cards)
            return cards.error();
        return LatestJob::Apply([this, read = *cards] {
            m_cards = read;
            repaintCanvas();
        });
    };
    if (isSynchronous())
        m_cardJob->runNow(job);
    else
        m_cardJob->start(job);
}

void DetailsView::layerChanged()
{
    if (!m_data) {
        refresh();
        return;
    }
    readCards();
    describe();
    repaintCanvas();
}

void DetailsView::rowsChanged(RowLayer layer)
{
    if (layer == RowLayer::highlight) {
        describe();
        repaintCanvas();
    }
}

void DetailsView::expertsChanged()
{
    describe();
    repaintCanvas();
}

void DetailsView::focusChanged()
{
    describe();
    repaintCanvas();
}

std::int64_t DetailsView::shownToken() const
{
    if (!m_data)
        return -1;
    if (const auto pinned = static_cast<std::int64_t>(number(QStringLiteral("token"))); pinned >= 0 && pinned < m_data->tokens)
        return pinned;
    const std::int64_t n = session()->highlightedToken().value_or(session()->focusedToken().value_or(-1));
    return n < m_data->tokens ? n : -1;
}

int DetailsView::shownExpert() const
{
    if (!m_data)
        return -1;
    if (const int pinned = static_cast<int>(number(QStringLiteral("expert"))); pinned >= 0 && pinned < m_data->experts)
        return pinned;
    if (const auto e = session()->highlightedExpert())
        return *e;
    if (!session()->selectedExperts().empty())
        return session()->selectedExperts().front();
    const std::int64_t n = shownToken();
    const auto layer = static_cast<std::size_t>(session()->layer());
    if (n < 0 || layer >= m_data->layers.size())
        return isSynchronous() ? 0 : -1; // a figure on paper has no mouse to follow
    const std::uint16_t top = m_data->layers[layer]->top(n);
    return top == kNoExpert ? -1 : top;
}

void DetailsView::describe()
{
    QStringList parts;
    if (const std::int64_t n = shownToken(); n >= 0) {
        const auto i = static_cast<std::size_t>(n);
        const auto text = m_data->columns->text.find(m_data->columns->id[i]);
        if (text != m_data->columns->text.end())
            parts << QStringLiteral("“%1”").arg(visible(QString::fromStdString(text->second)).trimmed());
        const auto s = static_cast<std::size_t>(m_data->columns->sequence[i]);
        const std::int64_t first = s < m_data->columns->sequenceOffset.size() ? m_data->columns->sequenceOffset[s] : 0;
        parts << tr("sequence %1, position %2").arg(s).arg(n - first);
    }
    if (const int e = shownExpert(); e >= 0)
        parts << tr("E%1 of layer %2").arg(e).arg(session()->decoderLayer());
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

void DetailsView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    m_targets.clear();
    if (!m_data)
        return;
    const std::int64_t n = shownToken();
    const int e = shownExpert();
    if (n < 0 && e < 0) {
        drawParagraph(p, area, tr("Move the mouse over a token in any view to see which experts took it; click to keep it here. Click an expert to see its card."),
                      theme.font, theme.muted);
        return;
    }
    // Side by side where it is wide, else one under the other.
    const double em = theme.em();
    if (area.width() > em * 44 && n >= 0 && e >= 0) {
        const double half = (area.width() - em * 1.5) / 2;
        paintToken(p, QRectF(area.left(), area.top(), half, area.height()), theme, n);
        paintExpert(p, QRectF(area.left() + half + em * 1.5, area.top(), half, area.height()), theme, e);
        return;
    }
    QRectF rest = area;
    if (n >= 0) {
        QRectF forToken = rest;
        if (e >= 0)
            forToken.setHeight(std::max(rest.height() * 0.62, rest.height() - em * 15));
        rest.setTop(paintToken(p, forToken, theme, n) + em * 0.5);
    }
    if (e >= 0 && rest.height() > em * 3) {
        if (n >= 0) {
            p.setPen(QPen(theme.border, theme.hairline()));
            p.drawLine(rest.topLeft(), rest.topRight());
            rest.setTop(rest.top() + em * 0.5);
        }
        paintExpert(p, rest, theme, e);
    }
}

double DetailsView::paintToken(QPainter &p, QRectF area, const Theme &theme, std::int64_t n)
{
    const double em = theme.em(), h = lineHeight(theme.small) * 1.08;
    const TokenColumns &c = *m_data->columns;
    const auto i = static_cast<std::size_t>(n);
    const int layers = static_cast<int>(m_data->layers.size()), now = session()->layer();
    double y = area.top();
    const auto room = [&](double need) { return y + need <= area.bottom() + 0.5; };
    const auto textOf = [&](std::int64_t row) {
        const auto at = c.text.find(c.id[static_cast<std::size_t>(row)]);
        return at == c.text.end() ? QString() : visible(QString::fromStdString(at->second));
    };
    // The token in its context: one line, the token in the middle of it.
    {
        const double line = lineHeight(theme.mono) * 1.25;
        const QRectF box(area.left(), y, area.width(), line);
        const QString token = textOf(n).isEmpty() ? QStringLiteral("<%1>").arg(c.id[i]) : textOf(n);
        QFont strong = theme.mono;
        strong.setWeight(QFont::Bold);
        const double w = std::min(textWidth(strong, token), box.width());
        const std::uint16_t top = m_data->layers[static_cast<std::size_t>(now)]->top(n);
        const auto s = static_cast<std::size_t>(c.sequence[i]);
        const std::int64_t first = s + 1 < c.sequenceOffset.size() ? c.sequenceOffset[s] : 0, last = s + 1 < c.sequenceOffset.size() ? c.sequenceOffset[s + 1] : m_data->tokens;
        QString before, after;
        const double side = (box.width() - w) / 2;
        for (std::int64_t k = n - 1; k >= first && textWidth(theme.mono, before) < side; --k)
            before.prepend(textOf(k));
        const double left = std::min(side, textWidth(theme.mono, before));
        for (std::int64_t k = n + 1; k < last && textWidth(theme.mono, after) < box.width() - left - w; ++k)
            after.append(textOf(k));
        const double x = box.left() + left;
        drawLabel(p, QRectF(box.left(), y, left, line), Qt::AlignRight | Qt::AlignVCenter, elided(theme.mono, before, left, Qt::ElideLeft), theme.mono, theme.muted);
        p.fillRect(QRectF(x, y + line * 0.06, w, line * 0.88), mixed(theme.panel, top == kNoExpert ? theme.missing : expertColor(top), 0.35));
        drawLabel(p, QRectF(x, y, w + 1, line), Qt::AlignLeft | Qt::AlignVCenter, token, strong, theme.text);
        drawLabel(p, QRectF(x + w + 1, y, box.right() - x - w - 1, line), Qt::AlignLeft | Qt::AlignVCenter, after, theme.mono, theme.muted);
        y += line + em * 0.25;
    }
    QStringList facts;
    if (!c.nll.empty() && std::isfinite(c.nll[i]))
        facts << tr("−log p(next) %1 nats").arg(formatNumber(static_cast<double>(c.nll[i])));
    if (!c.nextTop1.empty())
        if (const auto next = c.text.find(c.nextTop1[i]); next != c.text.end())
            facts << tr("likeliest next “%1”").arg(visible(QString::fromStdString(next->second)).trimmed());
    if (const int q = c.domain(n); q >= 0 && !m_data->domains[static_cast<std::size_t>(q)].empty())
        facts << QString::fromStdString(m_data->domains[static_cast<std::size_t>(q)]);
    if (c.mask[i] == 0)
        facts << tr("not counted");
    if (!facts.isEmpty() && room(h)) {
        drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, facts.join(QStringLiteral(" · ")), theme.small, theme.text);
        y += h + em * 0.3;
    }
    // The route: layers from left to right, experts from top to bottom.
    const double plotHeight = std::clamp((area.bottom() - y) * 0.38, 0.0, em * 8);
    const int experts = m_data->experts;
    if (plotHeight > em * 3 && layers > 1) {
        const double labels = textWidth(theme.small, QStringLiteral("E%1").arg(experts - 1)) + em * 0.4;
        const QRectF plot(area.left() + labels, y + em * 0.3, area.width() - labels - em * 0.6, plotHeight - h - em * 0.3);
        const auto at = [&](int layer, int expert) {
            return QPointF(plot.left() + plot.width() * (layer + 0.5) / layers, experts > 1 ? plot.top() + plot.height() * expert / (experts - 1) : plot.center().y());
        };
        int labelStep = 1;
        while (plot.height() / std::max(1, experts - 1) * labelStep < h * 0.85)
            ++labelStep;
        p.setPen(QPen(theme.grid, theme.hairline()));
        for (int e = 0; e < experts; e += labelStep) {
            p.setPen(QPen(theme.grid, theme.hairline()));
            p.drawLine(QPointF(plot.left(), at(0, e).y()), QPointF(plot.right(), at(0, e).y()));
            drawLabel(p, QRectF(area.left(), at(0, e).y() - h / 2, labels - em * 0.3, h), Qt::AlignRight | Qt::AlignVCenter, QStringLiteral("E%1").arg(e), theme.small, theme.faint);
        }
        p.fillRect(QRectF(at(now, 0).x() - plot.width() / layers / 2, plot.top() - em * 0.2, plot.width() / layers, plot.height() + em * 0.4),
                   mixed(theme.panel, theme.accent, 0.10));
        p.save();
        for (int s = m_data->layers[0]->slots - 1; s >= 0; --s) {
            for (int l = 0; l < layers; ++l) {
                const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(l)];
                const auto k = static_cast<std::size_t>(n * r.slots + s);
                const std::uint16_t e = r.experts[k];
                if (e == kNoExpert)
                    continue;
                const double weight = r.weights.empty() ? 1 : std::clamp(static_cast<double>(r.weights[k]), 0.0, 1.0);
                if (l + 1 < layers) {
                    const LayerRouting &next = *m_data->layers[static_cast<std::size_t>(l + 1)];
                    if (const std::uint16_t to = next.experts[static_cast<std::size_t>(n * next.slots + s)]; to != kNoExpert) {
                        const QPointF a = at(l, e), b = at(l + 1, to);
                        QPainterPath curve(a);
                        curve.cubicTo(QPointF((a.x() + b.x()) / 2, a.y()), QPointF((a.x() + b.x()) / 2, b.y()), b);
                        p.setBrush(Qt::NoBrush);
                        p.setPen(QPen(mixed(theme.panel, theme.muted, s == 0 ? 0.75 : 0.28), em * (s == 0 ? 0.14 : 0.09)));
                        p.drawPath(curve);
                    }
                }
                drawGlyph(p, at(l, e), em * (0.12 + 0.24 * std::sqrt(weight)), expertGlyph(e), s == 0 ? expertColor(e) : mixed(theme.panel, expertColor(e), 0.65));
                m_targets.push_back({QRectF(at(l, e).x() - em * 0.5, at(l, e).y() - em * 0.5, em, em), l, e});
            }
        }
        p.restore();
        int step = 1;
        while (plot.width() / layers * step < textWidth(theme.small, QStringLiteral("00")) + em * 0.5)
            ++step;
        for (int l = 0; l < layers; l += step)
            drawLabel(p, QRectF(at(l, 0).x() - em * 1.2, plot.bottom() + em * 0.25, em * 2.4, h), Qt::AlignHCenter | Qt::AlignTop,
                      QString::number(m_data->decoderIndex[static_cast<std::size_t>(l)]), theme.small, l == now ? theme.accent : theme.faint);
        if (textWidth(theme.small, tr("layer")) < at(0, 0).x() - area.left() - em)
            drawLabel(p, QRectF(area.left(), plot.bottom() + em * 0.25, area.width(), h), Qt::AlignLeft | Qt::AlignTop, tr("layer"), theme.small, theme.faint);
        y = plot.bottom() + h + em * 0.55;
    }
    // Chosen experts: as many layers as fit, around the shown one.
    const int fit = static_cast<int>((area.bottom() - y) / h) - 1;
    if (fit < 1)
        return y;
    const int rows = std::min(fit, layers), from = std::clamp(now - rows / 2, 0, layers - rows);
    const int slots_ = m_data->layers[0]->slots;
    const double first = std::min(em * 4, area.width() * 0.22), each = em * 5.8;
    const int shown = std::clamp(static_cast<int>((area.width() - first) / each), 1, slots_);
    QFont strong = theme.small;
    strong.setWeight(QFont::Bold);
    drawLabel(p, QRectF(area.left(), y, first, h), Qt::AlignLeft | Qt::AlignVCenter, tr("layer"), theme.small, theme.muted);
    drawLabel(p, QRectF(area.left() + first, y, area.width() - first, h), Qt::AlignLeft | Qt::AlignVCenter,
              shown < slots_ ? tr("experts and weights, %1 of %2").arg(shown).arg(slots_) : tr("experts and weights"), theme.small, theme.muted);
    y += h;
    for (int l = from; l < from + rows; ++l) {
        if (l == now)
            p.fillRect(QRectF(area.left(), y, area.width(), h), mixed(theme.panel, theme.accent, 0.10));
        drawLabel(p, QRectF(area.left() + em * 0.2, y, first, h), Qt::AlignLeft | Qt::AlignVCenter, QString::number(m_data->decoderIndex[static_cast<std::size_t>(l)]),
                  l == now ? theme.bold : theme.small, l == now ? theme.accent : theme.muted);
        const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(l)];
        for (int s = 0; s < shown; ++s) {
            const auto k = static_cast<std::size_t>(n * r.slots + s);
            if (r.experts[k] == kNoExpert)
                continue;
            const double x = area.left() + first + s * each;
            drawGlyph(p, QPointF(x + em * 0.4, y + h / 2), em * 0.3, expertGlyph(r.experts[k]), expertColor(r.experts[k]));
            const QString text = QStringLiteral("E%1").arg(r.experts[k]);
            drawLabel(p, QRectF(x + em * 0.9, y, em * 2.2, h), Qt::AlignLeft | Qt::AlignVCenter, text, s == 0 ? strong : theme.small, theme.text);
            if (!r.weights.empty())
                drawLabel(p, QRectF(x + em * 3.1, y, em * 2.5, h), Qt::AlignLeft | Qt::AlignVCenter, QString::number(static_cast<double>(r.weights[k]), 'f', 2), theme.small, theme.muted);
            m_targets.push_back({QRectF(x, y, each, h), l, r.experts[k]});
        }
        y += h;
    }
    return y;
}

double DetailsView::paintExpert(QPainter &p, QRectF area, const Theme &theme, int expert)
{
    const double em = theme.em(), h = lineHeight(theme.small) * 1.08;
    double y = area.top();
    drawGlyph(p, QPointF(area.left() + em * 0.45, y + h * 0.55), em * 0.42, expertGlyph(expert), expertColor(expert));
    const QString name = tr("Expert E%1").arg(expert);
    drawLabel(p, QRectF(area.left() + em * 1.2, y, area.width() - em * 1.2, h * 1.1), Qt::AlignLeft | Qt::AlignVCenter, name, theme.bold, theme.text);
    const double used = em * 1.2 + textWidth(theme.bold, name) + em * 0.5;
    drawLabel(p, QRectF(area.left() + used, y, area.width() - used, h * 1.1), Qt::AlignLeft | Qt::AlignVCenter, tr("of layer %1").arg(session()->decoderLayer()), theme.small, theme.muted);
    y += h * 1.2;
    if (!m_cards || m_cards->layer != session()->layer() || static_cast<std::size_t>(expert) >= m_cards->cards.size()) {
        drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, tr("counting…"), theme.small, theme.faint);
        return y + h;
    }
    const auto &card = m_cards->cards[static_cast<std::size_t>(expert)];
    const double share = m_cards->assignments > 0 ? static_cast<double>(card.load) / static_cast<double>(m_cards->assignments) : 0;
    drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter,
              tr("load %1 (fair %2) · %3 assignments").arg(formatPercent(share), formatPercent(1.0 / std::max(1, m_data->experts)), formatCount(card.load)), theme.small, theme.text);
    y += h * 1.15;
    // Lift by domain: bars around 1.
    std::vector<int> order;
    for (std::size_t q = 0; q < m_data->domains.size(); ++q)
        if (m_cards->domainAssignments[q] > 0 && m_data->domains.size() > 1)
            order.push_back(static_cast<int>(q));
    const auto lift = [&](int q) {
        const auto i = static_cast<std::size_t>(q);
        return share > 0 ? static_cast<double>(card.byDomain[i]) / static_cast<double>(m_cards->domainAssignments[i]) / share : NAN;
    };
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return lift(a) > lift(b); });
    const int bars = std::min(static_cast<int>(order.size()), std::max(0, static_cast<int>((area.bottom() - y - 2.4 * h) / h)));
    double labels = 0;
    for (int k = 0; k < bars; ++k)
        labels = std::max(labels, textWidth(theme.small, QString::fromStdString(m_data->domains[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])])));
    labels = std::min(labels + em * 0.5, area.width() * 0.4);
    const double numbers = textWidth(theme.small, QStringLiteral("×0.000")) + em * 0.3, width = area.width() - labels - numbers;
    double top = 2;
    for (const int q : order)
        top = std::max(top, lift(q));
    for (int k = 0; k < bars && width > em * 2; ++k) {
        const int q = order[static_cast<std::size_t>(k)];
        const double v = lift(q), x = area.left() + labels;
        drawLabel(p, QRectF(area.left(), y, labels - em * 0.3, h), Qt::AlignLeft | Qt::AlignVCenter, QString::fromStdString(m_data->domains[static_cast<std::size_t>(q)]), theme.small, theme.muted);
        if (std::isfinite(v))
            p.fillRect(QRectF(x, y + h * 0.2, std::max(1.0, v / top * width), h * 0.6), domainColor(q));
        p.setPen(QPen(theme.faint, theme.hairline()));
        p.drawLine(QPointF(x + width / top, y), QPointF(x + width / top, y + h));
        drawLabel(p, QRectF(x + width + em * 0.2, y, numbers, h), Qt::AlignLeft | Qt::AlignVCenter, QStringLiteral("×") + formatNumber(v, 2), theme.small, theme.text);
        y += h;
    }
    if (bars > 0)
        y += em * 0.35;
    QString words;
    for (const auto &w : card.words) {
        const auto text = m_data->columns->text.find(w.id);
        if (text == m_data->columns->text.end())
            continue;
        const QString word = visible(QString::fromStdString(text->second)).trimmed();
        if (!word.isEmpty())
            words += (words.isEmpty() ? QString() : QStringLiteral("  ")) + word;
    }
    if (y + 2 * h <= area.bottom() + 1) {
        drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, tr("typical tokens"), theme.small, theme.muted);
        y += h;
        QFont mono = theme.mono;
        mono.setPixelSize(theme.small.pixelSize());
        y += drawParagraph(p, QRectF(area.left(), y, area.width(), area.bottom() - y), words.isEmpty() ? tr("none stands out") : words, mono, theme.text, 6);
    }
    return y;
}

bool DetailsView::mousePressed(QMouseEvent *event)
{
    if (event->button() != Qt::LeftButton)
        return false;
    for (const Target &t : m_targets)
        if (t.area.contains(event->position())) {
            const Target hit = t; // a repaint clears the list
            session()->setLayer(hit.layer);
            session()->selectExpert(hit.expert, selectModeOf(event->modifiers()));
            return true;
        }
    return true;
}

bool DetailsView::keyPressed(QKeyEvent *event)
{
    const auto focus = session()->focusedToken();
    switch (event->key()) {
    case Qt::Key_Left:
    case Qt::Key_Right:
        if (m_data)
            session()->focusToken(std::clamp<std::int64_t>(focus.value_or(0) + (event->key() == Qt::Key_Right ? 1 : -1), 0, m_data->tokens - 1));
        return true;
    case Qt::Key_Up:
    case Qt::Key_PageUp: session()->setLayer(session()->layer() - 1); return true;
    case Qt::Key_Down:
    case Qt::Key_PageDown: session()->setLayer(session()->layer() + 1); return true;
    default: return false;
    }
}

QString DetailsView::toolTipAt(const QPointF &position) const
{
    for (const Target &t : m_targets)
        if (t.area.contains(position))
            return tr("layer %1, E%2. Click to select this expert.").arg(m_data->decoderIndex[static_cast<std::size_t>(t.layer)]).arg(t.expert);
    return {};
}

TableData DetailsView::tableData() const
{
    TableData table;
    table.caption = title() + QStringLiteral(": ") + subtitle();
    const std::int64_t n = shownToken();
    if (!m_data)
        return table;
    if (n >= 0) {
        const int k = m_data->layers.empty() ? 1 : m_data->layers[0]->slots;
        table.header << QStringLiteral("token") << QStringLiteral("text") << QStringLiteral("layer") << QStringLiteral("slot") << QStringLiteral("expert") << QStringLiteral("weight");
        table.rows = static_cast<qsizetype>(m_data->layers.size()) * k;
        table.cell = [data = m_data, n, k](qsizetype row, int column) -> QVariant {
            const auto l = static_cast<std::size_t>(row / k);
            const LayerRouting &r = *data->layers[l];
            const auto at = static_cast<std::size_t>(n * r.slots + row % k);
            switch (column) {
            case 0: return static_cast<qlonglong>(n);
            case 1: {
                const auto text = data->columns->text.find(data->columns->id[static_cast<std::size_t>(n)]);
                return text == data->columns->text.end() ? QVariant() : QVariant(QString::fromStdString(text->second));
            }
            case 2: return data->decoderIndex[l];
            case 3: return static_cast<int>(row % k);
            case 4: return r.experts[at] == kNoExpert ? QVariant() : QVariant(static_cast<int>(r.experts[at]));
            default: return r.weights.empty() ? QVariant() : QVariant(r.weights[at]);
            }
        };
        return table;
    }
    const int e = shownExpert();
    if (e < 0 || !m_cards || static_cast<std::size_t>(e) >= m_cards->cards.size())
        return table;
    table.header << QStringLiteral("layer") << QStringLiteral("expert") << QStringLiteral("token id") << QStringLiteral("text") << QStringLiteral("assignments");
    table.rows = static_cast<qsizetype>(m_cards->cards[static_cast<std::size_t>(e)].words.size());
    table.cell = [data = m_data, cards = m_cards, e](qsizetype row, int column) -> QVariant {
        const auto &w = cards->cards[static_cast<std::size_t>(e)].words[static_cast<std::size_t>(row)];
        switch (column) {
        case 0: return data->decoderIndex[static_cast<std::size_t>(cards->layer)];
        case 1: return e;
        case 2: return w.id;
        case 3: {
            const auto text = data->columns->text.find(w.id);
            return text == data->columns->text.end() ? QVariant() : QVariant(QString::fromStdString(text->second));
        }
        default: return static_cast<qlonglong>(w.count);
        }
    };
    return table;
}

} // namespace spectra
