// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

/// CPU kernels on plain pointers for what torch does in several small operations. Widest vector unit of this CPU, chosen
/// once; at or above a size worth waking a thread for, work is split with parallelFor. Results do not depend on the number
/// of threads.
namespace spectra::kernels {

using bfloat = std::uint16_t; ///< the upper half of an f32

/// y[r, o] (+)= Σ_i W[o, i]·x[r, i] (+ bias[o]); W row-major [out, in], rows ≤ kGemvRows. For few rows, where reading W is
/// what costs. `accumulate` adds to y.
inline constexpr std::int64_t kGemvRows = 4;
void gemv(float *y, const float *w, const float *x, const float *bias, std::int64_t rows, std::int64_t out, std::int64_t in, bool accumulate);
void gemv(float *y, const bfloat *w, const float *x, const float *bias, std::int64_t rows, std::int64_t out, std::int64_t in, bool accumulate);

/// One row through several matrices of the same shape: y[s, o] = Σ_i W_s[o, i]·x_s[i].
struct GemvJob {
    float *y;
    const void *w;
    const float *x;
};
void gemvMany(const GemvJob *jobs, int count, std::int64_t out, std::int64_t in, bool bf16);

/// y = x / √(mean x² + ε) · w per row (Zhang and Sennrich 2019).
void rmsNorm(float *y, const float *x, const float *w, double epsilon, std::int64_t rows, std::int64_t width);

/// y[r, i] = silu(x[r, i])·x[r, I + i]; x is [rows, 2I].
void siluMultiply(float *y, const float *x, std::int64_t rows, std::int64_t intermediate);

/// Rotates pairs (j, j + half) of `heads` heads of every row in place; row stride in elements. cos and sin are
/// [rows, half]; entries of a head beyond 2·half pass through.
void rotate(float *x, std::int64_t rowStride, const float *cos, const float *sin, std::int64_t rows, std::int64_t heads,
            std::int64_t headDim, std::int64_t half);

/// Attention of one query row over `length` cached tokens: q [heads, headDim], keys and values [kvHeads, capacity, headDim],
/// the first `skip` tokens left out (sliding window). out [heads, headDim].
void attendOne(float *out, const float *q, const float *keys, const float *values, std::int64_t heads, std::int64_t kvHeads,
               std::int64_t headDim, std::int64_t capacity, std::int64_t length, std::int64_t skip, double scale);

/// Unnormalised causal softmax of scores [rows, width] in place: row r may see columns up to last0 + r / group and, with a
/// window, no more than `window` of them; the others become 0. inverse[r] = 1 / Σ of the row. In the calling
/// thread.
void causalExp(float *scores, float *inverse, std::int64_t rows, std::int64_t width, std::int64_t group, std::int64_t last0, std::int64_t window);

/// out[t] += scale·Σ_s weights[t, s]·y[slotRow[t, s]] over slots with slotRow ≥ 0, in slot order.
void combine(float *out, const float *y, const std::int64_t *slotRow, const float *weights, double scale, std::int64_t tokens,
             std::int64_t slots, std::int64_t width);

/// log Σ exp, and the lowest index of the largest value, of every row.
void logSumExp(const float *x, std::int64_t rows, std::int64_t width, float *lse, std::int32_t *top1);

} // namespace spectra::kernels
