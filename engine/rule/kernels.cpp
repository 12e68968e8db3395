// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/kernels.h"

#include "engine/rule/vectormath.h"

#include <algorithm>
#include <atomic>
#include <cmath>

namespace spectra::rule {
namespace {

#define SPECTRA_INLINE [[gnu::always_inline]] inline

template <int Bytes> struct Vector {
    typedef float Type __attribute__((vector_size(Bytes)));
    typedef float Loose __attribute__((vector_size(Bytes), aligned(4), may_alias)); ///< at any float's address
    typedef int Mask __attribute__((vector_size(Bytes)));
    static constexpr int kLanes = Bytes / 4;
};

/// `Rows` rows against `Panels` panels: Rows·Panels·32 sums in registers. x holds the rows interleaved ([k][Rows]) or, for one row,
/// as it is. The unroll pragmas are what keeps the sums in registers: g++ peels these loops too late by itself.
template <int Bytes, int Rows, int Panels>
SPECTRA_INLINE void tile(const float *panels, std::int64_t depth, const float *bias, const float *x, float *y, std::int64_t yStride)
{
    using V = typename Vector<Bytes>::Type;
    using Loose = typename Vector<Bytes>::Loose;
    constexpr int kLanes = Vector<Bytes>::kLanes, kPer = static_cast<int>(kPanel) / kLanes;
    V sum[Rows][Panels * kPer];
#pragma GCC unroll 64
    for (int v = 0; v < Panels * kPer; ++v)
#pragma GCC unroll 64
        for (int r = 0; r < Rows; ++r)
            sum[r][v] = *reinterpret_cast<const Loose *>(bias + v * kLanes);
    for (std::int64_t k = 0; k < depth; ++k) {
#pragma GCC unroll 64
        for (int p = 0; p < Panels; ++p)
#pragma GCC unroll 64
            for (int v = 0; v < kPer; ++v) {
                const V weights = *reinterpret_cast<const Loose *>(panels + (p * depth + k) * kPanel + v * kLanes);
#pragma GCC unroll 64
                for (int r = 0; r < Rows; ++r)
                    sum[r][p * kPer + v] += weights * x[k * Rows + r];
            }
    }
#pragma GCC unroll 64
    for (int r = 0; r < Rows; ++r)
#pragma GCC unroll 64
        for (int v = 0; v < Panels * kPer; ++v)
            *reinterpret_cast<Loose *>(y + r * yStride + v * kLanes) = sum[r][v];
}

/// All panels for one group of `Rows` interleaved rows.
template <int Bytes, int Rows, int Panels>
SPECTRA_INLINE void sweep(const float *panels, const float *bias, std::int64_t depth, std::int64_t first, std::int64_t last, const float *x, float *y,
                   std::int64_t yStride)
{
    std::int64_t p = first;
    for (; p + Panels <= last; p += Panels)
        tile<Bytes, Rows, Panels>(panels + p * depth * kPanel, depth, bias + p * kPanel, x, y + p * kPanel, yStride);
    if constexpr (Panels > 1)
        for (; p < last; ++p)
            tile<Bytes, Rows, 1>(panels + p * depth * kPanel, depth, bias + p * kPanel, x, y + p * kPanel, yStride);
}

template <int Rows> SPECTRA_INLINE void interleave(const float *x, std::int64_t stride, std::int64_t depth, float *out)
{
    for (std::int64_t k = 0; k < depth; ++k)
        for (int r = 0; r < Rows; ++r)
            out[k * Rows + r] = x[r * stride + k];
}

constexpr std::int64_t kBlockRows = 96, kBuffer = 96 * 1024;

/// Blocks of rows are interleaved once and then meet every panel, so that a panel is fetched once per block.
template <int Bytes, int Wide, int Middle>
SPECTRA_INLINE void projectRows(const float *panels, const float *bias, std::int64_t depth, std::int64_t first, std::int64_t last, const float *x,
                         std::int64_t xStride, std::int64_t n, float *y, std::int64_t yStride)
{
    constexpr int kOne = Bytes == 64 ? 4 : Bytes == 32 ? 2 : 1;
    thread_local float buffer[kBuffer];
    const bool fits = depth * Wide <= kBuffer;
    const std::int64_t block = std::min(kBlockRows, kBuffer / depth);
    std::int64_t row = 0;
    while (fits && n - row >= Wide) {
        const std::int64_t rows = std::min(block, n - row) / Wide * Wide;
        for (std::int64_t r = 0; r < rows; r += Wide)
            interleave<Wide>(x + (row + r) * xStride, xStride, depth, buffer + r * depth);
        for (std::int64_t p = first; p < last; ++p)
            for (std::int64_t r = 0; r < rows; r += Wide)
                tile<Bytes, Wide, 1>(panels + p * depth * kPanel, depth, bias + p * kPanel, buffer + r * depth, y + (row + r) * yStride + p * kPanel,
                                     yStride);
        row += rows;
    }
    if constexpr (Bytes == 64)
        while (fits && n - row >= 8) {
            interleave<8>(x + row * xStride, xStride, depth, buffer);
            sweep<Bytes, 8, 1>(panels, bias, depth, first, last, buffer, y + row * yStride, yStride);
            row += 8;
        }
    while (fits && n - row >= Middle) {
        interleave<Middle>(x + row * xStride, xStride, depth, buffer);
        sweep<Bytes, Middle, (Bytes == 64 ? 2 : 1)>(panels, bias, depth, first, last, buffer, y + row * yStride, yStride);
        row += Middle;
    }
    for (; row < n; ++row)
        sweep<Bytes, 1, kOne>(panels, bias, depth, first, last, x + row * xStride, y + row * yStride, yStride);
}

/// Blocks of kOuterDepth rows of A and B are packed, A in groups of `Rows` columns and B in panels of 32, and multiplied in registers.
template <int Bytes, int Rows>
SPECTRA_INLINE void outerProduct(const float *a, std::int64_t aStride, std::int64_t m, const float *b, std::int64_t bStride, std::int64_t columns,
                                 std::int64_t n, float *c, std::int64_t cStride)
{
    constexpr std::int64_t kOuterDepth = 256, kOuterRows = 24 * 12;
    alignas(64) thread_local float packedA[kOuterDepth * kOuterRows], packedB[kOuterDepth * kPanel], zero[kPanel];
    alignas(64) float sums[Rows * kPanel];
    for (std::int64_t k0 = 0; k0 < n; k0 += kOuterDepth) {
        const std::int64_t depth = std::min(kOuterDepth, n - k0);
        for (std::int64_t i0 = 0; i0 < m; i0 += kOuterRows) {
            const std::int64_t rows = std::min(kOuterRows, m - i0);
            for (std::int64_t i = 0; i < rows; i += Rows) {
                const std::int64_t here = std::min<std::int64_t>(Rows, rows - i);
                float *out = packedA + i * kOuterDepth;
                for (std::int64_t k = 0; k < depth; ++k)
                    for (std::int64_t r = 0; r < Rows; ++r)
                        out[k * Rows + r] = r < here ? a[(k0 + k) * aStride + i0 + i + r] : 0.0f;
            }
            for (std::int64_t j = 0; j < columns; j += kPanel) {
                const std::int64_t width = std::min(kPanel, columns - j);
                for (std::int64_t k = 0; k < depth; ++k)
                    for (std::int64_t l = 0; l < kPanel; ++l)
                        packedB[k * kPanel + l] = l < width ? b[(k0 + k) * bStride + j + l] : 0.0f;
                for (std::int64_t i = 0; i < rows; i += Rows) {
                    tile<Bytes, Rows, 1>(packedB, depth, zero, packedA + i * kOuterDepth, sums, kPanel);
                    const std::int64_t here = std::min<std::int64_t>(Rows, rows - i);
                    for (std::int64_t r = 0; r < here; ++r)
                        for (std::int64_t l = 0; l < width; ++l)
                            c[(i0 + i + r) * cStride + j + l] += sums[r * kPanel + l];
                }
            }
        }
    }
}

SPECTRA_INLINE void gateRow(const float *__restrict gi, const float *__restrict gh, std::int64_t width, float *__restrict h)
{
    for (std::int64_t i = 0; i < width; ++i) {
        const float r = vsigmoid(gi[i] + gh[i]);
        const float z = vsigmoid(gi[width + i] + gh[width + i]);
        const float n = vtanh(gi[2 * width + i] + r * gh[2 * width + i]);
        h[i] = n + z * (h[i] - n);
    }
}

/// Sum of a vector's lanes, by halves. The masks are literals because g++ does not fold computed ones.
template <int Bytes> SPECTRA_INLINE float lanesSum(typename Vector<Bytes>::Type v)
{
    using M = typename Vector<Bytes>::Mask;
    if constexpr (Bytes == 64) {
        v += __builtin_shuffle(v, M{8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7});
        v += __builtin_shuffle(v, M{4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11});
        v += __builtin_shuffle(v, M{2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13});
        v += __builtin_shuffle(v, M{1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14});
    } else if constexpr (Bytes == 32) {
        v += __builtin_shuffle(v, M{4, 5, 6, 7, 0, 1, 2, 3});
        v += __builtin_shuffle(v, M{2, 3, 0, 1, 6, 7, 4, 5});
        v += __builtin_shuffle(v, M{1, 0, 3, 2, 5, 4, 7, 6});
    } else {
        v += __builtin_shuffle(v, M{2, 3, 0, 1});
        v += __builtin_shuffle(v, M{1, 0, 3, 2});
    }
    return v[0];
}

template <int Bytes> SPECTRA_INLINE void cosineRow(const float *r, const float *x, std::int64_t experts, std::int64_t dim, float *s)
{
    using V = typename Vector<Bytes>::Type;
    using Loose = typename Vector<Bytes>::Loose;
    constexpr int kLanes = Vector<Bytes>::kLanes;
    for (std::int64_t e = 0; e < experts; ++e, r += dim, x += dim) {
        V rx{}, rr{}, xx{};
        std::int64_t i = 0;
        for (; i + kLanes <= dim; i += kLanes) {
            const V a = *reinterpret_cast<const Loose *>(r + i), b = *reinterpret_cast<const Loose *>(x + i);
            rx += a * b;
            rr += a * a;
            xx += b * b;
        }
        float srx = lanesSum<Bytes>(rx), srr = lanesSum<Bytes>(rr), sxx = lanesSum<Bytes>(xx);
        for (; i < dim; ++i) {
            srx += r[i] * x[i];
            srr += r[i] * r[i];
            sxx += x[i] * x[i];
        }
        const float norms = std::sqrt(srr) * std::sqrt(sxx);
        s[e] = srx / (norms > 1e-8f ? norms : 1e-8f);
    }
}

/// With `Vectors` > 0 a row is that many vectors, and potentials and sums stay in registers.
template <int Bytes, int Vectors>
SPECTRA_INLINE void transportRows(const float *k, std::int64_t n, std::int64_t padded, const float *v, float *sums)
{
    using V = typename Vector<Bytes>::Type;
    using Loose = typename Vector<Bytes>::Loose;
    constexpr int kLanes = Vector<Bytes>::kLanes;
    if constexpr (Vectors > 0) {
        V potential[Vectors], sum[Vectors];
#pragma GCC unroll 16
        for (int j = 0; j < Vectors; ++j) {
            potential[j] = *reinterpret_cast<const Loose *>(v + j * kLanes);
            sum[j] = V{};
        }
        for (std::int64_t t = 0; t < n; ++t, k += Vectors * kLanes) {
            V row[Vectors], dot = V{};
#pragma GCC unroll 16
            for (int j = 0; j < Vectors; ++j) {
                row[j] = *reinterpret_cast<const Loose *>(k + j * kLanes);
                dot += row[j] * potential[j];
            }
            const float u = 1.0f / lanesSum<Bytes>(dot);
#pragma GCC unroll 16
            for (int j = 0; j < Vectors; ++j)
                sum[j] += row[j] * u;
        }
#pragma GCC unroll 16
        for (int j = 0; j < Vectors; ++j)
            *reinterpret_cast<Loose *>(sums + j * kLanes) = sum[j];
    } else {
        for (std::int64_t i = 0; i < padded; ++i)
            sums[i] = 0;
        for (std::int64_t t = 0; t < n; ++t, k += padded) {
            V dot = V{};
            for (std::int64_t i = 0; i < padded; i += kLanes)
                dot += *reinterpret_cast<const Loose *>(k + i) * *reinterpret_cast<const Loose *>(v + i);
            const float u = 1.0f / lanesSum<Bytes>(dot);
            for (std::int64_t i = 0; i < padded; i += kLanes)
                *reinterpret_cast<Loose *>(sums + i) += *reinterpret_cast<const Loose *>(k + i) * u;
        }
    }
}

template <int Bytes> SPECTRA_INLINE void transportAny(const float *k, std::int64_t n, std::int64_t padded, const float *v, float *sums)
{
    constexpr std::int64_t kLanes = Vector<Bytes>::kLanes;
    switch (padded / kLanes) {
    case 1: transportRows<Bytes, 1>(k, n, padded, v, sums); break;
    case 2: transportRows<Bytes, 2>(k, n, padded, v, sums); break;
    case 4: transportRows<Bytes, 4>(k, n, padded, v, sums); break;
    case 8: transportRows<Bytes, (Bytes == 64 ? 8 : 0)>(k, n, padded, v, sums); break;
    default: transportRows<Bytes, 0>(k, n, padded, v, sums); break;
    }
}

#define SPECTRA_LEVEL(NAME, TARGET, BYTES, WIDE, MIDDLE)                                                                          \
    TARGET void project##NAME(const float *panels, const float *bias, std::int64_t depth, std::int64_t first, std::int64_t last,  \
                              const float *x, std::int64_t xStride, std::int64_t n, float *y, std::int64_t yStride)               \
    {                                                                                                                             \
        projectRows<BYTES, WIDE, MIDDLE>(panels, bias, depth, first, last, x, xStride, n, y, yStride);                            \
    }                                                                                                                             \
    TARGET void outer##NAME(const float *a, std::int64_t aStride, std::int64_t m, const float *b, std::int64_t bStride,           \
                            std::int64_t columns, std::int64_t n, float *c, std::int64_t cStride)                                 \
    {                                                                                                                             \
        outerProduct<BYTES, WIDE>(a, aStride, m, b, bStride, columns, n, c, cStride);                                             \
    }                                                                                                                             \
    TARGET void gates##NAME(const float *gi, const float *gh, std::int64_t width, float *h)                                       \
    {                                                                                                                             \
        gateRow(gi, gh, width, h);                                                                                                \
    }                                                                                                                             \
    TARGET void cosines##NAME(const float *r, const float *x, std::int64_t experts, std::int64_t dim, float *s)                   \
    {                                                                                                                             \
        cosineRow<BYTES>(r, x, experts, dim, s);                                                                                  \
    }                                                                                                                             \
    TARGET void transport##NAME(const float *k, std::int64_t n, std::int64_t padded, const float *v, float *sums)                 \
    {                                                                                                                             \
        transportAny<BYTES>(k, n, padded, v, sums);                                                                               \
    }

#if defined(__x86_64__)
SPECTRA_LEVEL(V4, __attribute__((target("arch=x86-64-v4,prefer-vector-width=512"))), 64, 12, 4)
SPECTRA_LEVEL(V3, __attribute__((target("arch=x86-64-v3"))), 32, 3, 2)
#endif
SPECTRA_LEVEL(Base, , 16, 2, 1)

constexpr Kernels kBase = {projectBase, gatesBase, cosinesBase, transportBase, outerBase};
#if defined(__x86_64__)
constexpr Kernels kV3 = {projectV3, gatesV3, cosinesV3, transportV3, outerV3}, kV4 = {projectV4, gatesV4, cosinesV4, transportV4, outerV4};
#endif

std::atomic<int> g_lowered{99};

} // namespace

Level bestLevel()
{
#if defined(__x86_64__)
    static const Level best = [] {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("x86-64-v4"))
            return Level::v4;
        return __builtin_cpu_supports("x86-64-v3") ? Level::v3 : Level::baseline;
    }();
    return best;
#else
    return Level::baseline;
#endif
}

Level level()
{
    return static_cast<Level>(std::min(static_cast<int>(bestLevel()), g_lowered.load(std::memory_order_relaxed)));
}

void setLevel(Level wanted)
{
    g_lowered.store(static_cast<int>(wanted));
}

const Kernels &kernels()
{
#if defined(__x86_64__)
    switch (level()) {
    case Level::v4: return kV4;
    case Level::v3: return kV3;
    case Level::baseline: break;
    }
#endif
    return kBase;
}

} // namespace spectra::rule
