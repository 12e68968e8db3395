// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

/// The loops of a training pass on plain pointers, in the calling thread: callers share rows among threads. What is summed is
/// summed in an order that depends on the sizes alone.
namespace spectra::trainkernels {

/// y = x·inverse·w with inverse[r] = 1 / √(mean x² + ε) per row of [rows, width].
void rmsNorm(float *y, float *inverse, const float *x, const float *w, float epsilon, std::int64_t rows, std::int64_t width);
/// Gradient of rmsNorm() for the gradient g of y: dx, and dw [width] += Σ over the rows. dx or dw may be nullptr.
void rmsNormBackward(float *dx, float *dw, const float *g, const float *x, const float *w, const float *inverse, std::int64_t rows, std::int64_t width);

/// y [rows, I] = silu(gate)·up of x [rows, 2I], gate columns first.
void swiglu(float *y, const float *x, std::int64_t rows, std::int64_t intermediate);
/// Gradient dx [rows, 2I] of swiglu() for dy [rows, I]; y [rows, I] is made once more on the way.
void swigluBackward(float *dx, float *y, const float *dy, const float *x, std::int64_t rows, std::int64_t intermediate);

/// Rotates pairs (j, j + half) of `heads` heads of one row: out[j] = a·cos − b·sin, out[j + half] = b·cos + a·sin; entries beyond
/// 2·half are copied. `back` applies the transposed map, which is what gradients need. May be done in place.
void rotate(float *out, const float *in, const float *cos, const float *sin, std::int64_t heads, std::int64_t headDim, std::int64_t half, bool back);

/// Logits of one row become (softmax − [i = target])·scale; returns −log p(target). scale 0: logits are left alone.
float crossEntropy(float *logits, std::int64_t width, std::int64_t target, float scale);

/// y += a·x
void addScaled(float *y, const float *x, float a, std::int64_t n);
/// y = a·x
void scaled(float *y, const float *x, float a, std::int64_t n);
[[nodiscard]] float dot(const float *a, const float *b, std::int64_t n);
/// sums [width] += the sum over rows.
void addColumnSums(float *sums, const float *x, std::int64_t rows, std::int64_t width, std::int64_t stride);
/// Adds b [width] to every row.
void addToRows(float *x, const float *b, std::int64_t rows, std::int64_t width);

} // namespace spectra::trainkernels
