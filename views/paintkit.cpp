// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/paintkit.h"

#include <QFontMetricsF>
#include <QImage>
#include <QLocale>
#include <QPainterPath>
#include <QTextLayout>

#include <algorithm>
#include <cmath>

namespace spectra {

QString formatNumber(double value, int significant)
{
    if (!std::isfinite(value))
        return QStringLiteral("–");
    QString text;
    const double size = std::abs(value);
    if (value == 0)
        text = QStringLiteral("0");
    else if (size >= 1e6 || size < 1e-4)
        text = QString::number(value, 'g', significant);
    else {
        const int digits = std::max(0, significant - 1 - static_cast<int>(std::floor(std::log10(size) + 1e-9)));
        text = QString::number(value, 'f', std::min(digits, significant));
    }
    if (text.startsWith(QLatin1Char('-')))
        text.replace(0, 1, QChar(0x2212));
    return text;
}

QString formatPercent(double share, int decimals)
{
    return std::isfinite(share) ? QString::number(share * 100, 'f', decimals) + QStringLiteral(" %") : QStringLiteral("–");
}

QString formatCount(qint64 n)
{
    return QLocale(QLocale::English).toString(n);
}

QString formatTick(double value)
{
    QString text = QString::number(value, 'g', 6);
    if (text.startsWith(QLatin1Char('-')))
        text.replace(0, 1, QChar(0x2212));
    return text;
}

std::vector<double> niceTicks(double low, double high, int count)
{
    std::vector<double> ticks;
    if (!(high > low) || count < 1)
        return ticks;
    const double raw = (high - low) / count;
    const double power = std::pow(10.0, std::floor(std::log10(raw)));
    double step = 10 * power;
    for (const double m : {1.0, 2.0, 5.0})
        if (m * power >= raw * 0.999) {
            step = m * power;
            break;
        }
    for (double v = std::ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step)
        ticks.push_back(std::abs(v) < step * 1e-9 ? 0.0 : v);
    return ticks;
}

double textWidth(const QFont &font, const QString &text)
{
    return QFontMetricsF(font).horizontalAdvance(text);
}

double lineHeight(const QFont &font)
{
    return QFontMetricsF(font).height();
}

QString wholeParts(const QFontMetricsF &metrics, const QString &text, double width)
{
    if (metrics.horizontalAdvance(text) <= width)
        return text;
    const QString dot = QStringLiteral(" · ");
    QString shown;
    for (const QString &part : text.split(dot)) {
        const QString longer = shown.isEmpty() ? part : shown + dot + part;
        if (metrics.horizontalAdvance(longer + QStringLiteral(" …")) > width)
            break;
        shown = longer;
    }
    return shown.isEmpty() ? metrics.elidedText(text, Qt::ElideRight, width) : shown + QStringLiteral(" …");
}

QString elided(const QFont &font, const QString &text, double width, Qt::TextElideMode mode)
{
    const QFontMetricsF metrics(font);
    if (metrics.horizontalAdvance(text) <= width + 0.5)
        return text;
    const QString cut = metrics.elidedText(text, mode, width);
    return cut == QChar(0x2026) && metrics.horizontalAdvance(cut) > width ? QString() : cut;
}

void drawLabel(QPainter &p, const QRectF &area, int alignment, const QString &text, const QFont &font, const QColor &color)
{
    const QString shown = elided(font, text, area.width());
    if (shown.isEmpty())
        return;
    const QFontMetricsF metrics(font);
    const double w = metrics.horizontalAdvance(shown);
    double x = area.left(), y = area.top() + metrics.ascent();
    if (alignment & Qt::AlignRight)
        x = area.right() - w;
    else if (alignment & Qt::AlignHCenter)
        x = area.center().x() - w / 2;
    if (alignment & Qt::AlignBottom)
        y = area.bottom() - metrics.descent();
    else if (alignment & Qt::AlignVCenter)
        y = area.center().y() + (metrics.ascent() - metrics.descent()) / 2;
    p.setFont(font);
    p.setPen(color);
    p.drawText(QPointF(x, y), shown);
}

double drawParagraph(QPainter &p, const QRectF &area, const QString &text, const QFont &font, const QColor &color, int maxLines)
{
    const QFontMetricsF metrics(font);
    const double line = metrics.lineSpacing();
    const int lines = std::min(maxLines, static_cast<int>(std::floor(area.height() / line + 0.01)));
    if (lines < 1 || text.isEmpty())
        return 0;
    QTextLayout layout(text, font);
    QTextOption wrap;
    wrap.setWrapMode(QTextOption::WrapAtWordBoundaryOrAnywhere);
    layout.setTextOption(wrap);
    layout.beginLayout();
    std::vector<std::pair<int, int>> pieces;
    for (QTextLine l = layout.createLine(); l.isValid(); l = layout.createLine()) {
        l.setLineWidth(area.width());
        pieces.emplace_back(l.textStart(), l.textLength());
    }
    layout.endLayout();
    int drawn = 0;
    for (std::size_t i = 0; i < pieces.size() && drawn < lines; ++i, ++drawn) {
        const bool last = drawn + 1 == lines && i + 1 < pieces.size();
        const QString piece = last ? text.mid(pieces[i].first) : text.mid(pieces[i].first, pieces[i].second);
        drawLabel(p, QRectF(area.left(), area.top() + drawn * line, area.width(), line), Qt::AlignLeft | Qt::AlignTop,
                  piece.trimmed(), font, color);
    }
    return drawn * line;
}

QRectF drawHeader(QPainter &p, const QRectF &area, const QString &title, const QString &subtitle, const Theme &theme)
{
    const double gap = theme.em() * 0.6;
    const double titleWidth = textWidth(theme.bold, title), height = lineHeight(theme.bold);
    drawLabel(p, QRectF(area.left(), area.top(), area.width(), height), Qt::AlignLeft | Qt::AlignVCenter, title, theme.bold, theme.text);
    if (subtitle.isEmpty())
        return area.adjusted(0, height + gap * 0.5, 0, 0);
    if (titleWidth + gap + textWidth(theme.small, subtitle) <= area.width()) {
        drawLabel(p, QRectF(area.left() + titleWidth + gap, area.top(), area.width() - titleWidth - gap, height),
                  Qt::AlignLeft | Qt::AlignVCenter, subtitle, theme.small, theme.muted);
        return area.adjusted(0, height + gap * 0.5, 0, 0);
    }
    // Broken between its parts, at most three lines.
    const QString dot = QStringLiteral(" · ");
    QStringList lines{QString()};
    for (const QString &part : subtitle.split(dot)) {
        const QString longer = lines.last().isEmpty() ? part : lines.last() + dot + part;
        if (lines.last().isEmpty() || lines.size() == 3 || textWidth(theme.small, longer) <= area.width())
            lines.last() = longer;
        else
            lines << part;
    }
    double y = area.top() + height;
    const double line = lineHeight(theme.small);
    for (const QString &text : lines) {
        drawLabel(p, QRectF(area.left(), y, area.width(), line), Qt::AlignLeft | Qt::AlignTop, text, theme.small, theme.muted);
        y += line;
    }
    return area.adjusted(0, y - area.top() + gap * 0.5, 0, 0);
}

void drawGlyph(QPainter &p, const QPointF &c, double r, Glyph glyph, const QColor &color)
{
    p.save();
    p.setPen(Qt::NoPen);
    p.setBrush(color);
    const QPen stroke(color, r * 0.6, Qt::SolidLine, Qt::FlatCap);
    switch (glyph) {
    case Glyph::circle: p.drawEllipse(c, r, r); break;
    case Glyph::square: p.drawRect(QRectF(c.x() - r * 0.9, c.y() - r * 0.9, r * 1.8, r * 1.8)); break;
    case Glyph::triangle:
        p.drawPolygon(QPolygonF({{c.x(), c.y() - r * 1.1}, {c.x() + r * 1.05, c.y() + r * 0.8}, {c.x() - r * 1.05, c.y() + r * 0.8}}));
        break;
    case Glyph::diamond:
        p.drawPolygon(QPolygonF({{c.x(), c.y() - r * 1.2}, {c.x() + r * 1.1, c.y()}, {c.x(), c.y() + r * 1.2}, {c.x() - r * 1.1, c.y()}}));
        break;
    case Glyph::cross:
        p.setPen(stroke);
        p.drawLine(c + QPointF(-r, -r), c + QPointF(r, r));
        p.drawLine(c + QPointF(-r, r), c + QPointF(r, -r));
        break;
    case Glyph::plus:
        p.setPen(stroke);
        p.drawLine(c + QPointF(-r * 1.1, 0), c + QPointF(r * 1.1, 0));
        p.drawLine(c + QPointF(0, -r * 1.1), c + QPointF(0, r * 1.1));
        break;
    case Glyph::star: {
        QPolygonF star;
        for (int i = 0; i < 10; ++i) {
            const double a = -M_PI / 2 + i * M_PI / 5, s = i % 2 == 0 ? r * 1.25 : r * 0.55;
            star << c + QPointF(std::cos(a) * s, std::sin(a) * s);
        }
        p.drawPolygon(star);
        break;
    }
    case Glyph::ring:
        p.setBrush(Qt::NoBrush);
        p.setPen(QPen(color, r * 0.5));
        p.drawEllipse(c, r * 0.85, r * 0.85);
        break;
    }
    p.restore();
}

namespace {

/// Places entries in rows; calls `put(index, rect)` and answers how many fit into `maxRows` and the rows used.
template <typename F>
std::pair<std::size_t, int> layLegend(double left, double top, double width, std::span<const LegendEntry> entries, const Theme &theme,
                                      int maxRows, F &&put)
{
    const double h = lineHeight(theme.small), mark = theme.em() * 0.75, gap = theme.em() * 0.9;
    double x = left;
    int row = 0;
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const double w = std::min(mark + theme.em() * 0.35 + textWidth(theme.small, entries[i].label), width);
        const bool more = i + 1 < entries.size();
        const double reserve = more && row + 1 == maxRows ? textWidth(theme.small, QStringLiteral("+ 99")) + gap : 0;
        if (x > left && x + w + reserve > left + width) {
            if (row + 1 == maxRows)
                return {i, row + 1};
            ++row;
            x = left;
        }
        put(i, QRectF(x, top + row * h, w, h));
        x += w + gap;
    }
    return {entries.size(), entries.empty() ? 0 : row + 1};
}

} // namespace

double legendHeight(double width, std::span<const LegendEntry> entries, const Theme &theme, int maxRows)
{
    return layLegend(0, 0, width, entries, theme, maxRows, [](std::size_t, const QRectF &) {}).second * lineHeight(theme.small);
}

std::vector<QRectF> drawLegend(QPainter &p, const QRectF &area, std::span<const LegendEntry> entries, const Theme &theme)
{
    std::vector<QRectF> places;
    const int rows = std::max(1, static_cast<int>(std::floor(area.height() / lineHeight(theme.small) + 0.01)));
    const double mark = theme.em() * 0.75;
    const auto [shown, used] = layLegend(area.left(), area.top(), area.width(), entries, theme, rows, [&](std::size_t i, const QRectF &r) {
        const LegendEntry &e = entries[i];
        QColor color = e.color;
        if (e.dimmed)
            color = mixed(theme.panel, color, 0.3);
        drawGlyph(p, QPointF(r.left() + mark / 2, r.center().y()), mark * 0.48, e.glyph, color);
        drawLabel(p, r.adjusted(mark + theme.em() * 0.35, 0, 1, 0), Qt::AlignLeft | Qt::AlignVCenter, e.label, theme.small,
                  e.dimmed ? theme.faint : theme.text);
        places.push_back(r);
    });
    if (shown < entries.size() && !places.empty()) {
        const double x = places.back().right() + theme.em() * 0.6;
        drawLabel(p, QRectF(x, places.back().top(), area.right() - x, places.back().height()), Qt::AlignLeft | Qt::AlignVCenter,
                  QStringLiteral("+ %1").arg(entries.size() - shown), theme.small, theme.muted);
    }
    return places;
}

double colorBarWidth(const Theme &theme, double labelWidth)
{
    return theme.em() * 1.4 + labelWidth;
}

void drawColorBar(QPainter &p, const QRectF &area, const ColorMap &map, std::span<const double> ticks, double low, double high,
                  const std::function<QString(double)> &format, const QString &label, const Theme &theme)
{
    QRectF bar = area;
    if (!label.isEmpty()) {
        const double h = lineHeight(theme.small);
        drawLabel(p, QRectF(area.left(), area.top(), area.width(), h), Qt::AlignLeft | Qt::AlignTop, label, theme.small, theme.muted);
        bar.setTop(area.top() + h + theme.em() * 0.25);
    }
    bar.setWidth(theme.em() * 0.8);
    if (bar.height() < theme.em())
        return;
    drawCells(p, bar, 128, 1, [&](int row, int) { return map.rgb(1.0 - (row + 0.5) / 128.0); });
    p.setPen(QPen(theme.border, theme.hairline()));
    p.setBrush(Qt::NoBrush);
    p.drawRect(bar);
    const double h = lineHeight(theme.small);
    double lastY = 1e9;
    for (const double t : ticks) {
        const double y = bar.bottom() - (t - low) / (high - low) * bar.height();
        const double center = std::clamp(y, bar.top() + h * 0.35, bar.bottom() - h * 0.35);
        if (lastY - center < h * 0.95 && lastY < 1e8)
            continue; // too close to the one below
        lastY = center;
        p.setPen(QPen(theme.faint, theme.hairline()));
        p.drawLine(QPointF(bar.right(), y), QPointF(bar.right() + theme.em() * 0.22, y));
        drawLabel(p, QRectF(bar.right() + theme.em() * 0.4, center - h / 2, area.right() - bar.right() - theme.em() * 0.3, h),
                  Qt::AlignLeft | Qt::AlignVCenter, format(t), theme.small, theme.muted);
    }
}

void drawCells(QPainter &p, const QRectF &area, int rows, int columns, const std::function<QRgb(int, int)> &color)
{
    if (rows < 1 || columns < 1 || area.width() <= 0 || area.height() <= 0)
        return;
    // Readers of PDF and SVG smooth small images: enough whole pixels per cell keep the edges sharp.
    const QTransform transform = p.transform();
    const double scale = std::max(1.0, std::abs(transform.m11()));
    const int sx = std::clamp(static_cast<int>(std::lround(area.width() * scale / columns)), 1, std::max(1, 4096 / columns));
    const int sy = std::clamp(static_cast<int>(std::lround(area.height() * scale / rows)), 1, std::max(1, 4096 / rows));
    QImage image(columns * sx, rows * sy, QImage::Format_RGB32);
    for (int r = 0; r < rows; ++r) {
        auto *line = reinterpret_cast<QRgb *>(image.scanLine(r * sy));
        for (int c = 0; c < columns; ++c)
            std::fill_n(line + c * sx, sx, color(r, c));
        for (int k = 1; k < sy; ++k)
            std::copy_n(line, columns * sx, reinterpret_cast<QRgb *>(image.scanLine(r * sy + k)));
    }
    p.save();
    p.setRenderHint(QPainter::SmoothPixmapTransform, false);
    p.setRenderHint(QPainter::LosslessImageRendering, true);
    p.drawImage(area, image);
    p.restore();
}

void drawCellRects(QPainter &p, const QRectF &area, int rows, int columns, double gap, const std::function<QRgb(int, int)> &color)
{
    p.save();
    p.setPen(Qt::NoPen);
    p.setRenderHint(QPainter::Antialiasing, true);
    const double w = area.width() / columns, h = area.height() / rows;
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) {
            p.setBrush(QColor::fromRgb(color(r, c)));
            p.drawRect(QRectF(area.left() + c * w + gap / 2, area.top() + r * h + gap / 2, w - gap, h - gap));
        }
    p.restore();
}

void drawOutline(QPainter &p, const QRectF &rect, const QColor &color, const Theme &theme, double width)
{
    if (width <= 0)
        width = theme.em() * 0.14;
    p.save();
    p.setRenderHint(QPainter::Antialiasing, true);
    p.setBrush(Qt::NoBrush);
    p.setPen(QPen(theme.panel, width * 2.2, Qt::SolidLine, Qt::SquareCap, Qt::MiterJoin));
    p.drawRect(rect);
    p.setPen(QPen(color, width, Qt::SolidLine, Qt::SquareCap, Qt::MiterJoin));
    p.drawRect(rect);
    p.restore();
}

} // namespace spectra
