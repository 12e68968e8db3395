// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/gramview.h"

#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/gram.h"
#include "analysis/metrics/loads.h"
#include "analysis/statistics/clustering.h"
#include "views/paintkit.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra {

/// Matrices of the layers read; a layer that was not asked for is empty.
struct GramData {
    QString object;
    int experts = 0, layers = 0;
    std::vector<std::int32_t> decoderIndex;
    std::vector<std::vector<double>> values;      ///< [L][E·E], empty: not read
    std::vector<std::vector<int>> order;          ///< [L][E]
    std::vector<std::optional<GramFigures>> figures;
    std::optional<double> chanceOrthogonality, chanceOffDiagonal;
    [[nodiscard]] bool has(int layer) const { return layer >= 0 && layer < layers && !values[static_cast<std::size_t>(layer)].empty(); }
    [[nodiscard]] double at(int layer, int row, int column) const
    {
        return values[static_cast<std::size_t>(layer)][static_cast<std::size_t>(row * experts + column)];
    }
};

struct GramView::Place {
    int layer = 0;
    QRectF matrix;
    double labelWidth = 0;
};

namespace {

struct Object {
    const char *key, *label, *phrase;
    std::optional<Table> gram;    // read as it is
    std::optional<Table> vectors; // Gram made of these rows
    const char *metric;           // matrix of a metric
};
// Signed similarities come first; the last two are shares.
const Object kObjects[] = {
    {"expression", "Expression vectors", "expression vectors", Table::gramExpression, Table::meanExpression, nullptr},
    {"routing", "Routing vectors", "routing vectors", Table::gramRouting, Table::meanRouting, nullptr},
    {"router_weights", "Router weights", "router weights", Table::gramRouterWeights, Table::routerWeights, nullptr},
    {"expert_input", "Mean expert input", "mean states into experts", std::nullopt, Table::expertInputMean, nullptr},
    {"expert_output", "Mean expert output", "mean states out of experts", std::nullopt, Table::expertOutputMean, nullptr},
    {"overlap", "Overlap of token types", "overlap of token types, Jaccard", std::nullopt, std::nullopt, "expert_overlap_types"},
    {"coactivation", "Co-activation", "co-activation, P(column chosen | row chosen)", std::nullopt, std::nullopt, "co_activation"},
};

const Object &objectOf(const QString &key)
{
    for (const Object &o : kObjects)
        if (key == QLatin1String(o.key))
            return o;
    return kObjects[0];
}

bool isSigned(const QString &key)
{
    return objectOf(key).metric == nullptr;
}

QString whyNot(const Object &o, const TraceInfo &info)
{
    if (o.metric != nullptr) {
        const MetricInfo *m = findMetric(o.metric);
        return m == nullptr ? QStringLiteral("not measured by this version") : QString::fromStdString(whyMissing(*m, info));
    }
    if ((o.gram && info.has(*o.gram)) || (o.vectors && info.has(*o.vectors)))
        return {};
    const auto at = info.missingTables.find(o.gram.value_or(*o.vectors));
    return at == info.missingTables.end() ? QStringLiteral("not in this trace") : QString::fromStdString(at->second);
}

Result<std::vector<double>> readMatrix(const TraceSource &source, const Object &o, const TraceInfo &info, int layer)
{
    const auto e = static_cast<std::size_t>(info.experts);
    if (o.gram && info.has(*o.gram)) {
        auto table = source.table(*o.gram, layer);
        if (!table)
            return table.error();
        if ((*table)->values.size() != e * e)
            return inputError("Gram matrix is not square in the experts", info.file);
        return std::vector<double>((*table)->values.begin(), (*table)->values.end());
    }
    auto table = source.table(*o.vectors, layer);
    if (!table)
        return table.error();
    const auto &shape = (*table)->shape;
    if (shape.size() != 2 || shape[0] != info.experts || (*table)->values.size() != e * static_cast<std::size_t>(shape[1]))
        return inputError("expert vectors have an unexpected shape", info.file);
    return gramMatrix({(*table)->values.data(), shape[0], shape[1]});
}

struct Request {
    QString object, order;
    bool all = false;
    int layer = 0;
};

Result<std::shared_ptr<const GramData>> readGram(const std::shared_ptr<const TraceSource> &source, const Request &request, JobContext &job)
{
    const auto info = source->info();
    const Object &o = objectOf(request.object);
    auto data = std::make_shared<GramData>();
    data->object = request.object;
    data->experts = info->experts;
    data->layers = info->layers();
    data->decoderIndex = info->decoderIndex;
    const auto layers = static_cast<std::size_t>(data->layers);
    data->values.resize(layers);
    data->order.resize(layers);
    data->figures.resize(layers);
    if (o.metric != nullptr) {
        MetricOptions options;
        options.keys = {o.metric};
        options.byDomain = false;
        auto report = evaluateMetrics(*source, options, job.stop(), [&](const Progress &p) { job.report(p); });
        if (!report)
            return report.error();
        const MetricResult *result = report->find(o.metric);
        if (result == nullptr || !result->absent.empty())
            return inputError(result == nullptr ? "no such metric" : result->absent, info->file);
        for (const MetricMatrix &m : result->matrices)
            if (m.layer >= 0 && m.layer < data->layers && m.rows == info->experts && m.columns == info->experts)
                data->values[static_cast<std::size_t>(m.layer)].assign(m.values.begin(), m.values.end());
    } else {
        for (int l = request.all ? 0 : request.layer; l < (request.all ? data->layers : request.layer + 1); ++l) {
            if (job.stop().stop_requested())
                return cancelledError();
            auto m = readMatrix(*source, o, *info, l);
            if (!m)
                return m.error();
            data->values[static_cast<std::size_t>(l)] = std::move(*m);
            data->figures[static_cast<std::size_t>(l)] = gramFigures(data->values[static_cast<std::size_t>(l)], info->experts);
        }
        const int dimension = o.vectors == Table::meanExpression || o.vectors == Table::meanRouting ? info->routerDim : info->hidden;
        if (dimension > 0 && info->experts > 1) {
            data->chanceOrthogonality = gramOrthogonalityChance(info->experts, dimension);
            data->chanceOffDiagonal = absCosineChance(dimension);
        }
    }
    std::optional<LoadTable> loads;
    if (request.order == QLatin1String("load")) {
        auto table = loadTable(*source, nullptr, job.stop());
        if (!table)
            return table.error();
        loads = std::move(*table);
    }
    for (int l = 0; l < data->layers; ++l) {
        if (!data->has(l))
            continue;
        auto &order = data->order[static_cast<std::size_t>(l)];
        order.resize(static_cast<std::size_t>(data->experts));
        std::iota(order.begin(), order.end(), 0);
        if (loads) {
            const auto load = loads->loads(l);
            std::stable_sort(order.begin(), order.end(),
                             [&](int a, int b) { return load[static_cast<std::size_t>(a)] > load[static_cast<std::size_t>(b)]; });
        } else if (request.order == QLatin1String("cluster") && data->experts > 2) {
            std::vector<double> similarity = data->values[static_cast<std::size_t>(l)];
            const int e = data->experts;
            for (int i = 0; i < e; ++i)
                for (int j = 0; j < i; ++j) { // co-activation is not symmetric
                    auto &a = similarity[static_cast<std::size_t>(i * e + j)];
                    auto &b = similarity[static_cast<std::size_t>(j * e + i)];
                    const double mean = (a + b) / 2;
                    a = b = std::isfinite(mean) ? mean : 0;
                }
            order = averageLinkageOfSimilarity(similarity, e).order;
        }
    }
    return std::shared_ptr<const GramData>(data);
}

} // namespace

GramView::GramView(QWidget *parent) : View(QStringLiteral("gram"), tr("Gram matrix"), parent)
{
    std::vector<ViewOption::Choice> objects;
    for (const Object &o : kObjects)
        objects.push_back({QString::fromLatin1(o.key), tr(o.label), true, {}});
    addOption({QStringLiteral("object"), tr("Vectors"), tr("What the experts are compared by"), objects, 0, 0, true, true, QStringLiteral("expression")});
    addOption({QStringLiteral("order"),
               tr("Order"),
               tr("Order of rows and columns"),
               {{QStringLiteral("index"), tr("by index"), true, {}},
                {QStringLiteral("load"), tr("by load"), true, {}},
                {QStringLiteral("cluster"), tr("by similarity"), true, {}}},
               0, 0, true, true, QStringLiteral("index")});
    addOption({QStringLiteral("layers"),
               tr("Layers"),
               tr("One layer, or all as small multiples"),
               {{QStringLiteral("one"), tr("one layer"), true, {}}, {QStringLiteral("all"), tr("all layers"), true, {}}},
               0, 0, true, true, QStringLiteral("one")});
}

GramView::~GramView() = default;

void GramView::sessionReset()
{
    m_data.reset();
    m_hover = {};
}

int GramView::shownLayer() const
{
    return session() != nullptr ? session()->layer() : 0;
}

void GramView::updateChoices()
{
    const auto t = current();
    std::vector<ViewOption::Choice> objects;
    for (const Object &o : kObjects) {
        const QString why = whyNot(o, *t->info);
        objects.push_back({QString::fromLatin1(o.key), tr(o.label), why.isEmpty(), why});
    }
    setChoices(QStringLiteral("object"), std::move(objects));
}

void GramView::refresh()
{
    const auto t = current();
    updateChoices();
    if (t->info->layers() == 0 || t->info->experts == 0) {
        showEmpty(tr("This trace has no layers with experts. Upcycle the model to get some."));
        return;
    }
    const Object &o = objectOf(option(QStringLiteral("object")));
    if (const QString why = whyNot(o, *t->info); !why.isEmpty()) {
        showEmpty(tr("No matrix of %1 in this trace: %2.").arg(tr(o.phrase), why));
        return;
    }
    Request request{option(QStringLiteral("object")), option(QStringLiteral("order")), option(QStringLiteral("layers")) == QLatin1String("all"), shownLayer()};
    load(tr("Reading %1").arg(tr(o.phrase)), [this, source = t->source, request](JobContext &job) -> Result<LatestJob::Apply> {
        auto loaded = readGram(source, request, job);
        if (!loaded)
            return loaded.error();
        return LatestJob::Apply([this, read = *loaded] {
            m_data = read;
            describe();
            showReady();
        });
    });
}

void GramView::layerChanged()
{
    if (m_data && m_data->has(shownLayer()) && option(QStringLiteral("object")) == m_data->object) {
        describe();
        repaintCanvas();
    } else {
        refresh();
    }
}

void GramView::describe()
{
    if (!m_data)
        return;
    const int layer = shownLayer();
    QStringList parts{tr(objectOf(m_data->object).phrase)};
    if (option(QStringLiteral("layers")) == QLatin1String("all"))
        parts << tr("%1 layers").arg(m_data->layers);
    else
        parts << tr("layer %1").arg(m_data->decoderIndex[static_cast<std::size_t>(layer)]);
    if (m_data->has(layer)) {
        const auto &f = m_data->figures[static_cast<std::size_t>(layer)];
        if (f && isSigned(m_data->object)) {
            QString o = tr("orthogonality %1").arg(formatNumber(f->orthogonality));
            if (m_data->chanceOrthogonality)
                o += tr(" (chance %1)").arg(formatNumber(*m_data->chanceOrthogonality));
            parts << o;
            if (f->offDiagonalMeanAbs)
                parts << tr("mean |off-diagonal| %1").arg(formatNumber(*f->offDiagonalMeanAbs));
        }
    }
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

std::vector<GramView::Place> GramView::places(const QRectF &area, const Theme &theme) const
{
    std::vector<Place> result;
    if (!m_data)
        return result;
    const double h = lineHeight(theme.small);
    if (option(QStringLiteral("layers")) != QLatin1String("all")) {
        const double labels = textWidth(theme.small, QStringLiteral("E%1").arg(m_data->experts - 1)) + theme.em() * 0.4;
        const double bar = area.width() > theme.em() * 14 ? colorBarWidth(theme, textWidth(theme.small, QStringLiteral("−0.5"))) + theme.em() : 0;
        double side = std::min(area.width() - labels - bar, area.height() - h - theme.em() * 0.3);
        side = std::max(side, 20.0);
        // Whole pixels per cell keep the grid even on the screen.
        if (side > m_data->experts * 4)
            side = std::floor(side / m_data->experts) * m_data->experts;
        // Matrix, bar and figures stand together in the middle of a wide area.
        const double needed = labels + side + bar + theme.em() * 14;
        const double shift = std::max(0.0, (area.width() - needed) / 2);
        result.push_back({shownLayer(), QRectF(std::floor(area.left() + labels + shift), area.top() + theme.em() * 0.15, side, side), labels});
        return result;
    }
    // Small multiples: the number of columns that gives the largest squares.
    const int n = m_data->layers;
    const double gap = theme.em() * 0.7, bar = colorBarWidth(theme, textWidth(theme.small, QStringLiteral("−0.5"))) + theme.em() * 0.5;
    const double width = area.width() - bar;
    double best = 0;
    int columns = 1;
    for (int c = 1; c <= n; ++c) {
        const int rows = (n + c - 1) / c;
        const double side = std::min((width - (c - 1) * gap) / c, (area.height() - rows * h - (rows - 1) * gap * 0.5) / rows);
        if (side > best) {
            best = side;
            columns = c;
        }
    }
    best = std::max(4.0, std::floor(best));
    for (int l = 0; l < n; ++l) {
        const double x = area.left() + (l % columns) * (best + gap), y = area.top() + (l / columns) * (best + h + gap * 0.5) + h;
        result.push_back({l, QRectF(x, y, best, best), 0});
    }
    return result;
}

void GramView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    if (!m_data)
        return;
    const int e = m_data->experts;
    const bool symmetric = isSigned(m_data->object);
    const ColorMap map = symmetric ? theme.diverging() : ColorMap::get(theme.isDark() ? ColorMapId::magma : ColorMapId::viridis);
    double top = 1;
    if (!symmetric) { // shares: the off-diagonal decides the range, the diagonal is 1 by definition
        top = 0;
        for (int l = 0; l < m_data->layers; ++l)
            if (m_data->has(l))
                for (int i = 0; i < e; ++i)
                    for (int j = 0; j < e; ++j)
                        if (i != j && std::isfinite(m_data->at(l, i, j)))
                            top = std::max(top, m_data->at(l, i, j));
        top = top > 0 ? top : 1;
    }
    const auto colorOf = [&](double v) -> QRgb {
        if (!std::isfinite(v))
            return theme.missing.rgb();
        return map.rgb(symmetric ? (v + 1) / 2 : v / top);
    };
    const bool multiples = option(QStringLiteral("layers")) == QLatin1String("all");
    const auto all = places(area, theme);
    const auto &selected = session()->selectedExperts();
    const auto isSelected = [&](int x) { return std::binary_search(selected.begin(), selected.end(), x); };
    const double h = lineHeight(theme.small);
    QRectF used;
    for (const Place &place : all) {
        used |= place.matrix;
        if (multiples) {
            const bool now = place.layer == shownLayer();
            drawLabel(p, QRectF(place.matrix.left(), place.matrix.top() - h, place.matrix.width(), h), Qt::AlignLeft | Qt::AlignVCenter,
                      place.matrix.width() > theme.em() * 5 ? tr("layer %1").arg(m_data->decoderIndex[static_cast<std::size_t>(place.layer)])
                                                            : QString::number(m_data->decoderIndex[static_cast<std::size_t>(place.layer)]),
                      now ? theme.bold : theme.small,
                      now ? theme.accent : theme.muted);
        }
        if (!m_data->has(place.layer)) {
            p.fillRect(place.matrix, theme.missing);
            continue;
        }
        const auto &order = m_data->order[static_cast<std::size_t>(place.layer)];
        const auto cell = [&](int r, int c) {
            return colorOf(m_data->at(place.layer, order[static_cast<std::size_t>(r)], order[static_cast<std::size_t>(c)]));
        };
        const double size = place.matrix.width() / e;
        if (size >= theme.em() * 0.5 && e <= 64 && !multiples)
            drawCellRects(p, place.matrix, e, e, std::min(theme.em() * 0.09, size * 0.08), cell);
        else
            drawCells(p, place.matrix, e, e, cell);
        p.setPen(QPen(multiples && place.layer == shownLayer() ? theme.accent : theme.border, theme.hairline() * (multiples && place.layer == shownLayer() ? 2 : 1)));
        p.setBrush(Qt::NoBrush);
        p.drawRect(place.matrix.adjusted(-0.5, -0.5, 0.5, 0.5));
        if (multiples)
            continue;
        // Labels: every, every second, fourth … expert, as room allows.
        int step = 1;
        while (size * step < std::max(h * 0.92, textWidth(theme.small, QStringLiteral("E%1").arg(e - 1)) + theme.em() * 0.35))
            step *= 2;
        for (int i = 0; i < e; ++i) {
            const int expert = order[static_cast<std::size_t>(i)];
            const bool marked = isSelected(expert) || expert == m_hover.row || expert == m_hover.column || session()->highlightedExpert() == expert;
            if (i % step != 0 && !(marked && size >= h))
                continue;
            const QColor ink = isSelected(expert) ? theme.selection : marked ? theme.text : theme.muted;
            const QString label = QStringLiteral("E%1").arg(expert);
            const double c = (i + 0.5) * size;
            drawLabel(p, QRectF(place.matrix.left() - place.labelWidth, place.matrix.top() + c - h / 2, place.labelWidth - theme.em() * 0.35, h),
                      Qt::AlignRight | Qt::AlignVCenter, label, theme.small, ink);
            const double w = textWidth(theme.small, label) + 1;
            drawLabel(p, QRectF(place.matrix.left() + c - w / 2, place.matrix.bottom() + theme.em() * 0.15, w, h),
                      Qt::AlignHCenter | Qt::AlignTop, label, theme.small, ink);
        }
        const auto at = [&](int expert) { return static_cast<int>(std::find(order.begin(), order.end(), expert) - order.begin()); };
        for (const int x : selected) {
            const double y = place.matrix.top() + at(x) * size;
            p.setPen(QPen(theme.selection, theme.em() * 0.13));
            p.drawRect(QRectF(place.matrix.left(), y, place.matrix.width(), size));
        }
        if (const auto x = session()->highlightedExpert(); x && m_hover.row < 0) {
            p.setPen(QPen(theme.hover, theme.hairline() * 1.2));
            p.drawRect(QRectF(place.matrix.left(), place.matrix.top() + at(*x) * size, place.matrix.width(), size));
        }
        if (m_hover.row >= 0 && m_hover.layer == place.layer)
            drawOutline(p, QRectF(place.matrix.left() + at(m_hover.column) * size, place.matrix.top() + at(m_hover.row) * size, size, size),
                        theme.hover, theme);
    }
    if (all.empty())
        return;
    const auto format = [](double v) { return formatTick(v); };
    std::vector<double> ticks = symmetric ? std::vector<double>{-1, -0.5, 0, 0.5, 1} : niceTicks(0, top, 4);
    const double barLabels = textWidth(theme.small, QStringLiteral("−0.5")) + theme.em() * 0.5;
    const double room = area.right() - used.right();
    if (room < colorBarWidth(theme, barLabels))
        return;
    QRectF bar(used.right() + theme.em() * 0.9, used.top(), colorBarWidth(theme, barLabels), multiples ? std::min(used.height(), theme.em() * 11) : used.height());
    drawColorBar(p, bar, map, ticks, symmetric ? -1 : 0, top, format, {}, theme);
    // The figures, where there is room beside the bar.
    QRectF side(bar.right() + theme.em() * 0.8, used.top(), area.right() - bar.right() - theme.em() * 0.8, used.height());
    const int layer = shownLayer();
    // A figure that loses its last digits says nothing: all or none.
    if (multiples || side.width() < textWidth(theme.small, tr("Mean |off-diag.| %1").arg(QStringLiteral("0.0000"))) || !m_data->has(layer))
        return;
    double y = side.top();
    const auto line = [&](const QString &text, const QFont &font, const QColor &color) {
        if (y + h <= side.bottom() + 1) {
            drawLabel(p, QRectF(side.left(), y, side.width(), h), Qt::AlignLeft | Qt::AlignVCenter, text, font, color);
            y += h * 1.12;
        }
    };
    if (const auto &f = m_data->figures[static_cast<std::size_t>(layer)]; f && symmetric) {
        line(tr("Orthogonality %1").arg(formatNumber(f->orthogonality)), theme.small, theme.text);
        if (m_data->chanceOrthogonality)
            line(tr("chance %1").arg(formatNumber(*m_data->chanceOrthogonality)), theme.small, theme.muted);
        if (f->offDiagonalMeanAbs)
            line(tr("Mean |off-diag.| %1").arg(formatNumber(*f->offDiagonalMeanAbs)), theme.small, theme.text);
        if (m_data->chanceOffDiagonal)
            line(tr("chance %1").arg(formatNumber(*m_data->chanceOffDiagonal)), theme.small, theme.muted);
        if (f->condition)
            line(tr("Condition %1").arg(formatNumber(*f->condition)), theme.small, theme.text);
        y += h * 0.5;
    }
    int a = m_hover.row, b = m_hover.column;
    QString what = tr("under the mouse");
    if (a < 0 || m_hover.layer != layer) { // else the pair that stands out
        double most = -1;
        for (int i = 0; i < e; ++i)
            for (int j = 0; j < e; ++j)
                if (i != j && std::abs(m_data->at(layer, i, j)) > most) {
                    most = std::abs(m_data->at(layer, i, j));
                    a = i;
                    b = j;
                }
        what = tr("largest off-diagonal");
    }
    if (a >= 0) {
        line(QStringLiteral("E%1 · E%2   %3").arg(a).arg(b).arg(formatNumber(m_data->at(layer, a, b))), theme.bold, theme.text);
        line(what, theme.small, theme.muted);
    }
}

GramView::Cell GramView::cellAt(const QPointF &position) const
{
    for (const Place &place : places(canvasArea(), theme())) {
        if (!place.matrix.contains(position) || !m_data->has(place.layer))
            continue;
        const int e = m_data->experts;
        const auto index = [&](double v, double length) { return std::clamp(static_cast<int>(v / length * e), 0, e - 1); };
        const auto &order = m_data->order[static_cast<std::size_t>(place.layer)];
        return {place.layer, order[static_cast<std::size_t>(index(position.y() - place.matrix.top(), place.matrix.height()))],
                order[static_cast<std::size_t>(index(position.x() - place.matrix.left(), place.matrix.width()))]};
    }
    return {};
}

void GramView::setHover(const Cell &cell)
{
    if (cell.layer == m_hover.layer && cell.row == m_hover.row && cell.column == m_hover.column)
        return;
    m_hover = cell;
    session()->highlightExpert(cell.row >= 0 && cell.layer == shownLayer() ? std::optional<int>(cell.row) : std::nullopt);
    repaintCanvas();
}

bool GramView::mouseMoved(QMouseEvent *event)
{
    setHover(cellAt(event->position()));
    return true;
}

void GramView::mouseLeft()
{
    if (session() != nullptr)
        setHover({});
}

bool GramView::mousePressed(QMouseEvent *event)
{
    if (event->button() != Qt::LeftButton)
        return false;
    const Cell cell = cellAt(event->position());
    if (cell.row < 0) {
        if (event->modifiers() == Qt::NoModifier)
            session()->setSelectedExperts({});
        return true;
    }
    if (option(QStringLiteral("layers")) == QLatin1String("all") && cell.layer != shownLayer()) {
        session()->setLayer(cell.layer);
        return true;
    }
    const SelectMode mode = selectModeOf(event->modifiers());
    if (mode == SelectMode::replace) {
        const std::vector<int> pair = cell.row == cell.column ? std::vector<int>{cell.row}
                                                              : std::vector<int>{std::min(cell.row, cell.column), std::max(cell.row, cell.column)};
        session()->setSelectedExperts(session()->selectedExperts() == pair ? std::vector<int>{} : pair);
    } else {
        session()->selectExpert(cell.row, mode);
    }
    return true;
}

bool GramView::keyPressed(QKeyEvent *event)
{
    if (!m_data || !m_data->has(shownLayer()))
        return false;
    const int key = event->key();
    if (key == Qt::Key_Escape) {
        session()->setSelectedExperts({});
        setHover({});
        return true;
    }
    if (key == Qt::Key_PageUp || key == Qt::Key_PageDown) {
        session()->setLayer(shownLayer() + (key == Qt::Key_PageDown ? 1 : -1));
        return true;
    }
    const auto &order = m_data->order[static_cast<std::size_t>(shownLayer())];
    const auto step = [&](int expert, int by) {
        const auto at = std::find(order.begin(), order.end(), expert) - order.begin() + by;
        return order[static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(at, 0, static_cast<std::ptrdiff_t>(order.size()) - 1))];
    };
    Cell cell = m_hover.row >= 0 && m_hover.layer == shownLayer() ? m_hover : Cell{shownLayer(), order[0], order[0]};
    const bool started = m_hover.row >= 0;
    switch (key) {
    case Qt::Key_Left: cell.column = step(cell.column, started ? -1 : 0); break;
    case Qt::Key_Right: cell.column = step(cell.column, started ? 1 : 0); break;
    case Qt::Key_Up: cell.row = step(cell.row, started ? -1 : 0); break;
    case Qt::Key_Down: cell.row = step(cell.row, started ? 1 : 0); break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_Space:
        if (m_hover.row >= 0)
            session()->selectExpert(m_hover.row, selectModeOf(event->modifiers()));
        return true;
    default: return false;
    }
    setHover(cell);
    return true;
}

QString GramView::toolTipAt(const QPointF &position) const
{
    const Cell c = cellAt(position);
    if (c.row < 0)
        return {};
    return tr("layer %1: E%2 · E%3 = %4")
        .arg(m_data->decoderIndex[static_cast<std::size_t>(c.layer)])
        .arg(c.row)
        .arg(c.column)
        .arg(formatNumber(m_data->at(c.layer, c.row, c.column), 4));
}

TableData GramView::tableData() const
{
    TableData table;
    if (!m_data)
        return table;
    std::vector<int> layers;
    for (int l = 0; l < m_data->layers; ++l)
        if (m_data->has(l) && (option(QStringLiteral("layers")) == QLatin1String("all") || l == shownLayer()))
            layers.push_back(l);
    const int e = m_data->experts;
    table.caption = title() + QStringLiteral(": ") + subtitle();
    table.header << QStringLiteral("layer") << QStringLiteral("expert");
    for (int j = 0; j < e; ++j)
        table.header << QStringLiteral("E%1").arg(j);
    table.rows = static_cast<qsizetype>(layers.size()) * e;
    table.cell = [data = m_data, layers, e](qsizetype row, int column) -> QVariant {
        const int layer = layers[static_cast<std::size_t>(row / e)], i = static_cast<int>(row % e);
        if (column == 0)
            return data->decoderIndex[static_cast<std::size_t>(layer)];
        if (column == 1)
            return i;
        return data->at(layer, i, column - 2);
    };
    return table;
}

} // namespace spectra
