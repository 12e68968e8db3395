// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/colormap.h"

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

// Anchors of viridis and magma: van der Walt and Smith, matplotlib (CC0); cividis: Nuñez, Anderton and Renslow 2018;
// diverging: the ends and quarters of ColorBrewer's RdBu (Harrower and Brewer 2003), blue below, red above.
constexpr std::array<QRgb, 17> kViridis = {0xff440154, 0xff481a6c, 0xff472f7d, 0xff414487, 0xff39568c, 0xff31688e,
                                           0xff2a788e, 0xff23888e, 0xff1f988b, 0xff22a884, 0xff35b779, 0xff54c568,
                                           0xff7ad151, 0xffa5db36, 0xffd2e21b, 0xffe9e51a, 0xfffde725};
constexpr std::array<QRgb, 11> kCividis = {0xff00224e, 0xff123570, 0xff3b496c, 0xff575d6d, 0xff707173, 0xff8a8678,
                                           0xffa59c74, 0xffc3b369, 0xffe1cc55, 0xfff0d94b, 0xfffee838};
constexpr std::array<QRgb, 11> kMagma = {0xff000004, 0xff140e36, 0xff3b0f70, 0xff641a80, 0xff8c2981, 0xffb73779,
                                         0xffde4968, 0xfff7705c, 0xfffe9f6d, 0xfffecf92, 0xfffcfdbf};
constexpr std::array<QRgb, 11> kDiverging = {0xff053061, 0xff2166ac, 0xff4393c3, 0xff92c5de, 0xffd1e5f0, 0xfff7f7f7,
                                             0xfffddbc7, 0xfff4a582, 0xffd6604d, 0xffb2182b, 0xff67001f};

// Okabe and Ito 2008 for the first six; Tol's olive and a violet in place of their yellow and black, which vanish on one
// of the two backgrounds.
constexpr std::array<QRgb, 8> kExperts = {0xff0072b2, 0xffe69f00, 0xff009e73, 0xffcc79a7,
                                          0xff56b4e9, 0xffd55e00, 0xff999933, 0xff8466c8};
// Tol, "light".
constexpr std::array<QRgb, 8> kDomains = {0xff77aadd, 0xffee8866, 0xff44bb99, 0xffffaabb,
                                          0xffbbcc33, 0xffaaaa00, 0xff99ddff, 0xffeedd88};

} // namespace

ColorMap::ColorMap(std::span<const QRgb> anchors)
{
    const double last = static_cast<double>(anchors.size() - 1);
    for (int i = 0; i < 256; ++i) {
        const double at = i / 255.0 * last;
        const auto k = std::min(static_cast<std::size_t>(at), anchors.size() - 2);
        m_table[static_cast<std::size_t>(i)] =
            mixed(QColor::fromRgb(anchors[k]), QColor::fromRgb(anchors[k + 1]), at - static_cast<double>(k)).rgb();
    }
}

const ColorMap &ColorMap::get(ColorMapId id)
{
    static const ColorMap viridis(kViridis), cividis(kCividis), magma(kMagma), diverging(kDiverging);
    switch (id) {
    case ColorMapId::viridis: return viridis;
    case ColorMapId::cividis: return cividis;
    case ColorMapId::magma: return magma;
    case ColorMapId::diverging: break;
    }
    return diverging;
}

ColorMap ColorMap::divergingAround(const QColor &middle)
{
    // On a dark panel the ends are kept bright: RdBu's own ends are nearly black.
    const bool dark = luminance(middle) < 0.2;
    const std::array<QRgb, 7> ends = dark ? std::array<QRgb, 7>{0xff6cb6ff, 0xff2f7fd0, 0xff1f4a78, 0, 0xff7d2a35, 0xffd64550, 0xffff9a8c}
                                          : std::array<QRgb, 7>{0xff0b4a8f, 0xff3a8ac2, 0xffa9d0e5, 0, 0xfff7b799, 0xffd6604d, 0xff9c1127};
    std::array<QRgb, 7> anchors = ends;
    anchors[3] = middle.rgb();
    return ColorMap(anchors);
}

QString ColorMap::name(ColorMapId id)
{
    switch (id) {
    case ColorMapId::viridis: return QStringLiteral("viridis");
    case ColorMapId::cividis: return QStringLiteral("cividis");
    case ColorMapId::magma: return QStringLiteral("magma");
    case ColorMapId::diverging: break;
    }
    return QStringLiteral("diverging");
}

QRgb ColorMap::rgb(double t) const
{
    if (std::isnan(t))
        return 0xff808080;
    const double i = std::clamp(t, 0.0, 1.0) * 255.0;
    return m_table[static_cast<std::size_t>(i + 0.5)];
}

QColor expertColor(int expert)
{
    if (expert < 0)
        return QColor(140, 146, 156);
    const QColor base = QColor::fromRgb(kExperts[static_cast<std::size_t>(expert) % kExperts.size()]);
    switch (expert / static_cast<int>(kExperts.size()) % 4) {
    case 1: return mixed(base, Qt::black, 0.38);
    case 2: return mixed(base, Qt::white, 0.45);
    case 3: return mixed(base, QColor(128, 128, 128), 0.55);
    default: return base;
    }
}

Glyph expertGlyph(int expert)
{
    return static_cast<Glyph>(std::max(expert, 0) / static_cast<int>(kExperts.size()) % 8);
}

QColor domainColor(int domain)
{
    if (domain < 0)
        return QColor(160, 165, 174);
    const QColor base = QColor::fromRgb(kDomains[static_cast<std::size_t>(domain) % kDomains.size()]);
    return domain / static_cast<int>(kDomains.size()) % 2 == 0 ? base : mixed(base, Qt::black, 0.35);
}

QColor traceColor(int index)
{
    // Tol, "bright": a third family beside experts and domains.
    static constexpr std::array<QRgb, 6> colors = {0xff4477aa, 0xffee6677, 0xff228833, 0xffccbb44, 0xff66ccee, 0xffaa3377};
    return QColor::fromRgb(colors[static_cast<std::size_t>(std::max(index, 0)) % colors.size()]);
}

QColor mixed(const QColor &a, const QColor &b, double share)
{
    const double s = std::clamp(share, 0.0, 1.0);
    const auto channel = [s](int x, int y) { return static_cast<int>(std::lround(x + (y - x) * s)); };
    return QColor(channel(a.red(), b.red()), channel(a.green(), b.green()), channel(a.blue(), b.blue()));
}

double luminance(const QColor &c)
{
    const auto linear = [](double v) { return v <= 0.03928 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4); };
    return 0.2126 * linear(c.redF()) + 0.7152 * linear(c.greenF()) + 0.0722 * linear(c.blueF());
}

QColor readableOn(const QColor &background, const QColor &dark, const QColor &light)
{
    const auto contrast = [](double a, double b) { return (std::max(a, b) + 0.05) / (std::min(a, b) + 0.05); };
    const double l = luminance(background);
    return contrast(l, luminance(dark)) >= contrast(l, luminance(light)) ? dark : light;
}

} // namespace spectra
