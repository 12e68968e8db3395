// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

/// The loops of an optimiser step on plain pointers, in the calling thread: callers share a tensor by blocks of fixed size.
namespace spectra::kernels {

/// What one AdamW step does to every element of a parameter.
struct AdamWStep {
    float scale = 1;                     ///< of the gradient, before anything else
    float decay = 0;                     ///< rate·decay
    float oneMinusBeta1 = 0, beta2 = 0, oneMinusBeta2 = 0;
    float correction2 = 1;               ///< 1 / √(1 − β₂ᵗ)
    float epsilon = 1e-8f;
    float stepSize = 0;                  ///< rate / (1 − β₁ᵗ)
};

/// m ← m + (1−β₁)(g − m); v ← β₂v + (1−β₂)g²; p ← p − decay·p − stepSize·m / (√v·correction2 + ε), all in one pass. The decay
/// is subtracted, not multiplied by 1 − decay: that factor, rounded to f32, would be off by up to 3 % of a decay of 1e-6.
void adamW(float *p, const float *g, float *m, float *v, std::int64_t n, const AdamWStep &step);

/// m ← m + (1−μ)(s·g − m); u ← the Nesterov look-ahead s·g + μ(m − s·g).
void nesterov(float *u, const float *g, float *m, std::int64_t n, float scale, float momentum);

/// p ← p − decay·p − stepSize·u.
void decayAndStep(float *p, const float *u, std::int64_t n, float decay, float stepSize);

/// Σ x² in double precision, always in the same order; not finite exactly when an element is not.
[[nodiscard]] double sumOfSquares(const float *x, std::int64_t n);

} // namespace spectra::kernels
