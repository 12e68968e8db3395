// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/affinities.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

// The O(n²) form of t-SNE in double precision: what the interpolated form is held against.

/// Σ_j (y_i − y_j) / (1 + |y_i − y_j|²)² in `force` [n,2]; returns Z = Σ_{i≠j} 1 / (1 + |y_i − y_j|²). `y` is [n,2].
double exactRepulsion(std::span<const float> y, std::vector<double> &force);
/// Attraction less repulsion / Z, [n,2] (without the factor 4 of the paper).
[[nodiscard]] std::vector<double> exactGradient(const Affinities &p, std::span<const float> y);
/// KL divergence of the map from the affinities, nats.
[[nodiscard]] double exactKl(const Affinities &p, std::span<const float> y);

} // namespace spectra
