// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QColor>
#include <QString>

#include <array>
#include <span>
#include <vector>

namespace spectra {

/// The continuous colour maps. All but `magma` keep their order for the common colour vision deficiencies and in grey;
/// `diverging` has its neutral middle at 0.5.
enum class ColorMapId { viridis, cividis, magma, diverging };

/// A colour map sampled at 256 places. Values outside [0, 1] take the end colours, NaN takes `missing`.
class ColorMap {
public:
    [[nodiscard]] static const ColorMap &get(ColorMapId id);
    /// The diverging map with its middle in the theme's panel colour, so that zero recedes on light and dark.
    [[nodiscard]] static ColorMap divergingAround(const QColor &middle);
    [[nodiscard]] static QString name(ColorMapId id);

    [[nodiscard]] QRgb rgb(double t) const;
    [[nodiscard]] QColor color(double t) const { return QColor::fromRgb(rgb(t)); }
    [[nodiscard]] const std::array<QRgb, 256> &table() const { return m_table; }

private:
    explicit ColorMap(std::span<const QRgb> anchors);
    std::array<QRgb, 256> m_table{};
};

/// Glyph of an expert beyond the eighth: the second channel beside colour.
enum class Glyph { circle, square, triangle, diamond, cross, plus, star, ring };

/// The colour of an expert: eight hues safe for colour-blind readers, then the same hues darker and lighter.
[[nodiscard]] QColor expertColor(int expert);
[[nodiscard]] Glyph expertGlyph(int expert);
/// Paler family (Tol, "light"), so that domains are never mistaken for experts.
[[nodiscard]] QColor domainColor(int domain);
/// Colours of open traces.
[[nodiscard]] QColor traceColor(int index);

/// Straight mix in sRGB: 0 gives a, 1 gives b.
[[nodiscard]] QColor mixed(const QColor &a, const QColor &b, double share);
/// WCAG relative luminance, and the more readable of two inks on a background.
[[nodiscard]] double luminance(const QColor &c);
[[nodiscard]] QColor readableOn(const QColor &background, const QColor &dark = QColor(20, 24, 31), const QColor &light = Qt::white);

} // namespace spectra
