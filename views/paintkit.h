// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/theme.h"

#include <QPainter>
#include <QRectF>
#include <QString>

#include <functional>
#include <span>
#include <vector>

namespace spectra {

// What pictures are made of. Everything works on any paint device and takes its measures from the theme's font.

/// Three significant digits at most, a real minus sign, "–" for NaN: for labels, never for files.
[[nodiscard]] QString formatNumber(double value, int significant = 3);
[[nodiscard]] QString formatPercent(double share, int decimals = 1); ///< 0.129 → "12.9 %"
[[nodiscard]] QString formatCount(qint64 n);                         ///< 8192 → "8,192"
/// A tick's value without padding: 0.5, 15, −1.
[[nodiscard]] QString formatTick(double value);
/// About `count` round values inside [low, high].
[[nodiscard]] std::vector<double> niceTicks(double low, double high, int count);

[[nodiscard]] double textWidth(const QFont &font, const QString &text);
[[nodiscard]] double lineHeight(const QFont &font);
/// The leading parts of a text of parts between " · " that fit, followed by "…" if some do not.
[[nodiscard]] QString wholeParts(const QFontMetricsF &metrics, const QString &text, double width);
/// The text cut with an ellipsis to `width`; empty when not even that fits.
[[nodiscard]] QString elided(const QFont &font, const QString &text, double width, Qt::TextElideMode mode = Qt::ElideRight);
/// One line, elided to the rectangle.
void drawLabel(QPainter &p, const QRectF &area, int alignment, const QString &text, const QFont &font, const QColor &color);
/// Words wrapped into the rectangle, the last line elided; returns the height used.
double drawParagraph(QPainter &p, const QRectF &area, const QString &text, const QFont &font, const QColor &color, int maxLines = 99);
/// Bold title and muted subtitle on one line, or on two or three when narrow. Returns the area left.
QRectF drawHeader(QPainter &p, const QRectF &area, const QString &title, const QString &subtitle, const Theme &theme);

void drawGlyph(QPainter &p, const QPointF &center, double radius, Glyph glyph, const QColor &color);

struct LegendEntry {
    QString label;
    QColor color;
    Glyph glyph = Glyph::square;
    bool dimmed = false;
    int id = -1;
};
/// Entries in rows from the left, as many as fit in the rectangle, then "+ n". Returns where each entry was put.
std::vector<QRectF> drawLegend(QPainter &p, const QRectF &area, std::span<const LegendEntry> entries, const Theme &theme);
[[nodiscard]] double legendHeight(double width, std::span<const LegendEntry> entries, const Theme &theme, int maxRows = 2);

/// Vertical colour bar with ticks at its right; `label` above it. Width needed: colorBarWidth().
void drawColorBar(QPainter &p, const QRectF &area, const ColorMap &map, std::span<const double> ticks, double low, double high,
                  const std::function<QString(double)> &format, const QString &label, const Theme &theme);
[[nodiscard]] double colorBarWidth(const Theme &theme, double labelWidth);

/// A matrix of colours: one image with nearest sampling, crisp at any zoom and lossless in PDF.
void drawCells(QPainter &p, const QRectF &area, int rows, int columns, const std::function<QRgb(int row, int column)> &color);
/// The same as rectangles with a gap: for small matrices.
void drawCellRects(QPainter &p, const QRectF &area, int rows, int columns, double gap, const std::function<QRgb(int row, int column)> &color);

/// An outline that is seen on every colour: the theme's panel colour under the given one.
void drawOutline(QPainter &p, const QRectF &rect, const QColor &color, const Theme &theme, double width = 0);

} // namespace spectra
