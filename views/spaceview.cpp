// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/spaceview.h"

#include "engine/core/routingrecord.h"
#include "views/paintkit.h"
#include "views/spacedata.h"

#include <QJsonArray>
#include <QPaintEngine>
#include <QPainter>
#include <QToolButton>

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

constexpr double kDim = 0.72; // how far what is not selected recedes

struct ObjectName {
    const char *key, *label, *phrase;
    SpaceObject object;
};
constexpr ObjectName kObjects[] = {
    {"hidden", "Token states", "hidden states of tokens", SpaceObject::hidden},
    {"probabilities", "Routing of tokens", "routing probabilities of tokens", SpaceObject::probabilities},
    {"expression", "Expression, by sequence", "expression vectors, mean of each sequence", SpaceObject::expression},
    {"routing", "Routing, by sequence", "routing vectors, mean of each sequence", SpaceObject::routing},
    {"experts", "Experts, all layers", "experts of all layers", SpaceObject::experts},
};

const ObjectName &objectOf(const QString &key)
{
    for (const ObjectName &o : kObjects)
        if (key == QLatin1String(o.key))
            return o;
    return kObjects[0];
}

SelectTool toolOf(const QString &key)
{
    if (key == QLatin1String("pan"))
        return SelectTool::pan;
    if (key == QLatin1String("rectangle"))
        return SelectTool::rectangle;
    if (key == QLatin1String("polygon"))
        return SelectTool::polygon;
    return key == QLatin1String("brush") ? SelectTool::brush : SelectTool::lasso;
}

} // namespace

SpaceView::SpaceView(QWidget *parent) : View(QStringLiteral("space"), tr("Expert space"), parent)
{
    std::vector<ViewOption::Choice> objects;
    for (const ObjectName &o : kObjects)
        objects.push_back({QString::fromLatin1(o.key), tr(o.label), true, {}});
    addOption({QStringLiteral("object"), tr("Points"), tr("What is mapped"), objects, 0, 0, true, true, QStringLiteral("hidden")});
    addOption({QStringLiteral("method"), tr("Method"), tr("How it is mapped"),
               {{QStringLiteral("tsne"), QStringLiteral("t-SNE"), true, {}}, {QStringLiteral("pca"), QStringLiteral("PCA"), true, {}}}, 0, 0, true, true,
               QStringLiteral("tsne")});
    addOption({QStringLiteral("color"), tr("Colour"), tr("What the colour of a point means"),
               {{QStringLiteral("expert"), tr("top expert"), true, {}},
                {QStringLiteral("domain"), tr("domain"), true, {}},
                {QStringLiteral("entropy"), tr("routing entropy"), true, {}},
                {QStringLiteral("nll"), tr("−log p(next)"), true, {}}},
               0, 0, true, true, QStringLiteral("expert")});
    addOption({QStringLiteral("tool"), tr("Tool"), tr("What a drag with the left button does (keys H, R, L, P, B). Shift adds, Ctrl removes, both intersect"),
               {{QStringLiteral("pan"), tr("Move (H)"), true, {}},
                {QStringLiteral("rectangle"), tr("Rectangle (R)"), true, {}},
                {QStringLiteral("lasso"), tr("Lasso (L)"), true, {}},
                {QStringLiteral("polygon"), tr("Polygon (P)"), true, {}},
                {QStringLiteral("brush"), tr("Brush (B)"), true, {}}},
               0, 0, true, true, QStringLiteral("lasso")});
    addOption({QStringLiteral("perplexity"), tr("Perplexity"), tr("Neighbours that a point keeps close"), {}, 2, 200, false, false, QStringLiteral("30")});
    addOption({QStringLiteral("iterations"), tr("Iterations"), tr("Of t-SNE"), {}, 50, 5000, true, false, QStringLiteral("750")});
    addOption({QStringLiteral("sample"), tr("Points at most"), tr("Evenly spread over the trace"), {}, 50, 2'000'000, true, false, QStringLiteral("8192")});
    addOption({QStringLiteral("seed"), tr("Seed"), {}, {}, 0, 1e9, true, false, QStringLiteral("0")});
    m_stop = new QToolButton(this);
    m_stop->setText(tr("Stop"));
    m_stop->setObjectName(QStringLiteral("stop"));
    m_stop->setAccessibleName(tr("Stop the map"));
    m_stop->setToolTip(tr("Stop here and keep the map as it is"));
    m_stop->setAutoRaise(true);
    m_stop->hide();
    addToBar(m_stop);
    connect(m_stop, &QToolButton::clicked, this, &SpaceView::cancel);
    connect(this, &View::workingChanged, this, [this](bool working) { m_stop->setVisible(working); });
}

SpaceView::~SpaceView() = default;

void SpaceView::sessionReset()
{
    m_data.reset();
    m_raster.setPoints(nullptr);
    m_gesture.cancel();
    m_hover = -1;
    m_zoom = 1;
    m_offsetX = m_offsetY = 0;
    m_dirty = true;
}

void SpaceView::setTheme(const Theme &theme)
{
    View::setTheme(theme);
    m_dirty = true;
}

int SpaceView::iteration() const
{
    return m_data ? m_data->iteration : 0;
}

void SpaceView::updateChoices()
{
    const auto t = current();
    std::vector<ViewOption::Choice> objects;
    for (const ObjectName &o : kObjects) {
        const QString why = whyNoSpace(o.object, *t->info);
        objects.push_back({QString::fromLatin1(o.key), tr(o.label), why.isEmpty(), why});
    }
    setChoices(QStringLiteral("object"), std::move(objects));
    const SpaceObject object = objectOf(option(QStringLiteral("object"))).object;
    const bool tokens = object == SpaceObject::hidden || object == SpaceObject::probabilities;
    const QString onlyTokens = tr("only tokens have one");
    const bool entropy = tokens && t->info->has(Column::entropy), nll = tokens && t->info->hasNll;
    setChoices(QStringLiteral("color"),
               {{QStringLiteral("expert"), tokens ? tr("top expert") : tr("expert"), true, {}},
                {QStringLiteral("domain"), tr("domain"), object != SpaceObject::experts && !t->info->domains.empty(), tr("no domains here")},
                {QStringLiteral("entropy"), tr("routing entropy"), entropy, tokens ? tr("not in this trace") : onlyTokens},
                {QStringLiteral("nll"), tr("−log p(next)"), nll, tokens ? tr("not in this trace") : onlyTokens}});
}

void SpaceView::refresh()
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
    updateChoices();
    const ObjectName &o = objectOf(option(QStringLiteral("object")));
    if (const QString why = whyNoSpace(o.object, *t->info); !why.isEmpty()) {
        showEmpty(tr("No map of %1: %2. Trace with --capture full to keep what is needed.").arg(tr(o.phrase), why));
        return;
    }
    SpaceRequest request;
    request.object = o.object;
    request.tsne = option(QStringLiteral("method")) == QLatin1String("tsne");
    request.layer = session()->layer();
    request.sample = static_cast<int>(number(QStringLiteral("sample")));
    request.perplexity = number(QStringLiteral("perplexity"));
    request.iterations = static_cast<int>(number(QStringLiteral("iterations")));
    request.seed = static_cast<std::uint64_t>(number(QStringLiteral("seed")));
    if (t->filter.count() != t->filter.size())
        request.filter = t->filter;
    m_stopped = false;
    load(tr("Mapping %1").arg(tr(o.phrase)), [this, source = t->source, request](JobContext &job) -> Result<LatestJob::Apply> {
        auto map = computeSpace(source, request, job, [this, &job](std::shared_ptr<const SpaceData> partial) {
            job.partial([this, partial] { take(partial); });
        });
        if (!map)
            return map.error();
        return LatestJob::Apply([this, whole = *map] {
            take(whole);
            showReady();
        });
    });
}

void SpaceView::cancel()
{
    if (isWorking() && m_data) {
        m_stopped = true;
        View::cancel();
        describe();
        return;
    }
    View::cancel();
}

void SpaceView::take(const std::shared_ptr<const SpaceData> &map)
{
    const bool samePoints = m_data && m_data->points == map->points;
    m_data = map;
    m_raster.setPoints(map->coordinates);
    if (!samePoints) {
        m_hover = -1;
        recolor();
        reflag();
    }
    m_dirty = true;
    describe();
    if (!hasContent() && !map->finished) {
        showReady(); // the first state of a running map
        showBusy(tr("Mapping"));
    }
    repaintCanvas();
}

bool SpaceView::colorsAreContinuous() const
{
    const QString c = option(QStringLiteral("color"));
    return c == QLatin1String("entropy") || c == QLatin1String("nll");
}

void SpaceView::recolor()
{
    if (!m_data)
        return;
    const SpacePoints &p = *m_data->points;
    std::vector<QRgb> palette;
    std::vector<Glyph> glyphs;
    std::vector<std::uint8_t> index(p.row.size(), 0);
    const QString color = option(QStringLiteral("color"));
    const std::vector<float> &values = color == QLatin1String("entropy") ? p.entropy : p.nll;
    if (colorsAreContinuous() && values.size() == p.row.size()) {
        std::vector<float> sorted;
        for (const float v : values)
            if (std::isfinite(v))
                sorted.push_back(v);
        m_low = 0;
        m_high = 1;
        if (!sorted.empty()) { // 1st to 99th percentile: one outlier must not take all the colours
            std::sort(sorted.begin(), sorted.end());
            m_low = sorted[sorted.size() / 100];
            m_high = std::max<double>(sorted[sorted.size() - 1 - sorted.size() / 100], m_low + 1e-6);
        }
        const ColorMap &map = ColorMap::get(ColorMapId::viridis);
        for (int i = 0; i < 255; ++i)
            palette.push_back(map.rgb(i / 254.0));
        palette.push_back(0xff9aa0aa); // no value
        glyphs.assign(256, Glyph::circle);
        for (std::size_t i = 0; i < values.size(); ++i)
            index[i] = std::isfinite(values[i])
                ? static_cast<std::uint8_t>(std::clamp((static_cast<double>(values[i]) - m_low) / (m_high - m_low), 0.0, 1.0) * 254.0)
                : std::uint8_t(255);
    } else {
        const bool domain = color == QLatin1String("domain");
        const auto &labels = domain ? p.domain : p.expert;
        const int kinds = std::min(255, domain ? static_cast<int>(p.domains.size()) : p.experts);
        palette.push_back(0xff9aa0aa);
        glyphs.push_back(Glyph::circle);
        for (int i = 0; i < kinds; ++i) {
            palette.push_back((domain ? mixed(domainColor(i), Qt::black, 0.12) : expertColor(i)).rgb());
            glyphs.push_back(domain ? Glyph::circle : expertGlyph(i));
        }
        for (std::size_t i = 0; i < labels.size(); ++i)
            index[i] = labels[i] >= 0 && labels[i] < kinds ? static_cast<std::uint8_t>(labels[i] + 1) : std::uint8_t(0);
    }
    m_raster.setColors(std::move(palette), std::move(glyphs), std::move(index));
    m_dirty = true;
}

/// What is hidden (domains not shown) and what recedes (not selected).
void SpaceView::reflag()
{
    const auto t = current();
    if (!m_data || !t)
        return;
    const SpacePoints &p = *m_data->points;
    std::vector<std::uint8_t> flags(p.row.size(), 0);
    const bool tokens = isTokens(p), anyRows = !t->selection.empty();
    const auto &experts = session()->selectedExperts();
    const bool byExperts = !experts.empty() && !(tokens && anyRows);
    const bool allDomains = session()->shownDomains().empty();
    const bool sameLayer = p.layer == session()->layer();
    for (std::size_t i = 0; i < flags.size(); ++i) {
        if (!allDomains && p.object != SpaceObject::experts && !session()->domainShown(p.domain[i]))
            flags[i] |= ScatterRaster::hidden;
        if (tokens && anyRows && !t->selection.contains(static_cast<std::size_t>(p.row[i])))
            flags[i] |= ScatterRaster::dimmed;
        if (byExperts && sameLayer) {
            const bool in = std::binary_search(experts.begin(), experts.end(), static_cast<int>(p.expert[i]))
                && (p.layerOf.empty() || p.layerOf[i] == session()->layer());
            if (!in)
                flags[i] |= ScatterRaster::dimmed;
        }
    }
    m_raster.setFlags(std::move(flags));
    m_dirty = true;
    repaintCanvas();
}

void SpaceView::domainsChanged()
{
    reflag();
}

void SpaceView::rowsChanged(RowLayer layer)
{
    if (layer == RowLayer::filter && current())
        refresh();
    else if (layer == RowLayer::selection)
        reflag();
    else
        repaintCanvas();
}

void SpaceView::expertsChanged()
{
    reflag();
}

/// A map of a growing trace is not begun anew at every token: Reload does it.
void SpaceView::traceGrew()
{
    if (!m_data && !isWorking())
        refresh();
}

void SpaceView::optionChanged(const QString &key)
{
    if (key == QLatin1String("tool")) {
        m_gesture.setTool(toolOf(option(key)));
        repaintCanvas();
    } else if (key == QLatin1String("color") && m_data) {
        recolor();
        describe();
        repaintCanvas();
    } else {
        m_zoom = 1;
        m_offsetX = m_offsetY = 0;
        refresh();
    }
}

void SpaceView::describe()
{
    if (!m_data)
        return;
    const SpacePoints &p = *m_data->points;
    QStringList parts;
    QString phrase;
    for (const ObjectName &o : kObjects)
        if (o.object == p.object)
            phrase = tr(o.phrase);
    if (p.object == SpaceObject::experts && !p.expertTable.isEmpty())
        phrase = tr("%1, experts of all layers").arg(p.expertTable);
    parts << tr("%1 of %2").arg(m_data->tsne ? QStringLiteral("t-SNE") : QStringLiteral("PCA"), phrase);
    if (p.object != SpaceObject::experts)
        parts << tr("layer %1").arg(p.decoderIndex[static_cast<std::size_t>(p.layer)]);
    const auto n = static_cast<qint64>(p.row.size());
    parts << (n < p.candidates ? tr("%1 of %2 points").arg(formatCount(n), formatCount(p.candidates)) : tr("%1 points").arg(formatCount(n)));
    if (m_data->tsne) {
        if (!m_data->finished)
            parts << (m_stopped ? tr("stopped at iteration %1 of %2") : tr("iteration %1 of %2")).arg(m_data->iteration).arg(m_data->iterations);
        if (m_data->kl)
            parts << tr("KL %1").arg(formatNumber(*m_data->kl));
        if (m_data->finished)
            parts << tr("perplexity %1").arg(formatNumber(m_data->perplexity));
        parts << tr("seed %1").arg(m_data->seed);
    }
    if (!m_data->note.isEmpty())
        parts << m_data->note;
    setSubtitle(parts.join(QStringLiteral(" · ")));
}

// ---- painting

QRectF SpaceView::mapArea(const QRectF &area, const Theme &theme) const
{
    if (!m_data)
        return area;
    const double h = lineHeight(theme.small);
    const double axis = m_data->tsne ? 0 : h;
    if (colorsAreContinuous()) {
        const double bar = area.width() > theme.em() * 18 ? colorBarWidth(theme, textWidth(theme.small, QStringLiteral("00.00"))) + theme.em() * 0.7 : 0;
        return area.adjusted(0, 0, -bar, axis > 0 ? -axis - theme.em() * 0.2 : 0);
    }
    const int rows = area.height() > theme.em() * 16 ? 2 : 1;
    std::vector<LegendEntry> entries;
    const bool domain = option(QStringLiteral("color")) == QLatin1String("domain");
    const int kinds = domain ? static_cast<int>(m_data->points->domains.size()) : m_data->points->experts;
    for (int i = 0; i < kinds; ++i)
        entries.push_back({domain ? QString::fromStdString(m_data->points->domains[static_cast<std::size_t>(i)]) : QStringLiteral("E%1").arg(i), {}, Glyph::circle, false, i});
    const double legend = std::min(legendHeight(area.width(), entries, theme, rows), rows * h);
    return area.adjusted(0, 0, 0, -legend - theme.em() * 0.3 - axis);
}

ScatterCamera SpaceView::camera(const QSizeF &size) const
{
    ScatterCamera c = ScatterCamera::fit(m_raster.bounds(), size);
    const double half = std::max(std::max(m_raster.bounds().width(), m_raster.bounds().height()) / 2, 1e-9);
    c.centerX += m_offsetX * half;
    c.centerY += m_offsetY * half;
    c.scale *= m_zoom;
    return c;
}

void SpaceView::setCamera(const ScatterCamera &wanted)
{
    const ScatterCamera fit = ScatterCamera::fit(m_raster.bounds(), wanted.size);
    const double half = std::max(std::max(m_raster.bounds().width(), m_raster.bounds().height()) / 2, 1e-9);
    m_zoom = std::clamp(wanted.scale / fit.scale, 0.2, 1e5);
    m_offsetX = std::clamp((wanted.centerX - fit.centerX) / half, -4.0, 4.0);
    m_offsetY = std::clamp((wanted.centerY - fit.centerY) / half, -4.0, 4.0);
    m_dirty = true;
    repaintCanvas();
}

void SpaceView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    if (!m_data || m_raster.size() == 0)
        return;
    const SpacePoints &points = *m_data->points;
    const QRectF map = mapArea(area, theme);
    if (map.width() < 8 || map.height() < 8)
        return;
    const ScatterCamera cam = camera(map.size());
    const double em = theme.em(), radius = ScatterRaster::radiusFor(m_raster.size(), em);
    const bool vector = p.paintEngine() != nullptr && (p.paintEngine()->type() == QPaintEngine::Pdf || p.paintEngine()->type() == QPaintEngine::SVG);
    const auto origin = map.topLeft();
    if (vector && m_raster.size() <= 400) {
        for (const bool dimmedOnes : {true, false})
            for (std::int64_t i = 0; i < m_raster.size(); ++i) {
                const std::uint8_t f = m_raster.flags().empty() ? std::uint8_t(0) : m_raster.flags()[static_cast<std::size_t>(i)];
                const QPointF at = cam.toPixel(m_raster.point(i).x(), m_raster.point(i).y());
                if ((f & ScatterRaster::hidden) != 0 || ((f & ScatterRaster::dimmed) != 0) != dimmedOnes || !QRectF(QPointF(), map.size()).contains(at))
                    continue;
                const QColor c = QColor::fromRgb(m_raster.color(i));
                drawGlyph(p, origin + at, radius, m_raster.glyph(i), dimmedOnes ? mixed(c, theme.panel, kDim) : c);
            }
    } else {
        const double device = p.device() != nullptr && !vector ? p.device()->devicePixelRatioF() : 1.0;
        // At most 600 dots per inch of a figure's 144 units.
        const double dpr = std::clamp(std::abs(p.transform().m11()) * (vector ? 1.0 : device), 1.0, 4.2);
        const QSize pixels(static_cast<int>(std::ceil(map.width() * dpr)), static_cast<int>(std::ceil(map.height() * dpr)));
        if (m_dirty || m_image.size() != pixels || !(m_imageCamera == cam)) {
            if (m_image.size() != pixels)
                m_image = QImage(pixels, QImage::Format_RGB32);
            m_raster.render(m_image, cam, dpr, radius, theme.panel, kDim);
            m_imageCamera = cam;
            m_dirty = &theme != &this->theme(); // a figure's picture is not the screen's
        }
        p.save();
        p.setRenderHint(QPainter::LosslessImageRendering, true);
        p.setRenderHint(QPainter::SmoothPixmapTransform, false);
        p.drawImage(QRectF(origin, QSizeF(pixels) / dpr), m_image);
        p.restore();
    }
    p.save();
    p.setBrush(Qt::NoBrush);
    const auto ring = [&](std::int64_t i, const QColor &color, double r) {
        const QPointF at = origin + cam.toPixel(m_raster.point(i).x(), m_raster.point(i).y());
        if (!map.contains(at))
            return;
        p.setPen(QPen(theme.panel, em * 0.28));
        p.drawEllipse(at, r, r);
        p.setPen(QPen(color, em * 0.14));
        p.drawEllipse(at, r, r);
    };
    const auto t = current();
    const double ringRadius = std::max(radius * 1.5, em * 0.42);
    if (isTokens(points) && t) {
        const auto pointOf = [&](std::int64_t row) -> std::int64_t {
            const auto at = std::lower_bound(points.row.begin(), points.row.end(), row);
            return at != points.row.end() && *at == row ? at - points.row.begin() : -1;
        };
        if (const std::size_t n = t->highlight.count(); n > 0 && n <= 500)
            t->highlight.forEach([&](std::size_t row) {
                if (const std::int64_t i = pointOf(static_cast<std::int64_t>(row)); i >= 0)
                    ring(i, theme.hover, ringRadius);
            });
        if (const auto focus = session()->focusedToken())
            if (const std::int64_t i = pointOf(*focus); i >= 0)
                ring(i, theme.selection, ringRadius * 1.25);
    } else if (m_hover >= 0) {
        ring(m_hover, theme.hover, ringRadius);
    }
    // Few points carry their names.
    if (points.object == SpaceObject::experts && m_raster.size() <= 40) {
        for (std::int64_t i = 0; i < m_raster.size(); ++i) {
            const QPointF at = origin + cam.toPixel(m_raster.point(i).x(), m_raster.point(i).y());
            const QString name = QStringLiteral("E%1").arg(points.expert[static_cast<std::size_t>(i)]);
            drawLabel(p, QRectF(at.x() + radius + em * 0.15, at.y() - em * 0.6, textWidth(theme.small, name) + 1, em * 1.2), Qt::AlignLeft | Qt::AlignVCenter,
                      name, theme.small, theme.muted);
        }
    }
    if (m_gesture.isActive() && m_gesture.tool() != SelectTool::pan) {
        QPainterPath outline = m_gesture.outline();
        outline.translate(origin);
        QColor fill = theme.selection;
        fill.setAlphaF(0.10f);
        p.setPen(QPen(theme.selection, em * 0.12, Qt::DashLine));
        if (m_gesture.tool() != SelectTool::polygon)
            p.fillPath(outline, fill);
        p.drawPath(outline);
    }
    p.restore();
    const double h = lineHeight(theme.small);
    double y = map.bottom() + em * 0.15;
    if (!m_data->tsne && m_data->explained.size() >= 2) {
        drawLabel(p, QRectF(area.left(), y, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter,
                  tr("horizontal: PC 1 (%1 of the variance), vertical: PC 2 (%2)").arg(formatPercent(m_data->explained[0]), formatPercent(m_data->explained[1])),
                  theme.small, theme.muted);
        y += h;
    }
    if (colorsAreContinuous()) {
        const double x = map.right() + em * 0.5;
        if (area.right() - x < em * 2)
            return;
        const auto ticks = niceTicks(m_low, m_high, 4);
        drawColorBar(p, QRectF(x, area.top(), area.right() - x, std::min(area.height(), em * 13)), ColorMap::get(ColorMapId::viridis), ticks, m_low, m_high,
                     [](double v) { return formatTick(v); }, tr("nats"), theme);
        return;
    }
    std::vector<LegendEntry> entries;
    static const std::vector<int> none;
    const auto &selected = isTokens(points) && t && !t->selection.empty() ? none : session()->selectedExperts();
    if (option(QStringLiteral("color")) == QLatin1String("domain"))
        for (int q = 0; q < static_cast<int>(points.domains.size()); ++q)
            entries.push_back({QString::fromStdString(points.domains[static_cast<std::size_t>(q)]), mixed(domainColor(q), Qt::black, 0.12), Glyph::circle, !session()->domainShown(q), q});
    else
        for (int e = 0; e < points.experts; ++e)
            entries.push_back({QStringLiteral("E%1").arg(e), expertColor(e), expertGlyph(e), !selected.empty() && !std::binary_search(selected.begin(), selected.end(), e), e});
    drawLegend(p, QRectF(area.left(), y, area.width(), area.bottom() - y + 1), entries, theme);
}

TableData SpaceView::tableData() const
{
    TableData table;
    if (!m_data)
        return table;
    table.caption = title() + QStringLiteral(": ") + subtitle();
    table.header << QStringLiteral("x") << QStringLiteral("y") << QStringLiteral("token") << QStringLiteral("sequence") << QStringLiteral("layer")
                 << QStringLiteral("expert") << QStringLiteral("domain") << QStringLiteral("entropy") << QStringLiteral("nll");
    table.rows = static_cast<qsizetype>(m_data->points->row.size());
    table.cell = [data = m_data](qsizetype r, int column) -> QVariant {
        const SpacePoints &p = *data->points;
        const auto i = static_cast<std::size_t>(r);
        switch (column) {
        case 0: return (*data->coordinates)[2 * i];
        case 1: return (*data->coordinates)[2 * i + 1];
        case 2: return p.row[i] >= 0 ? QVariant(static_cast<qlonglong>(p.row[i])) : QVariant();
        case 3: return p.sequence[i] >= 0 ? QVariant(p.sequence[i]) : QVariant();
        case 4: return p.decoderIndex[static_cast<std::size_t>(p.layerOf.empty() ? p.layer : p.layerOf[i])];
        case 5: return p.expert[i] >= 0 ? QVariant(p.expert[i]) : QVariant();
        case 6: return p.domain[i] >= 0 ? QVariant(QString::fromStdString(p.domains[static_cast<std::size_t>(p.domain[i])])) : QVariant();
        case 7: return p.entropy.empty() ? QVariant() : QVariant(p.entropy[i]);
        default: return p.nll.empty() ? QVariant() : QVariant(p.nll[i]);
        }
    };
    return table;
}

QJsonObject SpaceView::saveState() const
{
    QJsonObject state = View::saveState();
    state[QStringLiteral("camera")] = QJsonArray{m_zoom, m_offsetX, m_offsetY};
    return state;
}

void SpaceView::restoreState(const QJsonObject &state)
{
    View::restoreState(state);
    m_gesture.setTool(toolOf(option(QStringLiteral("tool"))));
    const QJsonArray camera = state[QStringLiteral("camera")].toArray();
    if (camera.size() == 3) {
        m_zoom = std::clamp(camera[0].toDouble(1), 0.2, 1e5);
        m_offsetX = std::clamp(camera[1].toDouble(), -4.0, 4.0);
        m_offsetY = std::clamp(camera[2].toDouble(), -4.0, 4.0);
        m_dirty = true;
        repaintCanvas();
    }
}

} // namespace spectra
