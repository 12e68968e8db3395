// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/colormap.h"

#include <QImage>
#include <QPainterPath>
#include <QPointF>
#include <QRectF>

#include <cstdint>
#include <memory>
#include <vector>

namespace spectra {

/// Where data stands on the picture: y grows upwards in data, downwards in pixels.
struct ScatterCamera {
    double centerX = 0, centerY = 0; ///< data at the middle of the picture
    double scale = 1;                ///< logical pixels per data unit
    QSizeF size{1, 1};               ///< of the picture, logical pixels

    [[nodiscard]] QPointF toPixel(double x, double y) const
    {
        return {size.width() / 2 + (x - centerX) * scale, size.height() / 2 - (y - centerY) * scale};
    }
    [[nodiscard]] QPointF toData(const QPointF &p) const
    {
        return {centerX + (p.x() - size.width() / 2) / scale, centerY - (p.y() - size.height() / 2) / scale};
    }
    /// Shows `bounds` whole with a margin, axes of equal scale.
    [[nodiscard]] static ScatterCamera fit(const QRectF &bounds, const QSizeF &size);
    /// Zooms so that the data under `anchor` stays there.
    [[nodiscard]] ScatterCamera zoomed(double factor, const QPointF &anchor) const;
    friend bool operator==(const ScatterCamera &, const ScatterCamera &) = default;
};

/// Draws up to millions of points into an image, on all threads, in well under a frame. Points are stamped, not painted.
/// Order: plain points first, emphasised ones above them. Not synchronised.
class ScatterRaster {
public:
    enum Flag : std::uint8_t { hidden = 1, dimmed = 2 };

    /// [n,2] interleaved.
    void setPoints(std::shared_ptr<const std::vector<float>> xy);
    /// A palette entry per point, at most 256 entries. Empty index: all take entry 0.
    void setColors(std::vector<QRgb> palette, std::vector<Glyph> glyphs, std::vector<std::uint8_t> index);
    /// [n] of Flag, or empty: everything plain.
    void setFlags(std::vector<std::uint8_t> flags);

    [[nodiscard]] std::int64_t size() const { return m_xy ? static_cast<std::int64_t>(m_xy->size() / 2) : 0; }
    [[nodiscard]] const std::vector<std::uint8_t> &flags() const { return m_flags; }
    [[nodiscard]] QRectF bounds() const { return m_bounds; }
    [[nodiscard]] QPointF point(std::int64_t i) const
    {
        return {(*m_xy)[static_cast<std::size_t>(2 * i)], (*m_xy)[static_cast<std::size_t>(2 * i + 1)]};
    }
    [[nodiscard]] QRgb color(std::int64_t i) const;
    [[nodiscard]] Glyph glyph(std::int64_t i) const;

    /// Radius in logical pixels that suits this many points.
    [[nodiscard]] static double radiusFor(std::int64_t points, double em);
    /// Fills `image` (RGB32, size·dpr pixels) with the background and the points. `dim`: share of the background that a
    /// dimmed point's colour takes.
    void render(QImage &image, const ScatterCamera &camera, double dpr, double radius, const QColor &background, double dim = 0.8) const;

    /// The visible point nearest to `pixel` (logical), at most `reach` away; −1: none.
    [[nodiscard]] std::int64_t nearest(const ScatterCamera &camera, const QPointF &pixel, double reach) const;
    /// The visible points inside a region of the picture (logical pixels), through a mask of the picture's size: the
    /// cost does not depend on how many corners the region has.
    [[nodiscard]] std::vector<std::int64_t> inside(const ScatterCamera &camera, const QPainterPath &region) const;

private:
    std::shared_ptr<const std::vector<float>> m_xy;
    std::vector<QRgb> m_palette{0xff4477aa};
    std::vector<Glyph> m_glyphs{Glyph::circle};
    std::vector<std::uint8_t> m_index, m_flags;
    QRectF m_bounds;
    mutable std::vector<std::uint32_t> m_pixels; // packed device pixels of the last picture: kept to spare the allocation
};

} // namespace spectra
