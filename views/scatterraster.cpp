// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/scatterraster.h"

#include "engine/core/parallel.h"
#include "views/paintkit.h"

#include <QPainter>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace spectra {

namespace {

constexpr std::uint32_t kOutside = 0xffffffffu;
constexpr int kMargin = 64; // pixels around the picture from which a stamp can still reach into it

/// Coverage of one glyph, 0..255, centred on a pixel.
struct Stamp {
    int radius = 0; // the stamp is (2·radius+1)²
    std::vector<std::uint8_t> alpha;
};

Stamp makeStamp(Glyph glyph, double radius)
{
    Stamp s;
    s.radius = std::min(kMargin - 1, static_cast<int>(std::ceil(radius * 1.3)));
    const int side = 2 * s.radius + 1;
    QImage image(side, side, QImage::Format_ARGB32_Premultiplied);
    image.fill(Qt::transparent);
    {
        QPainter p(&image);
        p.setRenderHint(QPainter::Antialiasing);
        drawGlyph(p, QPointF(side / 2.0, side / 2.0), radius, glyph, Qt::white);
    }
    s.alpha.resize(static_cast<std::size_t>(side * side));
    for (int y = 0; y < side; ++y)
        for (int x = 0; x < side; ++x)
            s.alpha[static_cast<std::size_t>(y * side + x)] = static_cast<std::uint8_t>(qAlpha(image.pixel(x, y)));
    return s;
}

inline QRgb blend(QRgb under, QRgb over, unsigned a)
{
    const unsigned b = 255 - a;
    const unsigned rb = ((under & 0xff00ff) * b + (over & 0xff00ff) * a + 0x800080) >> 8 & 0xff00ff;
    const unsigned g = ((under & 0x00ff00) * b + (over & 0x00ff00) * a + 0x008000) >> 8 & 0x00ff00;
    return 0xff000000u | rb | g;
}

} // namespace

ScatterCamera ScatterCamera::fit(const QRectF &bounds, const QSizeF &size)
{
    ScatterCamera c;
    c.size = size;
    c.centerX = bounds.center().x();
    c.centerY = bounds.center().y();
    const double w = std::max(bounds.width(), 1e-9), h = std::max(bounds.height(), 1e-9);
    const double room = 0.92;
    c.scale = bounds.isNull() ? 1 : std::min(size.width() * room / w, size.height() * room / h);
    if (!std::isfinite(c.scale) || c.scale <= 0)
        c.scale = 1;
    return c;
}

ScatterCamera ScatterCamera::zoomed(double factor, const QPointF &anchor) const
{
    ScatterCamera c = *this;
    const QPointF data = toData(anchor);
    c.scale *= factor;
    c.centerX = data.x() - (anchor.x() - size.width() / 2) / c.scale;
    c.centerY = data.y() + (anchor.y() - size.height() / 2) / c.scale;
    return c;
}

void ScatterRaster::setPoints(std::shared_ptr<const std::vector<float>> xy)
{
    m_xy = std::move(xy);
    double x0 = std::numeric_limits<double>::infinity(), y0 = x0, x1 = -x0, y1 = -x0;
    for (std::int64_t i = 0; i < size(); ++i) {
        const double x = (*m_xy)[static_cast<std::size_t>(2 * i)], y = (*m_xy)[static_cast<std::size_t>(2 * i + 1)];
        if (!std::isfinite(x) || !std::isfinite(y))
            continue;
        x0 = std::min(x0, x);
        x1 = std::max(x1, x);
        y0 = std::min(y0, y);
        y1 = std::max(y1, y);
    }
    m_bounds = x1 >= x0 ? QRectF(x0, y0, x1 - x0, y1 - y0) : QRectF();
    if (m_index.size() != static_cast<std::size_t>(size()))
        m_index.clear();
    if (m_flags.size() != static_cast<std::size_t>(size()))
        m_flags.clear();
}

void ScatterRaster::setColors(std::vector<QRgb> palette, std::vector<Glyph> glyphs, std::vector<std::uint8_t> index)
{
    m_palette = std::move(palette);
    m_palette.resize(std::clamp<std::size_t>(m_palette.size(), 1, 256), 0xff4477aa);
    m_glyphs = std::move(glyphs);
    m_glyphs.resize(m_palette.size(), Glyph::circle);
    m_index = std::move(index);
    for (std::uint8_t &i : m_index)
        if (i >= m_palette.size())
            i = 0;
}

void ScatterRaster::setFlags(std::vector<std::uint8_t> flags)
{
    m_flags = std::move(flags);
}

QRgb ScatterRaster::color(std::int64_t i) const
{
    return m_palette[m_index.empty() ? 0 : m_index[static_cast<std::size_t>(i)]];
}

Glyph ScatterRaster::glyph(std::int64_t i) const
{
    return m_glyphs[m_index.empty() ? 0 : m_index[static_cast<std::size_t>(i)]];
}

double ScatterRaster::radiusFor(std::int64_t points, double em)
{
    const double n = static_cast<double>(std::max<std::int64_t>(points, 1));
    const double r = n <= 100 ? 0.36 : n <= 1000 ? 0.26 : n <= 5000 ? 0.175 : n <= 20000 ? 0.135 : n <= 100000 ? 0.10 : 0.07;
    return r * em;
}

void ScatterRaster::render(QImage &image, const ScatterCamera &camera, double dpr, double radius, const QColor &background, double dim) const
{
    image.fill(background);
    const std::int64_t n = size();
    if (n == 0 || image.isNull())
        return;
    const int width = image.width(), height = image.height();
    const double r = radius * dpr;
    const bool dots = r < 0.9; // one pixel each
    const bool blocks = !dots && n > 150'000; // opaque squares: many points hide each other's edges anyway
    const int block = std::max(1, static_cast<int>(std::lround(2 * r)));

    // Pixel of every point, then bands of rows: each thread owns its rows, so nothing is locked or merged.
    m_pixels.resize(static_cast<std::size_t>(n));
    const auto sx = static_cast<float>(camera.scale * dpr), sy = -sx;
    const auto ox = static_cast<float>((camera.size.width() / 2 - camera.centerX * camera.scale) * dpr);
    const auto oy = static_cast<float>((camera.size.height() / 2 + camera.centerY * camera.scale) * dpr);
    const float *xy = m_xy->data();
    const std::uint8_t *flags = m_flags.empty() ? nullptr : m_flags.data();
    std::uint32_t *pixels = m_pixels.data();
    const auto limitX = static_cast<float>(width + kMargin), limitY = static_cast<float>(height + kMargin);
    parallelFor(n, 0, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) {
            const float x = xy[2 * i] * sx + ox, y = xy[2 * i + 1] * sy + oy;
            const bool in = x >= -kMargin && x < limitX && y >= -kMargin && y < limitY; // false for NaN
            const auto px = static_cast<std::uint32_t>(static_cast<int>((in ? x : 0) + kMargin));
            const auto py = static_cast<std::uint32_t>(static_cast<int>((in ? y : 0) + kMargin));
            pixels[i] = in && !(flags != nullptr && (flags[i] & hidden) != 0) ? (py << 16 | px) : kOutside;
        }
    });
    bool anyDimmed = false;
    if (flags != nullptr)
        anyDimmed = std::any_of(m_flags.begin(), m_flags.end(), [](std::uint8_t f) { return (f & dimmed) != 0; });
    std::array<QRgb, 256> full{}, pale{};
    for (std::size_t i = 0; i < m_palette.size(); ++i) {
        full[i] = m_palette[i] | 0xff000000u;
        pale[i] = mixed(QColor::fromRgb(m_palette[i]), background, dim).rgb();
    }
    std::array<Stamp, 8> stamps;
    if (!dots && !blocks)
        for (const Glyph g : m_glyphs)
            if (Stamp &s = stamps[static_cast<std::size_t>(g)]; s.alpha.empty())
                s = makeStamp(g, r);
    const std::uint8_t *index = m_index.empty() ? nullptr : m_index.data();
    auto *bits = reinterpret_cast<QRgb *>(image.bits());
    const std::int64_t stride = image.bytesPerLine() / 4;

    const auto pass = [&](int top, int bottom, bool paleOnes) {
        const std::array<QRgb, 256> &palette = paleOnes ? pale : full;
        for (std::int64_t i = 0; i < n; ++i) {
            const std::uint32_t at = pixels[i];
            if (at == kOutside || (anyDimmed && ((flags[i] & dimmed) != 0) != paleOnes))
                continue;
            const int x = static_cast<int>(at & 0xffff) - kMargin, y = static_cast<int>(at >> 16) - kMargin;
            const std::uint8_t entry = index != nullptr ? index[i] : std::uint8_t(0);
            const QRgb color = palette[entry];
            if (dots) {
                if (y >= top && y < bottom && x >= 0 && x < width)
                    bits[y * stride + x] = color;
                continue;
            }
            if (blocks) {
                const int x0 = std::max(0, x - block / 2), x1 = std::min(width, x - block / 2 + block);
                const int y0 = std::max(top, y - block / 2), y1 = std::min(bottom, y - block / 2 + block);
                for (int yy = y0; yy < y1; ++yy)
                    for (int xx = x0; xx < x1; ++xx)
                        bits[yy * stride + xx] = color;
                continue;
            }
            const Stamp &s = stamps[static_cast<std::size_t>(m_glyphs[entry])];
            const int side = 2 * s.radius + 1;
            const int x0 = std::max(0, x - s.radius), x1 = std::min(width, x + s.radius + 1);
            const int y0 = std::max(top, y - s.radius), y1 = std::min(bottom, y + s.radius + 1);
            for (int yy = y0; yy < y1; ++yy) {
                const std::uint8_t *alpha = s.alpha.data() + (yy - y + s.radius) * side - (x - s.radius);
                QRgb *line = bits + yy * stride;
                for (int xx = x0; xx < x1; ++xx)
                    if (const unsigned a = alpha[xx]; a == 255)
                        line[xx] = color;
                    else if (a != 0)
                        line[xx] = blend(line[xx], color, a);
            }
        }
    };
    // Few points are not worth waking other threads for.
    const int bands = n < 20'000 ? 1 : threadCount();
    parallelFor(height, bands, [&](std::int64_t begin, std::int64_t end, int) {
        if (anyDimmed)
            pass(static_cast<int>(begin), static_cast<int>(end), true);
        pass(static_cast<int>(begin), static_cast<int>(end), false);
    });
}

std::int64_t ScatterRaster::nearest(const ScatterCamera &camera, const QPointF &pixel, double reach) const
{
    const QPointF at = camera.toData(pixel);
    const auto x = static_cast<float>(at.x()), y = static_cast<float>(at.y());
    double best = reach / camera.scale;
    best *= best;
    auto limit = static_cast<float>(best);
    std::int64_t found = -1;
    const bool checked = !m_flags.empty();
    bool foundPlain = false;
    for (std::int64_t i = 0; i < size(); ++i) {
        const float dx = (*m_xy)[static_cast<std::size_t>(2 * i)] - x, dy = (*m_xy)[static_cast<std::size_t>(2 * i + 1)] - y;
        const float d = dx * dx + dy * dy;
        if (d > static_cast<float>(best))
            continue;
        const std::uint8_t f = checked ? m_flags[static_cast<std::size_t>(i)] : std::uint8_t(0);
        if ((f & hidden) != 0)
            continue;
        // What lies on top wins: emphasised before dimmed, then the nearer, then the later.
        const bool plain = (f & dimmed) == 0;
        if (plain == foundPlain ? d <= limit : plain) {
            limit = d;
            found = i;
            foundPlain = plain;
        }
    }
    return found;
}

std::vector<std::int64_t> ScatterRaster::inside(const ScatterCamera &camera, const QPainterPath &region) const
{
    std::vector<std::int64_t> found;
    const QRect box = region.boundingRect().toAlignedRect().adjusted(-1, -1, 1, 1).intersected(
        QRect(0, 0, static_cast<int>(std::ceil(camera.size.width())), static_cast<int>(std::ceil(camera.size.height()))));
    if (box.isEmpty())
        return found;
    // Two mask pixels per logical one: the edge is where the reader drew it.
    constexpr int fine = 2;
    QImage mask(box.size() * fine, QImage::Format_Grayscale8);
    mask.fill(0);
    {
        QPainter p(&mask);
        p.scale(fine, fine);
        p.translate(-box.topLeft());
        p.fillPath(region, Qt::white);
    }
    for (std::int64_t i = 0; i < size(); ++i) {
        if (!m_flags.empty() && (m_flags[static_cast<std::size_t>(i)] & hidden) != 0)
            continue;
        const QPointF p = camera.toPixel((*m_xy)[static_cast<std::size_t>(2 * i)], (*m_xy)[static_cast<std::size_t>(2 * i + 1)]);
        const double x = (p.x() - box.left()) * fine, y = (p.y() - box.top()) * fine;
        if (!(x >= 0 && y >= 0 && x < mask.width() && y < mask.height()))
            continue;
        if (mask.constScanLine(static_cast<int>(y))[static_cast<int>(x)] >= 128)
            found.push_back(i);
    }
    return found;
}

} // namespace spectra
