// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/repulsion.h"

#include "analysis/targetclones.h"
#include "engine/core/parallel.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace spectra::detail {
namespace {

constexpr int kSmallest = 128, kLargest = 8192; // lengths of the transform
constexpr int kMargin = 4;                      // cells that the splines reach beyond the points

using Quad = float __attribute__((vector_size(16)));
using Octet = float __attribute__((vector_size(32)));

/// Cubic B-spline weights of the four cells around a point at fraction t of its cell.
SPECTRA_INLINE void splineWeights(float t, float *w)
{
    const float u = 1 - t;
    w[0] = u * u * u * (1.0f / 6);
    w[1] = (4 - 3 * t * t * (2 - t)) * (1.0f / 6);
    w[2] = (4 - 3 * u * u * (2 - u)) * (1.0f / 6);
    w[3] = t * t * t * (1.0f / 6);
}

struct Grid {
    float originX, originY, perCell;
    int stride;
};

SPECTRA_CLONES void spreadPoints(const float *y, std::int64_t first, std::int64_t last, const Grid &grid,
                                 float *density)
{
    for (std::int64_t i = first; i < last; ++i) {
        const float gx = (y[2 * i] - grid.originX) * grid.perCell, gy = (y[2 * i + 1] - grid.originY) * grid.perCell;
        const int ix = static_cast<int>(gx), iy = static_cast<int>(gy);
        float wx[4], wy[4];
        splineWeights(gx - static_cast<float>(ix), wx);
        splineWeights(gy - static_cast<float>(iy), wy);
        float *to = density + static_cast<std::ptrdiff_t>(ix - 1) * grid.stride + (iy - 1);
        for (int a = 0; a < 4; ++a)
            for (int b = 0; b < 4; ++b)
                to[a * grid.stride + b] += wx[a] * wy[b];
    }
}

SPECTRA_CLONES void gatherForces(const float *y, std::int64_t first, std::int64_t last, const Grid &grid,
                                 const float *field, float *force)
{
    for (std::int64_t i = first; i < last; ++i) {
        const float gx = (y[2 * i] - grid.originX) * grid.perCell, gy = (y[2 * i + 1] - grid.originY) * grid.perCell;
        const int ix = static_cast<int>(gx), iy = static_cast<int>(gy);
        float wx[4], wy[4];
        splineWeights(gx - static_cast<float>(ix), wx);
        splineWeights(gy - static_cast<float>(iy), wy);
        const float *from = field + 2 * (static_cast<std::ptrdiff_t>(ix - 1) * grid.stride + (iy - 1));
        float fx = 0, fy = 0;
        for (int a = 0; a < 4; ++a) {
            float rowX = 0, rowY = 0;
            for (int b = 0; b < 4; ++b) {
                rowX += wy[b] * from[2 * (a * grid.stride + b)];
                rowY += wy[b] * from[2 * (a * grid.stride + b) + 1];
            }
            fx += wx[a] * rowX;
            fy += wx[a] * rowY;
        }
        force[2 * i] = fx;
        force[2 * i + 1] = fy;
    }
}

/// Real rows x of 32 neighbouring y become sixteen complex ones: even y real, odd y imaginary.
SPECTRA_CLONES void loadPairs(const float *density, int rows, int stride, Lanes *to)
{
    constexpr IntVector even{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
    constexpr IntVector odd{1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
    for (int x = 0; x < rows; ++x) {
        Vector a, b;
        __builtin_memcpy(&a, density + static_cast<std::ptrdiff_t>(x) * stride, sizeof a);
        __builtin_memcpy(&b, density + static_cast<std::ptrdiff_t>(x) * stride + kLanes, sizeof b);
        to[x].re = __builtin_shuffle(a, b, even);
        to[x].im = __builtin_shuffle(a, b, odd);
    }
}

/// The spectra of the two real rows that were packed into one: kx = 0 … M/2, even and odd y apart.
SPECTRA_CLONES void splitPairs(const Lanes *z, int length, Lanes *half, std::ptrdiff_t step)
{
    for (int k = 0; k <= length / 2; ++k) {
        const Lanes &a = z[k], &b = z[k == 0 ? 0 : length - k];
        Lanes *to = half + k * step;
        to[0].re = 0.5f * (a.re + b.re);
        to[0].im = 0.5f * (a.im - b.im);
        to[1].re = 0.5f * (a.im + b.im);
        to[1].im = 0.5f * (b.re - a.re);
    }
}

/// Sixteen rows kx of the half spectrum as columns: to[y] holds sixteen kx.
SPECTRA_CLONES void loadRows(const Lanes *half, int rows, std::ptrdiff_t step, int blocks, Lanes *to)
{
    for (int b = 0; b < blocks; ++b)
        for (int parity = 0; parity < 2; ++parity) {
            Vector re[kLanes], im[kLanes];
            for (int r = 0; r < kLanes; ++r) {
                const Lanes &from = half[(r < rows ? r : rows - 1) * step + 2 * b + parity];
                re[r] = from.re;
                im[r] = from.im;
            }
            transpose(re);
            transpose(im);
            for (int l = 0; l < kLanes; ++l) {
                to[32 * b + 2 * l + parity].re = re[l];
                to[32 * b + 2 * l + parity].im = im[l];
            }
        }
}

/// Spectra of both forces, and this group's part of Z: Σ weight |g|² K.
SPECTRA_CLONES double applyKernels(const Lanes *g, const KernelSpectra *kernel, int length, int firstRow, Lanes *fx,
                                   Lanes *fy)
{
    Vector weight; // rows between 0 and M/2 stand for their mirror image too
    for (int l = 0; l < kLanes; ++l) {
        const int k = firstRow + l;
        weight[l] = k > length / 2 ? 0.0f : (k == 0 || k == length / 2) ? 1.0f : 2.0f;
    }
    double total = 0;
    for (int first = 0; first < length; first += 32) {
        Vector sum = weight * 0.0f;
        for (int k = first; k < std::min(length, first + 32); ++k) {
            sum += (g[k].re * g[k].re + g[k].im * g[k].im) * kernel[k].z;
            fx[k].re = -g[k].im * kernel[k].x;
            fx[k].im = g[k].re * kernel[k].x;
            fy[k].re = -g[k].im * kernel[k].y;
            fy[k].im = g[k].re * kernel[k].y;
        }
        sum *= weight;
        for (int l = 0; l < kLanes; ++l)
            total += static_cast<double>(sum[l]);
    }
    return total;
}

/// Both force fields as one complex field, rows kx and M − kx.
SPECTRA_CLONES void storeMixed(const Lanes *fx, const Lanes *fy, int blocks, int firstRow, int rows, int length,
                               Lanes *mixed)
{
    for (int b = 0; b < blocks; ++b) {
        Vector re[kLanes], im[kLanes], mirrorRe[kLanes], mirrorIm[kLanes];
        for (int l = 0; l < kLanes; ++l) {
            const Lanes &p = fx[kLanes * b + l], &q = fy[kLanes * b + l];
            re[l] = p.re - q.im;
            im[l] = p.im + q.re;
            mirrorRe[l] = p.re + q.im;
            mirrorIm[l] = q.re - p.im;
        }
        transpose(re);
        transpose(im);
        transpose(mirrorRe);
        transpose(mirrorIm);
        for (int r = 0; r < rows; ++r) {
            const int k = firstRow + r;
            Lanes &to = mixed[static_cast<std::ptrdiff_t>(k) * blocks + b];
            to.re = re[r];
            to.im = im[r];
            if (k != 0 && k != length - k) {
                Lanes &mirror = mixed[static_cast<std::ptrdiff_t>(length - k) * blocks + b];
                mirror.re = mirrorRe[r];
                mirror.im = mirrorIm[r];
            }
        }
    }
}

SPECTRA_CLONES void loadColumn(const Lanes *mixed, int length, int blocks, Lanes *to)
{
    for (int k = 0; k < length; ++k) {
        to[k].re = mixed[static_cast<std::ptrdiff_t>(k) * blocks].re;
        to[k].im = mixed[static_cast<std::ptrdiff_t>(k) * blocks].im;
    }
}

SPECTRA_CLONES void storeField(const Lanes *from, int rows, int stride, float *field)
{
    constexpr IntVector low{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    constexpr IntVector high{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    for (int x = 0; x < rows; ++x) {
        const Vector a = __builtin_shuffle(from[x].re, from[x].im, low),
                     b = __builtin_shuffle(from[x].re, from[x].im, high);
        __builtin_memcpy(field + 2 * static_cast<std::ptrdiff_t>(x) * stride, &a, sizeof a);
        __builtin_memcpy(field + 2 * static_cast<std::ptrdiff_t>(x) * stride + kLanes, &b, sizeof b);
    }
}

SPECTRA_CLONES void addGrid(float *to, const float *from, std::int64_t first, std::int64_t last)
{
    for (std::int64_t i = first; i < last; ++i)
        to[i] += from[i];
}

/// Working space of a thread, kept from call to call: clearing fresh memory would cost as much as the transforms.
Lanes *scratch(int which, std::size_t size)
{
    thread_local std::vector<Lanes> space[5];
    if (space[which].size() < size)
        space[which].resize(size);
    return space[which].data();
}

void clear(Lanes *first, Lanes *last)
{
    if (first < last)
        __builtin_memset(static_cast<void *>(first), 0, static_cast<std::size_t>(last - first) * sizeof(Lanes));
}

} // namespace

void Repulsion::prepare(const float *y, std::int64_t n)
{
    float lowX = y[0], highX = y[0], lowY = y[1], highY = y[1];
    for (std::int64_t i = 1; i < n; ++i) {
        lowX = std::min(lowX, y[2 * i]);
        highX = std::max(highX, y[2 * i]);
        lowY = std::min(lowY, y[2 * i + 1]);
        highY = std::max(highY, y[2 * i + 1]);
    }
    const float span = std::max(highX - lowX, highY - lowY);
    float spacing = m_wanted;
    // While the map is small, a grid of the smallest size can be finer: what is close together then repels exactly.
    for (int halving = 0; halving < 2 && span / spacing < static_cast<float>(kSmallest / 4 - kMargin); ++halving)
        spacing /= 2;
    spacing = std::max(spacing, span / static_cast<float>(kLargest / 2 - 2 * kMargin));
    const int needed = static_cast<int>(span / spacing) + 2 * kMargin + 1;
    // A little room to grow, so that the kernels are rebuilt seldom; shrinking only pays when it is by much.
    const bool fits =
        m_fft && spacing == m_spacing && needed <= m_cells && (needed > m_cells * 7 / 10 || m_cells <= kSmallest / 2);
    if (!fits) {
        m_spacing = spacing;
        const int length = std::min(kLargest, BatchFft::nextLength(std::max(kSmallest, 2 * needed + needed / 16)));
        if (!m_fft || m_fft->length() != length)
            m_fft = std::make_unique<BatchFft>(length);
        m_cells = length / 2;
        m_stride = (m_cells + 31) / 32 * 32;
        buildKernels();
    }
    const float room = static_cast<float>(m_cells) * m_spacing;
    m_originX = (lowX + highX - room) / 2;
    m_originY = (lowY + highY - room) / 2;
}

void Repulsion::buildKernels()
{
    const int length = m_fft->length(), half = length / 2, groups = (half + 1 + kLanes - 1) / kLanes;
    // The even kernel 1/(1+r²) gives the real part of the spectrum of their sum, the odd one x/(1+r²)² the imaginary
    // part.
    const int stride = (length + 31) / 32 * 32, blocks = stride / 32;
    std::vector<float> kernel(static_cast<std::size_t>(length) * static_cast<std::size_t>(stride), 0.0f);
    const auto wrapped = [&](int i) {
        return static_cast<double>(i <= half ? i : i - length) * static_cast<double>(m_spacing);
    };
    for (int x = 0; x < length; ++x)
        for (int y = 0; y < length; ++y) {
            const double dx = wrapped(x), dy = wrapped(y), r = 1 / (1 + dx * dx + dy * dy);
            kernel[static_cast<std::size_t>(x) * static_cast<std::size_t>(stride) + static_cast<std::size_t>(y)] =
                static_cast<float>(r + (x == half ? 0.0 : dx * r * r));
        }
    std::vector<Lanes> spectrum(static_cast<std::size_t>(half + 1) * static_cast<std::size_t>(2 * blocks));
    parallelFor(blocks, blocks, [&](std::int64_t begin, std::int64_t end, int) {
        Lanes *const a = scratch(0, static_cast<std::size_t>(length)), *const b =
                                                                           scratch(1, static_cast<std::size_t>(length));
        for (auto block = static_cast<int>(begin); block < static_cast<int>(end); ++block) {
            loadPairs(kernel.data() + 32 * block, length, stride, a);
            splitPairs(m_fft->forward(a, b), length, spectrum.data() + 2 * block, 2 * blocks);
        }
    });
    std::vector<double> symbol; // of the spline, squared: once for spreading, once for gathering
    for (int k = 0; k < length; ++k) {
        const double s = (2 + std::cos(2 * std::numbers::pi * k / length)) / 3;
        symbol.push_back(1 / (s * s));
    }
    const double scale = 1 / (static_cast<double>(length) * length);
    const auto size = static_cast<std::size_t>(length);
    std::vector<float> even(static_cast<std::size_t>(half + 1) * size), odd(even.size());
    parallelFor(groups, groups, [&](std::int64_t begin, std::int64_t end, int) {
        Lanes *const a = scratch(0, static_cast<std::size_t>(stride)), *const b =
                                                                           scratch(1, static_cast<std::size_t>(stride));
        for (auto g = static_cast<int>(begin); g < static_cast<int>(end); ++g) {
            const int rows = std::min(kLanes, half + 1 - g * kLanes);
            loadRows(spectrum.data() + static_cast<std::ptrdiff_t>(g) * kLanes * 2 * blocks, rows, 2 * blocks, blocks,
                     a);
            const Lanes *s = m_fft->forward(a, b);
            for (int r = 0; r < rows; ++r)
                for (int k = 0; k < length; ++k) {
                    const auto row = static_cast<std::size_t>(g * kLanes + r);
                    const double factor = scale * symbol[row] * symbol[static_cast<std::size_t>(k)];
                    even[row * size + static_cast<std::size_t>(k)] =
                        static_cast<float>(factor * static_cast<double>(s[k].re[r]));
                    odd[row * size + static_cast<std::size_t>(k)] =
                        static_cast<float>(factor * static_cast<double>(s[k].im[r]));
                }
        }
    });
    m_kernels.assign(static_cast<std::size_t>(groups) * size, KernelSpectra{});
    for (int x = 0; x <= half; ++x)
        for (int y = 0; y < length; ++y) {
            KernelSpectra &to = m_kernels[static_cast<std::size_t>(x / kLanes) * size + static_cast<std::size_t>(y)];
            to.z[x % kLanes] = even[static_cast<std::size_t>(x) * size + static_cast<std::size_t>(y)];
            to.x[x % kLanes] = x == half ? 0.0f : odd[static_cast<std::size_t>(x) * size + static_cast<std::size_t>(y)];
            // The kernel of y is that of x with the axes exchanged, odd in y.
            const int folded = y <= half ? y : length - y;
            const float value = odd[static_cast<std::size_t>(folded) * size + static_cast<std::size_t>(x)];
            to.y[x % kLanes] = y == half ? 0.0f : y < half ? value : -value;
        }
    m_density.clear();
    m_field.assign(2 * static_cast<std::size_t>(m_cells) * static_cast<std::size_t>(m_stride), 0.0f);
    m_half.assign(static_cast<std::size_t>(half + 1) * static_cast<std::size_t>(m_stride / 16), Lanes{});
    m_mixed.assign(size * static_cast<std::size_t>(m_stride / 16), Lanes{});
    m_sums.assign(static_cast<std::size_t>(groups), 0.0);
}

void Repulsion::spread(const float *y, std::int64_t n)
{
    // The number of partial grids hangs on n alone, so that the sum is the same at any thread count.
    const int parts = static_cast<int>(std::clamp<std::int64_t>(n / 2048, 1, 8));
    const std::size_t size = static_cast<std::size_t>(m_cells) * static_cast<std::size_t>(m_stride);
    m_density.resize(static_cast<std::size_t>(parts));
    const Grid grid{m_originX, m_originY, 1 / m_spacing, m_stride};
    parallelFor(n, parts, [&](std::int64_t begin, std::int64_t end, int part) {
        std::vector<float> &density = m_density[static_cast<std::size_t>(part)];
        density.assign(size, 0.0f);
        spreadPoints(y, begin, end, grid, density.data());
    });
    if (parts > 1)
        parallelFor(static_cast<std::int64_t>(size), 8, [&](std::int64_t begin, std::int64_t end, int) {
            for (int p = 1; p < parts; ++p)
                addGrid(m_density[0].data(), m_density[static_cast<std::size_t>(p)].data(), begin, end);
        });
}

double Repulsion::convolve(const std::stop_token &stop)
{
    const int length = m_fft->length(), half = length / 2, blocks = m_stride / 32, columns = m_stride / 16;
    const int groups = (half + 1 + kLanes - 1) / kLanes;
    const auto size = static_cast<std::size_t>(std::max(length, m_stride));
    const std::ptrdiff_t step = 2 * blocks;
    parallelFor(blocks, blocks, [&](std::int64_t begin, std::int64_t end, int) {
        Lanes *const a = scratch(0, size), *const b = scratch(1, size);
        for (auto block = static_cast<int>(begin); block < static_cast<int>(end); ++block) {
            loadPairs(m_density[0].data() + 32 * block, m_cells, m_stride, a);
            clear(a + m_cells, a + length);
            splitPairs(m_fft->forward(a, b), length, m_half.data() + 2 * block, step);
        }
    });
    if (stop.stop_requested())
        return 1;
    parallelFor(groups, groups, [&](std::int64_t begin, std::int64_t end, int) {
        Lanes *const a = scratch(0, size), *const b = scratch(1, size), *const c = scratch(2, size),
                     *const d = scratch(3, size), *const e = scratch(4, size);
        for (auto g = static_cast<int>(begin); g < static_cast<int>(end); ++g) {
            const int rows = std::min(kLanes, half + 1 - g * kLanes);
            loadRows(m_half.data() + static_cast<std::ptrdiff_t>(g) * kLanes * step, rows, step, blocks, a);
            clear(a + m_cells, a + length);
            const Lanes *spectrum = m_fft->forward(a, b);
            m_sums[static_cast<std::size_t>(g)] = applyKernels(
                spectrum, m_kernels.data() + static_cast<std::size_t>(g) * static_cast<std::size_t>(length), length,
                g * kLanes, c, d);
            Lanes *fx = m_fft->inverse(c, e);
            Lanes *spare = spectrum == a ? a : b; // no longer needed
            Lanes *fy = m_fft->inverse(d, spare);
            storeMixed(fx, fy, columns, g * kLanes, rows, length, m_mixed.data());
        }
    });
    if (stop.stop_requested())
        return 1;
    parallelFor(columns, columns, [&](std::int64_t begin, std::int64_t end, int) {
        Lanes *const a = scratch(0, size), *const b = scratch(1, size);
        for (auto c = static_cast<int>(begin); c < static_cast<int>(end); ++c) {
            loadColumn(m_mixed.data() + c, length, columns, a);
            storeField(m_fft->inverse(a, b), m_cells, m_stride, m_field.data() + 2 * kLanes * c);
        }
    });
    double z = 0;
    for (const double s : m_sums)
        z += s;
    return z;
}

double Repulsion::evaluate(const float *y, std::int64_t n, float *force, const std::stop_token &stop)
{
    if (n <= 0)
        return 0;
    prepare(y, n);
    spread(y, n);
    const double z = convolve(stop) - static_cast<double>(n);
    const Grid grid{m_originX, m_originY, 1 / m_spacing, m_stride};
    parallelFor(
        n, static_cast<int>(std::clamp<std::int64_t>(n / 1024, 1, 64)),
        [&](std::int64_t begin, std::int64_t end, int) { gatherForces(y, begin, end, grid, m_field.data(), force); });
    return std::max(z, 1e-12);
}

} // namespace spectra::detail
