// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>

namespace spectra::rule {

/// A soft choice of k of each row's E scores: g_e = σ((s_e − λ)/τ) with the row's λ such that Σ_e g_e = k; as τ → 0 it becomes 1 for the k
/// largest and 0 for the rest. λ by Newton steps held inside a bisection's bracket, in double precision, to rounding. k = E: all 1.
/// scores and g [n,E]; 1 <= k <= E; τ > 0. A row with a score that is not finite becomes NaN. Same result for any thread count. Thread-safe.
void softTopK(std::span<const float> scores, std::int64_t experts, std::int64_t k, double temperature, std::span<float> g);

} // namespace spectra::rule
