// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/plotview.h"

#include "views/paintkit.h"

#include <QPainterPath>

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

QColor inkOf(const PlotSeries &s, const Theme &theme)
{
    const QColor hue = expertColor(s.color);
    return mixed(hue, theme.text, theme.isDark() ? 0.12 : 0.06);
}

std::vector<LegendEntry> legendOf(const PlotData &data, const Theme &theme)
{
    std::vector<LegendEntry> entries;
    for (std::size_t i = 0; i < data.series.size(); ++i) {
        const PlotSeries &s = data.series[i];
        if (!s.named)
            entries.push_back({s.label, inkOf(s, theme), s.points ? expertGlyph(s.color) : Glyph::square, false, static_cast<int>(i)});
    }
    return entries;
}

void addFinite(std::vector<double> &to, const std::vector<double> &from)
{
    std::copy_if(from.begin(), from.end(), std::back_inserter(to), [](double v) { return std::isfinite(v); });
}

} // namespace

// ---- axis

PlotAxis PlotAxis::around(const std::vector<double> &values, const std::vector<double> &intervals, bool log)
{
    PlotAxis axis;
    axis.log = log;
    const auto usable = [&](double v) { return std::isfinite(v) && (!log || v > 0); };
    const auto scaled = [&](double v) { return log ? std::log10(v) : v; };
    double low = INFINITY, high = -INFINITY;
    for (const double v : values)
        if (usable(v)) {
            low = std::min(low, scaled(v));
            high = std::max(high, scaled(v));
        }
    if (!(low <= high)) {
        low = 0;
        high = 1;
    }
    // Values that only rounding tells apart are one value.
    const double size = std::max(std::abs(low), std::abs(high));
    const double length = high - low > 1e-9 * size ? high - low : std::max(size * 0.1, log ? 0.5 : 1e-6);
    double wideLow = low, wideHigh = high;
    for (const double v : intervals)
        if (usable(v)) {
            wideLow = std::min(wideLow, scaled(v));
            wideHigh = std::max(wideHigh, scaled(v));
        }
    axis.low = std::max(wideLow, low - length) - 0.05 * length;
    axis.high = std::min(wideHigh, high + length) + 0.05 * length;
    return axis;
}

double PlotAxis::share(double v) const
{
    return ((log ? std::log10(v) : v) - low) / (high - low);
}

double PlotAxis::value(double s) const
{
    const double v = low + s * (high - low);
    return log ? std::pow(10, v) : v;
}

std::vector<double> PlotAxis::ticks(int count) const
{
    if (!log)
        return niceTicks(low, high, count);
    // 1, 2 and 5 of each decade, or the decades alone where these are many.
    std::vector<double> all;
    const bool fine = (high - low) * 3 <= count + 1;
    for (int decade = static_cast<int>(std::floor(low)); decade <= static_cast<int>(std::ceil(high)); ++decade)
        for (const double m : {1.0, 2.0, 5.0})
            if (const double v = m * std::pow(10, decade); (m == 1 || fine) && std::log10(v) >= low && std::log10(v) <= high)
                all.push_back(v);
    if (all.size() < 2) {
        all.clear();
        for (const double v : niceTicks(std::pow(10, low), std::pow(10, high), count))
            all.push_back(v);
    }
    return all;
}

QPointF PlotView::Frame::at(double vx, double vy) const
{
    return {plot.left() + x.share(vx) * plot.width(), plot.bottom() - y.share(vy) * plot.height()};
}

bool PlotView::Frame::shows(double vx, double vy) const
{
    return std::isfinite(vx) && std::isfinite(vy) && (!x.log || vx > 0) && (!y.log || vy > 0);
}

// ---- view

PlotView::PlotView(PlotData plot, QWidget *parent) : View(QStringLiteral("training"), plot.title, parent), m_data(std::move(plot))
{
    setBarVisible(false);
    refresh();
}

bool PlotView::empty() const
{
    return std::all_of(m_data.series.begin(), m_data.series.end(), [](const PlotSeries &s) { return s.x.empty(); });
}

void PlotView::refresh()
{
    if (empty())
        showEmpty(m_data.notes.isEmpty() ? tr("No run has these numbers yet.") : tr("No run has these numbers yet. %1").arg(m_data.notes.first()));
    else
        showReady();
}

double PlotView::legendSpace(double width, const Theme &theme) const
{
    const auto entries = legendOf(m_data, theme);
    return entries.empty() ? 0 : legendHeight(width, entries, theme, 3) + theme.em() * 0.5;
}

double PlotView::notesSpace(const QRectF &area, const Theme &theme) const
{
    const double h = lineHeight(theme.small);
    const auto most = static_cast<qsizetype>(area.height() * 0.2 / h);
    return static_cast<double>(std::min(m_data.notes.size(), most)) * h;
}

PlotView::Frame PlotView::frame(const QRectF &area, const Theme &theme) const
{
    Frame f;
    std::vector<double> xs, ys, xIntervals, yIntervals;
    for (const PlotSeries &s : m_data.series) {
        addFinite(xs, s.x);
        addFinite(ys, s.y);
        addFinite(yIntervals, s.low);
        addFinite(yIntervals, s.high);
        addFinite(xIntervals, s.xLow);
        addFinite(xIntervals, s.xHigh);
    }
    f.x = PlotAxis::around(xs, xIntervals, m_data.logX);
    f.y = PlotAxis::around(ys, yIntervals, m_data.logY);
    const double h = lineHeight(theme.small);
    double left = 0;
    for (const double t : f.y.ticks(6))
        left = std::max(left, textWidth(theme.small, formatTick(t)));
    f.plot = area.adjusted(left + theme.em() * 0.5, legendSpace(area.width(), theme) + h * 1.2, -theme.em() * 0.6, -h * 2.5 - notesSpace(area, theme));
    return f;
}

void PlotView::paintContent(QPainter &p, const QRectF &area, const Theme &theme)
{
    const Frame f = frame(area, theme);
    if (f.plot.width() < theme.em() * 3 || f.plot.height() < theme.em() * 2)
        return;
    if (const auto entries = legendOf(m_data, theme); !entries.empty())
        drawLegend(p, QRectF(area.left(), area.top(), area.width(), legendSpace(area.width(), theme) - theme.em() * 0.5), entries, theme);
    paintAxes(p, f, area, theme);
    p.save();
    p.setClipRect(f.plot.adjusted(-1, -1, 1, 1));
    for (const PlotSeries &s : m_data.series)
        if (!s.points)
            paintBand(p, f, s, inkOf(s, theme));
    paintFront(p, f, theme);
    for (const PlotSeries &s : m_data.series)
        if (!s.points)
            paintLine(p, f, s, inkOf(s, theme), theme);
    for (const PlotSeries &s : m_data.series)
        if (s.points)
            paintPoints(p, f, s, inkOf(s, theme), theme);
    p.restore();
    paintNames(p, f, theme);
    const double h = lineHeight(theme.small), notes = notesSpace(area, theme);
    for (int i = 0; i < static_cast<int>(notes / h + 0.5); ++i)
        drawLabel(p, QRectF(area.left(), area.bottom() - notes + i * h, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, m_data.notes[i], theme.small, theme.muted);
}

void PlotView::paintAxes(QPainter &p, const Frame &f, const QRectF &area, const Theme &theme) const
{
    const double h = lineHeight(theme.small);
    p.setPen(QPen(theme.grid, theme.hairline()));
    const int rows = std::clamp(static_cast<int>(f.plot.height() / (h * 2.2)), 2, 7);
    for (const double t : f.y.ticks(rows)) {
        const double y = f.plot.bottom() - f.y.share(t) * f.plot.height();
        p.setPen(QPen(theme.grid, theme.hairline()));
        p.drawLine(QPointF(f.plot.left(), y), QPointF(f.plot.right(), y));
        drawLabel(p, QRectF(area.left(), y - h / 2, f.plot.left() - area.left() - theme.em() * 0.35, h), Qt::AlignRight | Qt::AlignVCenter, formatTick(t), theme.small, theme.muted);
    }
    const int columns = std::clamp(static_cast<int>(f.plot.width() / (theme.em() * 5)), 2, 9);
    double free = -INFINITY;
    for (const double t : f.x.ticks(columns)) {
        const double x = f.plot.left() + f.x.share(t) * f.plot.width();
        const QString text = formatTick(t);
        const double w = textWidth(theme.small, text);
        p.setPen(QPen(theme.faint, theme.hairline()));
        p.drawLine(QPointF(x, f.plot.bottom()), QPointF(x, f.plot.bottom() + theme.em() * 0.25));
        if (x - w / 2 < free)
            continue;
        drawLabel(p, QRectF(x - w / 2 - 1, f.plot.bottom() + theme.em() * 0.3, w + 2, h), Qt::AlignHCenter | Qt::AlignVCenter, text, theme.small, theme.muted);
        free = x + w / 2 + theme.em() * 0.6;
    }
    p.setPen(QPen(theme.faint, theme.hairline()));
    p.drawLine(f.plot.bottomLeft(), f.plot.bottomRight());
    drawLabel(p, QRectF(f.plot.left(), f.plot.bottom() + theme.em() * 0.3 + h, f.plot.width(), h), Qt::AlignRight | Qt::AlignVCenter, m_data.xTitle, theme.small, theme.text);
    // The y title lies flat above its axis: nobody turns the head.
    drawLabel(p, QRectF(area.left(), f.plot.top() - h * 1.15, area.width(), h), Qt::AlignLeft | Qt::AlignVCenter, m_data.yTitle, theme.small, theme.text);
}

void PlotView::paintBand(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color) const
{
    QColor fill = color;
    fill.setAlphaF(0.17f);
    const auto has = [&](std::size_t i) { return i < s.low.size() && i < s.high.size() && f.shows(s.x[i], s.low[i]) && f.shows(s.x[i], s.high[i]); };
    for (std::size_t from = 0; from < s.x.size();) {
        if (!has(from)) {
            ++from;
            continue;
        }
        std::size_t to = from;
        while (to < s.x.size() && has(to))
            ++to;
        if (to - from >= 2) {
            QPolygonF band;
            for (std::size_t i = from; i < to; ++i)
                band << f.at(s.x[i], s.high[i]);
            for (std::size_t i = to; i-- > from;)
                band << f.at(s.x[i], s.low[i]);
            p.setPen(Qt::NoPen);
            p.setBrush(fill);
            p.drawPolygon(band);
        }
        from = to;
    }
}

void PlotView::paintLine(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color, const Theme &theme) const
{
    QPainterPath path;
    bool down = false;
    for (std::size_t i = 0; i < s.x.size(); ++i) {
        if (!f.shows(s.x[i], s.y[i])) {
            down = false;
            continue;
        }
        const QPointF at = f.at(s.x[i], s.y[i]);
        if (down)
            path.lineTo(at);
        else
            path.moveTo(at);
        down = true;
    }
    p.setBrush(Qt::NoBrush);
    p.setPen(QPen(color, theme.em() * 0.14, Qt::SolidLine, Qt::RoundCap, Qt::RoundJoin));
    p.drawPath(path);
    if (s.x.size() > 12)
        return;
    // Few points: each was measured, and is seen to be.
    for (std::size_t i = 0; i < s.x.size(); ++i)
        if (f.shows(s.x[i], s.y[i]))
            drawGlyph(p, f.at(s.x[i], s.y[i]), theme.em() * 0.24, Glyph::circle, color);
}

void PlotView::paintPoints(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color, const Theme &theme) const
{
    QColor bar = color;
    bar.setAlphaF(0.6f);
    for (std::size_t i = 0; i < s.x.size(); ++i) {
        if (!f.shows(s.x[i], s.y[i]))
            continue;
        p.setPen(QPen(bar, theme.hairline() * 1.4));
        if (i < s.low.size() && f.shows(s.x[i], s.low[i]) && f.shows(s.x[i], s.high[i]))
            p.drawLine(f.at(s.x[i], s.low[i]), f.at(s.x[i], s.high[i]));
        if (i < s.xLow.size() && f.shows(s.xLow[i], s.y[i]) && f.shows(s.xHigh[i], s.y[i]))
            p.drawLine(f.at(s.xLow[i], s.y[i]), f.at(s.xHigh[i], s.y[i]));
        drawGlyph(p, f.at(s.x[i], s.y[i]), theme.em() * (s.x.size() > 60 ? 0.22 : 0.36), expertGlyph(s.color), color);
    }
}

void PlotView::paintFront(QPainter &p, const Frame &f, const Theme &theme) const
{
    QPolygonF corners;
    for (const PlotSeries &s : m_data.series)
        if (s.front && !s.x.empty() && f.shows(s.x[0], s.y[0]))
            corners << f.at(s.x[0], s.y[0]);
    if (corners.size() < 2)
        return;
    std::sort(corners.begin(), corners.end(), [](const QPointF &a, const QPointF &b) { return a.x() < b.x(); });
    QPen dash(theme.faint, theme.hairline() * 1.3, Qt::CustomDashLine);
    dash.setDashPattern({4, 3});
    p.setPen(dash);
    p.setBrush(Qt::NoBrush);
    p.drawPolyline(corners);
}

void PlotView::paintNames(QPainter &p, const Frame &f, const Theme &theme) const
{
    const double h = lineHeight(theme.small), gap = theme.em() * 0.5;
    std::vector<QRectF> taken;
    for (const PlotSeries &s : m_data.series)
        if (s.named && !s.x.empty() && f.shows(s.x[0], s.y[0])) {
            const QPointF c = f.at(s.x[0], s.y[0]);
            taken.emplace_back(c.x() - gap * 0.7, c.y() - gap * 0.7, gap * 1.4, gap * 1.4);
        }
    for (const PlotSeries &s : m_data.series) {
        if (!s.named || s.x.empty() || !f.shows(s.x[0], s.y[0]))
            continue;
        const QPointF c = f.at(s.x[0], s.y[0]);
        const double w = textWidth(theme.small, s.label) + 2;
        // Between the bars' arms first, then beside and above: the first place that is free and inside.
        const double near = gap * 0.75;
        const QRectF places[] = {{c.x() + near, c.y() - near - h, w, h}, {c.x() + near, c.y() + near, w, h},   {c.x() - near - w, c.y() - near - h, w, h}, {c.x() - near - w, c.y() + near, w, h},
                                 {c.x() + gap, c.y() - h / 2, w, h},     {c.x() - gap - w, c.y() - h / 2, w, h}, {c.x() - w / 2, c.y() - gap - h, w, h},    {c.x() - w / 2, c.y() + gap, w, h}};
        for (const QRectF &place : places) {
            if (!f.plot.adjusted(-1, -h, theme.em() * 0.6, 1).contains(place) || std::any_of(taken.begin(), taken.end(), [&](const QRectF &t) { return t.intersects(place); }))
                continue;
            drawLabel(p, place, Qt::AlignLeft | Qt::AlignVCenter, s.label, theme.small, s.front ? theme.text : theme.muted);
            taken.push_back(place);
            break;
        }
    }
}

QString PlotView::toolTipAt(const QPointF &position) const
{
    const Frame shown = frame(canvasArea(), theme());
    const PlotSeries *best = nullptr;
    std::size_t at = 0;
    double least = theme().em() * theme().em() * 4;
    for (const PlotSeries &s : m_data.series)
        for (std::size_t i = 0; i < s.x.size(); ++i) {
            if (!shown.shows(s.x[i], s.y[i]))
                continue;
            const QPointF d = shown.at(s.x[i], s.y[i]) - position;
            if (const double square = QPointF::dotProduct(d, d); square < least) {
                least = square;
                best = &s;
                at = i;
            }
        }
    if (best == nullptr)
        return {};
    QString text = QStringLiteral("%1\n%2: %3\n%4: %5").arg(best->label, m_data.xTitle, formatNumber(best->x[at], 4), m_data.yTitle, formatNumber(best->y[at], 4));
    if (at < best->low.size() && std::isfinite(best->low[at]))
        text += QStringLiteral(" [%1, %2]").arg(formatNumber(best->low[at], 4), formatNumber(best->high[at], 4));
    return text;
}

TableData PlotView::tableData() const
{
    TableData table;
    table.caption = title();
    table.header << QStringLiteral("series") << m_data.xTitle << m_data.yTitle << QStringLiteral("low") << QStringLiteral("high");
    struct Row {
        QString label;
        double x, y, low, high;
    };
    std::vector<Row> rows;
    for (const PlotSeries &s : m_data.series)
        for (std::size_t i = 0; i < s.x.size(); ++i)
            rows.push_back({s.label, s.x[i], s.y[i], i < s.low.size() ? s.low[i] : NAN, i < s.high.size() ? s.high[i] : NAN});
    table.rows = static_cast<qsizetype>(rows.size());
    table.cell = [rows](qsizetype r, int column) -> QVariant {
        const Row &row = rows[static_cast<std::size_t>(r)];
        return column == 0 ? QVariant(row.label) : QVariant(column == 1 ? row.x : column == 2 ? row.y : column == 3 ? row.low : row.high);
    };
    return table;
}

} // namespace spectra
