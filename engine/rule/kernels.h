// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

/// The inner loops that decide the speed of CPU routing, one copy per x86-64 level, chosen at run time.
namespace spectra::rule {

inline constexpr std::int64_t kPanel = 32; ///< outputs per panel of a packed matrix

/// 4 = AVX-512, 3 = AVX2 and FMA, 1 = baseline.
enum class Level { baseline = 1, v3 = 3, v4 = 4 };

/// y[r, 32·p + j] = bias[32·p + j] + Σ_k x[r,k]·w[p][k][j] for rows r < n and panels first <= p < last. Each sum runs over k in order
/// with one accumulator, so a row's result is the same whatever other rows are in the call.
using ProjectKernel = void (*)(const float *panels, const float *bias, std::int64_t depth, std::int64_t first, std::int64_t last, const float *x,
                               std::int64_t xStride, std::int64_t n, float *y, std::int64_t yStride);
/// One GRU step's gates for one row: gi, gh [3,width] (blocks r, z, n), h [width] in place.
using GateKernel = void (*)(const float *gi, const float *gh, std::int64_t width, float *h);
/// s[e] = r_e·x_e / max(|r_e||x_e|, 1e-8) for E vectors of `dim` floats.
using CosineKernel = void (*)(const float *r, const float *x, std::int64_t experts, std::int64_t dim, float *s);

/// sums[i] = Σ_t k_ti / (k_t·v) over n rows of `padded` floats (a multiple of 16): a transport's row update and column sums at once.
using TransportKernel = void (*)(const float *k, std::int64_t n, std::int64_t padded, const float *v, float *sums);

/// c[i, j] += Σ_k a[k,i]·b[k,j] for i < m, j < columns: the product AᵀB that gives a weight its gradient. Sums run over k in order, in
/// blocks of a fixed length: the result does not depend on how i and j are cut into calls at multiples of 32 columns.
using OuterKernel = void (*)(const float *a, std::int64_t aStride, std::int64_t m, const float *b, std::int64_t bStride, std::int64_t columns,
                             std::int64_t n, float *c, std::int64_t cStride);

struct Kernels {
    ProjectKernel project;
    GateKernel gates;
    CosineKernel cosines;
    TransportKernel transport;
    OuterKernel outer;
};

/// The best level of this processor, and the one in use. setLevel() is for tests: it may only lower it.
[[nodiscard]] Level bestLevel();
[[nodiscard]] Level level();
void setLevel(Level level);
[[nodiscard]] const Kernels &kernels();

} // namespace spectra::rule
