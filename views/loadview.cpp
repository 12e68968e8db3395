// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/loadview.h"

#include "views/loaddata.h"
#include "views/paintkit.h"

#include <QPainter>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra {

namespace {

double relativeColor(double relative)
{
    // ×¼ to ×4 on a logarithmic scale; an unused expert is at the low end.
    return relative <= 0 ? 0.0 : std::clamp(0.5 + std::log2(relative) / 4.0, 0.0, 1.0);
}

} // namespace

LoadView::LoadView(QWidget *parent) : View(QStringLiteral("load"), tr("Expert load"), parent)
{
    addOption({QStringLiteral("mode"),
               tr("Show"),
               tr("One layer as bars, or all layers as a map"),
               {{QStringLiteral("bars"), tr("this layer"), true, {}}, {QStringLiteral("layers"), tr("all layers"), true, {}}},
               0, 0, true, true, QStringLiteral("bars")});
    addOption({QStringLiteral("stack"),
               tr("Stack"),
               tr("What the bars are made of"),
               {{QStringLiteral("domain"), tr("by domain"), true, {}}, {QStringLiteral("none"), tr("expert colour"), true, {}}},
               0, 0, true, true, QStringLiteral("domain")});
    addOption({QStringLiteral("count"),
               tr("Count"),
               tr("Every assignment, only each token's first expert, or the weights"),
               {{QStringLiteral("all"), tr("all slots"), true, {}},
                {QStringLiteral("top1"), tr("first expert"), true, {}},
                {QStringLiteral("weight"), tr("by weight"), true, {}}},
               0, 0, true, true, QStringLiteral("all")});
    addOption({QStringLiteral("order"),
               tr("Order"),
               tr("Order of the experts"),
               {{QStringLiteral("index"), tr("by index"), true, {}}, {QStringLiteral("load"), tr("by load"), true, {}}},
               0, 0, true, false, QStringLiteral("index")});
}

LoadView::~LoadView() = default;

void LoadView::sessionReset()
{
    m_data.reset();
    m_selected.clear();
    m_hover = {};
}

void LoadView::refresh()
{
    const auto t = current();
    if (t->info->layers() == 0 || t->info->experts == 0) {
        showEmpty(tr("This trace has no layers with experts. Upcycle the model to get some."));
        return;
    }
    if (t->info->tokens == 0) {
        showEmpty(tr("No token has been routed yet."));
        return;
    }
    if (!t->info->has(Column::experts)) {
        showEmpty(tr("This trace does not hold the chosen experts."));
        return;
    }
    const bool filtered = t->filter.count() != t->filter.size();
    const bool selected = !t->selection.empty();
    const int layer = session()->layer();
    // What is known already is kept: a layer change reads one layer at most.
    load(tr("Counting assignments"),
         [this, source = t->source, rows = filtered ? std::optional<RowSet>(t->filter) : std::nullopt, selected,
          layer](JobContext &job) -> Result<LatestJob::Apply> {
             auto loaded = std::make_shared<LoadData>();
             auto table = loadTable(*source, rows ? &*rows : nullptr, job.stop());
             if (!table)
                 return table.error();
             loaded->table = std::move(*table);
             const auto info = source->info();
             loaded->decoderIndex = info->decoderIndex;
             loaded->domains = loaded->table.domains;
             loaded->slots = std::max(1, info->slots);
             if (selected) {
                 auto columns = tokenColumns(source, job.stop());
                 if (!columns)
                     return columns.error();
                 auto routing = layerRouting(source, layer, job.stop());
                 if (!routing)
                     return routing.error();
                 loaded->columns = *columns;
                 loaded->routing = *routing;
                 loaded->routingLayer = layer;
             }
             return LatestJob::Apply([this, loaded] {
                 m_data = loaded;
                 countSelection();
                 describe();
                 showReady();
             });
         });
}

void LoadView::layerChanged()
{
    describe();
    if (m_data && (current()->selection.empty() || isMap())) {
        m_selected.clear();
        repaintCanvas();
    } else {
        rowsChanged(RowLayer::selection);
    }
}

void LoadView::domainsChanged()
{
    countSelection();
    describe();
    repaintCanvas();
}

void LoadView::optionChanged(const QString &)
{
    if (!m_data) {
        refresh();
        return;
    }
    countSelection();
    describe();
    repaintCanvas();
}

void LoadView::rowsChanged(RowLayer which)
{
    if (which == RowLayer::highlight)
        return;
    if (which == RowLayer::filter || !m_data) {
        if (current())
            refresh();
        return;
    }
    const auto t = current();
    const int layer = session()->layer();
    if (t->selection.empty()) {
        m_selected.clear();
        describe();
        repaintCanvas();
        return;
    }
    if (m_data->columns && m_data->routing && m_data->routingLayer == layer) {
        countSelection();
        describe();
        repaintCanvas();
        return;
    }
    load(tr("Reading layer %1").arg(session()->decoderLayer()),
         [this, source = t->source, layer, known = m_data](JobContext &job) -> Result<LatestJob::Apply> {
             auto columns = tokenColumns(source, job.stop());
             if (!columns)
                 return columns.error();
             auto routing = layerRouting(source, layer, job.stop());
             if (!routing)
                 return routing.error();
             auto loaded = std::make_shared<LoadData>(*known);
             loaded->columns = *columns;
             loaded->routing = *routing;
             loaded->routingLayer = layer;
             return LatestJob::Apply([this, loaded] {
                 m_data = loaded;
                 countSelection();
                 describe();
                 showReady();
             });
         });
}

/// Assignments of the selected rows: a walk over set bits, a few milliseconds for a million.
void LoadView::countSelection()
{
    m_selected.clear();
    const auto t = current();
    if (!m_data || !t || !m_data->routing || m_data->routingLayer != session()->layer() || t->selection.empty())
        return;
    const LayerRouting &routing = *m_data->routing;
    const TokenColumns &columns = *m_data->columns;
    const int used = option(QStringLiteral("count")) == QLatin1String("top1") ? 1 : routing.slots;
    m_selected.assign(static_cast<std::size_t>(m_data->table.experts), 0);
    const bool all = session()->shownDomains().empty();
    t->selection.forEach([&](std::size_t row) {
        if (row >= static_cast<std::size_t>(routing.tokens) || columns.mask[row] == 0 || !t->filter.contains(row))
            return;
        if (!all && !session()->domainShown(columns.domain(static_cast<std::int64_t>(row))))
            return;
        for (int s = 0; s < used; ++s) {
            const std::uint16_t e = routing.experts[row * static_cast<std::size_t>(routing.slots) + static_cast<std::size_t>(s)];
            if (e < m_selected.size())
                ++m_selected[e];
        }
    });
}

double LoadView::domainLoad(int layer, int expert, int domain) const
{
    const LoadTable &t = m_data->table;
    const auto i = static_cast<std::size_t>((layer * t.experts + expert) * static_cast<std::int64_t>(t.domains.size()) + domain);
    const QString count = option(QStringLiteral("count"));
    if (count == QLatin1String("top1"))
        return static_cast<double>(t.top1[i]);
    if (count == QLatin1String("weight") && i < t.weights.size())
        return t.weights[i];
    return static_cast<double>(t.counts[i]);
}

std::vector<double> LoadView::loads(int layer) const
{
    std::vector<double> sum(static_cast<std::size_t>(m_data->table.experts), 0.0);
    for (int e = 0; e < m_data->table.experts; ++e)
        for (int q = 0; q < static_cast<int>(m_data->table.domains.size()); ++q)
            if (session()->domainShown(q))
                sum[static_cast<std::size_t>(e)] += domainLoad(layer, e, q);
    return sum;
}

std::vector<int> LoadView::order() const
{
    std::vector<int> o(static_cast<std::size_t>(m_data->table.experts));
    std::iota(o.begin(), o.end(), 0);
    if (option(QStringLiteral("order")) == QLatin1String("load") && !isMap()) {
        const auto l = loads(session()->layer());
        std::stable_sort(o.begin(), o.end(), [&](int a, int b) { return l[static_cast<std::size_t>(a)] > l[static_cast<std::size_t>(b)]; });
    }
    return o;
}

void LoadView::describe()
{
    if (!m_data)
        return;
    QStringList parts;
    parts << (isMap() ? tr("load ÷ fair share, %1 layers").arg(m_data->table.layers) : tr("layer %1").arg(session()->decoderLayer()));
    const auto &shown = session()->shownDomains();
    if (shown.empty())
        parts << tr("all tokens");
    else {
        QStringList names;
        for (const int q : shown)
            names << domainName(m_data->domains[static_cast<std::size_t>(q)]);
        parts << names.join(QStringLiteral(", "));
    }
    const QString count = option(QStringLiteral("count"));
    if (count == QLatin1String("top1"))
        parts << tr("first expert only");
    else if (count == QLatin1String("weight"))
        parts << tr("by weight");
    const auto t = current();
    if (t && t->filter.count() != t->filter.size())
        parts << tr("filtered to %1 tokens").arg(formatCount(static_cast<qint64>(t->filter.count())));
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

double LoadView::axisTop() const
{
    const auto l = loads(session()->layer());
    const double sum = std::accumulate(l.begin(), l.end(), 0.0), most = l.empty() ? 0 : *std::max_element(l.begin(), l.end());
    const double fair = 1.0 / std::max<double>(1, static_cast<double>(l.size()));
    return std::max(sum > 0 ? most / sum : 0, fair) * 1.12;
}

QRectF LoadView::plotArea(const QRectF &area, const Theme &theme) const
{
    const double h = lineHeight(theme.small);
    if (isMap()) {
        const double left = textWidth(theme.small, QStringLiteral("00")) + theme.em() * 0.6;
        const double bar = colorBarWidth(theme, textWidth(theme.small, QStringLiteral("×0.25"))) + theme.em() * 0.9;
        const double figures = area.width() > theme.em() * 34 ? theme.em() * 9.5 : 0;
        const double top = figures > 0 ? h : 0;
        return area.adjusted(left, top + theme.em() * 0.2, -(area.width() > theme.em() * 16 ? bar : 0) - figures, -h * 2.35);
    }
    const double left = textWidth(theme.small, QStringLiteral("100 %")) + theme.em() * 0.5;
    const bool stacked = option(QStringLiteral("stack")) == QLatin1String("domain") && m_data->domains.size() > 1;
    double legend = 0;
    if (stacked) {
        std::vector<LegendEntry> entries;
        for (std::size_t q = 0; q < m_data->domains.size(); ++q)
            entries.push_back({domainName(m_data->domains[q]), {}, Glyph::square, false, static_cast<int>(q)});
        legend = legendHeight(area.width() - left, entries, theme, area.height() > theme.em() * 16 ? 2 : 1) + theme.em() * 0.3;
    }
    return area.adjusted(left, h * 1.25 + legend, -theme.em() * 0.2, -h * 1.25);
}

void LoadView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    if (!m_data)
        return;
    if (isMap())
        paintMap(p, area, theme);
    else
        paintBars(p, area, theme);
}

void LoadView::paintBars(QPainter &p, const QRectF &area, const Theme &theme)
{
    const int layer = session()->layer();
    const int e = static_cast<int>(m_data->table.experts), domains = static_cast<int>(m_data->domains.size());
    const auto load = loads(layer);
    const double sum = std::accumulate(load.begin(), load.end(), 0.0), fair = 1.0 / e, top = axisTop();
    const QRectF plot = plotArea(area, theme);
    const double h = lineHeight(theme.small);
    // Figures of balance, as many as fit.
    {
        QStringList figures;
        const auto add = [&](const QString &name, double v, const QString &unit = {}) {
            figures << name + QStringLiteral(" ") + formatNumber(v) + unit;
        };
        add(tr("CV"), coefficientOfVariation(load));
        add(tr("MaxVio"), maxViolation(load));
        add(tr("Gini"), gini(load));
        add(tr("entropy"), entropyBits(load), tr(" of %1 bits").arg(formatNumber(std::log2(e))));
        double x = area.left();
        for (const QString &f : figures) {
            const double w = textWidth(theme.small, f);
            if (x + w > area.right() + 1)
                break;
            drawLabel(p, QRectF(x, area.top(), w + 1, h), Qt::AlignLeft | Qt::AlignVCenter, f, theme.small, theme.text);
            x += w + theme.em();
        }
    }
    const bool stacked = option(QStringLiteral("stack")) == QLatin1String("domain") && domains > 1;
    if (stacked) {
        std::vector<LegendEntry> entries;
        for (int q = 0; q < domains; ++q)
            entries.push_back({domainName(m_data->domains[static_cast<std::size_t>(q)]), domainColor(q), Glyph::square, !session()->domainShown(q), q});
        drawLegend(p, QRectF(plot.left(), area.top() + h * 1.2, plot.width(), plot.top() - area.top() - h * 1.2), entries, theme);
    }
    if (plot.height() < theme.em() * 1.5 || plot.width() < theme.em() * 2)
        return;
    // Axis
    const auto ticks = niceTicks(0, top * 100, std::clamp(static_cast<int>(plot.height() / (h * 2.2)), 1, 6));
    for (const double t : ticks) {
        const double y = plot.bottom() - t / 100 / top * plot.height();
        p.setPen(QPen(theme.grid, theme.hairline()));
        p.drawLine(QPointF(plot.left(), y), QPointF(plot.right(), y));
        drawLabel(p, QRectF(area.left(), y - h / 2, plot.left() - area.left() - theme.em() * 0.35, h), Qt::AlignRight | Qt::AlignVCenter,
                  formatTick(t) + QStringLiteral(" %"), theme.small, theme.muted);
    }
    const auto sequence = order();
    const double slot = plot.width() / e, gap = std::clamp(slot * 0.22, slot > 3 ? 1.0 : 0.0, theme.em() * 1.2);
    const auto &selectedExperts = session()->selectedExperts();
    const auto isSelected = [&](int x) { return std::binary_search(selectedExperts.begin(), selectedExperts.end(), x); };
    int step = 1;
    while (slot * step < textWidth(theme.small, QStringLiteral("E%1").arg(e - 1)) + theme.em() * 0.3)
        step *= 2;
    for (int i = 0; i < e; ++i) {
        const int x = sequence[static_cast<std::size_t>(i)];
        const double left = plot.left() + i * slot + gap / 2, width = slot - gap;
        const double total = sum > 0 ? load[static_cast<std::size_t>(x)] / sum : 0;
        const bool hovered = m_hover.expert == x || session()->highlightedExpert() == x;
        double y = plot.bottom();
        const auto piece = [&](double share, const QColor &color) {
            if (share <= 0)
                return;
            const double height = share / top * plot.height();
            p.fillRect(QRectF(left, y - height, width, height), color);
            y -= height;
        };
        if (stacked) {
            for (int q = 0; q < domains; ++q)
                if (session()->domainShown(q) && sum > 0)
                    piece(domainLoad(layer, x, q) / sum, domainColor(q));
        } else {
            piece(total, expertColor(x));
        }
        if (!m_selected.empty() && sum > 0 && option(QStringLiteral("count")) != QLatin1String("weight")) {
            // Selected tokens: a narrow bar in the one colour of selection, on the same scale.
            const double height = static_cast<double>(m_selected[static_cast<std::size_t>(x)]) / sum / top * plot.height();
            const double w = std::max(2.0, width * 0.36);
            const QRectF bar(left + (width - w) / 2, plot.bottom() - height, w, height);
            if (height > 0.3) {
                p.fillRect(bar.adjusted(-theme.hairline(), -theme.hairline(), theme.hairline(), 0), theme.panel);
                p.fillRect(bar, theme.selection);
            }
        }
        const QRectF whole(left, plot.bottom() - total / top * plot.height(), width, total / top * plot.height());
        if (isSelected(x))
            drawOutline(p, whole, theme.selection, theme);
        else if (hovered)
            drawOutline(p, whole, theme.hover, theme, theme.hairline() * 1.2);
        if (i % step == 0 || isSelected(x)) {
            const QString label = QStringLiteral("E%1").arg(x);
            const double w = textWidth(theme.small, label) + 1;
            if (i % step == 0 || w < slot)
                drawLabel(p, QRectF(plot.left() + (i + 0.5) * slot - w / 2, plot.bottom() + theme.em() * 0.15, w, h),
                          Qt::AlignHCenter | Qt::AlignTop, label, theme.small,
                          isSelected(x) ? theme.selection : hovered ? theme.text : theme.muted);
        }
    }
    p.setPen(QPen(theme.faint, theme.hairline()));
    p.drawLine(plot.bottomLeft(), plot.bottomRight());
    // Fair share: where every bar would end under perfect balance.
    const double fairY = plot.bottom() - fair / top * plot.height();
    QPen dash(theme.text, theme.hairline() * 1.3, Qt::CustomDashLine);
    dash.setDashPattern({4, 3});
    p.setPen(dash);
    p.drawLine(QPointF(plot.left(), fairY), QPointF(plot.right(), fairY));
    const QString fairText = tr("fair share %1").arg(formatPercent(fair));
    const double fairWidth = textWidth(theme.small, fairText);
    if (fairWidth < plot.width() * 0.6) {
        // Right above the line, on a patch of the panel's colour: bars pass under it.
        const QRectF label(plot.right() - fairWidth - theme.em() * 0.3, std::max(plot.top() - h * 0.2, fairY - h - theme.em() * 0.15), fairWidth + theme.em() * 0.3, h);
        QColor patch = theme.panel;
        patch.setAlphaF(0.86f);
        p.fillRect(label.adjusted(-theme.em() * 0.2, 0, 0, 0), patch);
        drawLabel(p, label, Qt::AlignLeft | Qt::AlignVCenter, fairText, theme.small, theme.text);
    }
}

void LoadView::paintMap(QPainter &p, const QRectF &area, const Theme &theme)
{
    const int e = static_cast<int>(m_data->table.experts), layers = static_cast<int>(m_data->table.layers);
    const QRectF plot = plotArea(area, theme);
    if (plot.width() < 10 || plot.height() < 10)
        return;
    const double h = lineHeight(theme.small), w = plot.width() / e, row = plot.height() / layers;
    const ColorMap map = theme.diverging();
    std::vector<std::vector<double>> relative;
    for (int l = 0; l < layers; ++l) {
        auto v = loads(l);
        const double sum = std::accumulate(v.begin(), v.end(), 0.0);
        for (double &x : v)
            x = sum > 0 ? x / sum * e : NAN;
        relative.push_back(std::move(v));
    }
    const auto color = [&](int l, int x) -> QRgb {
        const double v = relative[static_cast<std::size_t>(l)][static_cast<std::size_t>(x)];
        return std::isnan(v) ? theme.missing.rgb() : map.rgb(relativeColor(v));
    };
    const double gap = std::min({theme.em() * 0.09, w * 0.1, row * 0.1});
    if (e * layers <= 2048 && w > 4 && row > 4)
        drawCellRects(p, plot, layers, e, gap, color);
    else
        drawCells(p, plot, layers, e, color);
    int step = 1;
    while (row * step < h * 0.95)
        ++step;
    const int now = session()->layer();
    double lastLabel = -1e9;
    const auto layerLabel = [&](int l, const QFont &font, const QColor &ink) {
        const double y = plot.top() + (l + 0.5) * row;
        drawLabel(p, QRectF(area.left() - theme.em() * 0.1, y - h / 2, plot.left() - area.left() - theme.em() * 0.35, h), Qt::AlignRight | Qt::AlignVCenter,
                  QString::number(m_data->decoderIndex[static_cast<std::size_t>(l)]), font, ink);
    };
    for (int l = 0; l < layers; l += step) {
        const double y = plot.top() + (l + 0.5) * row, nowY = plot.top() + (now + 0.5) * row;
        if (l == now || std::abs(y - nowY) < h * 0.9 || y - lastLabel < h * 0.9)
            continue;
        layerLabel(l, theme.small, theme.muted);
        lastLabel = y;
    }
    layerLabel(now, theme.bold, theme.accent);
    int skip = 1;
    while (w * skip < textWidth(theme.small, QStringLiteral("E%1").arg(e - 1)) + theme.em() * 0.3)
        skip *= 2;
    const auto &selected = session()->selectedExperts();
    for (int x = 0; x < e; x += skip) {
        const QString label = QStringLiteral("E%1").arg(x);
        const double lw = textWidth(theme.small, label) + 1;
        drawLabel(p, QRectF(plot.left() + (x + 0.5) * w - lw / 2, plot.bottom() + theme.em() * 0.1, lw, h), Qt::AlignHCenter | Qt::AlignTop, label,
                  theme.small, std::binary_search(selected.begin(), selected.end(), x) ? theme.selection : theme.muted);
    }
    drawLabel(p, QRectF(plot.left(), plot.bottom() + h * 1.25, plot.width(), h), Qt::AlignLeft | Qt::AlignVCenter, tr("rows: layer, columns: expert"), theme.small, theme.faint);
    p.setPen(QPen(theme.accent, theme.hairline() * 1.5));
    p.setBrush(Qt::NoBrush);
    p.drawRect(QRectF(plot.left(), plot.top() + now * row, plot.width(), row));
    for (const int x : selected)
        drawOutline(p, QRectF(plot.left() + x * w, plot.top() + now * row, w, row), theme.selection, theme);
    if (m_hover.expert >= 0 && m_hover.layer >= 0)
        drawOutline(p, QRectF(plot.left() + m_hover.expert * w, plot.top() + m_hover.layer * row, w, row), theme.hover, theme);
    double right = plot.right();
    if (area.width() > theme.em() * 34) {
        // CV and MaxVio of each layer beside its row.
        const double column = theme.em() * 4.4;
        const QString heads[] = {tr("CV"), tr("MaxVio")};
        for (int k = 0; k < 2; ++k) {
            const double x = right + theme.em() * 0.4 + k * column;
            drawLabel(p, QRectF(x, plot.top() - h - theme.em() * 0.1, column, h), Qt::AlignRight | Qt::AlignVCenter, heads[k], theme.small, theme.muted);
            for (int l = 0; l < layers; l += step) {
                const double v = k == 0 ? coefficientOfVariation(relative[static_cast<std::size_t>(l)]) : maxViolation(relative[static_cast<std::size_t>(l)]);
                drawLabel(p, QRectF(x, plot.top() + (l + 0.5) * row - h / 2, column, h), Qt::AlignRight | Qt::AlignVCenter, formatNumber(v), theme.small,
                          l == now ? theme.text : theme.muted);
            }
        }
        right += theme.em() * 9.5;
    }
    if (area.width() > theme.em() * 16) {
        static const double ticks[] = {-2, -1, 0, 1, 2};
        const double top = plot.top(), height = std::min(plot.height(), theme.em() * 14);
        drawColorBar(p, QRectF(right + theme.em() * 0.9, top, area.right() - right - theme.em() * 0.6, height), map, ticks, -2, 2,
                     [](double v) { return QStringLiteral("×") + formatTick(std::exp2(v)); }, {}, theme);
    }
}

TableData LoadView::tableData() const
{
    TableData table;
    if (!m_data)
        return table;
    std::vector<int> layers;
    if (isMap())
        for (int l = 0; l < static_cast<int>(m_data->table.layers); ++l)
            layers.push_back(l);
    else
        layers.push_back(session()->layer());
    const int e = static_cast<int>(m_data->table.experts);
    table.caption = title() + QStringLiteral(": ") + subtitle();
    table.header << QStringLiteral("layer") << QStringLiteral("expert") << QStringLiteral("load") << QStringLiteral("share") << QStringLiteral("relative");
    std::vector<int> domains;
    for (int q = 0; q < static_cast<int>(m_data->domains.size()); ++q)
        if (session()->domainShown(q)) {
            domains.push_back(q);
            table.header << domainName(m_data->domains[static_cast<std::size_t>(q)]);
        }
    std::vector<std::vector<double>> values; // [layer·E][columns]
    for (const int l : layers) {
        const auto v = loads(l);
        const double sum = std::accumulate(v.begin(), v.end(), 0.0);
        for (int x = 0; x < e; ++x) {
            const double load = v[static_cast<std::size_t>(x)];
            std::vector<double> row{static_cast<double>(m_data->decoderIndex[static_cast<std::size_t>(l)]), static_cast<double>(x), load,
                                    sum > 0 ? load / sum : NAN, sum > 0 ? load / sum * e : NAN};
            for (const int q : domains)
                row.push_back(domainLoad(l, x, q));
            values.push_back(std::move(row));
        }
    }
    table.rows = static_cast<qsizetype>(values.size());
    table.cell = [values](qsizetype row, int column) -> QVariant {
        return values[static_cast<std::size_t>(row)][static_cast<std::size_t>(column)];
    };
    return table;
}

} // namespace spectra
