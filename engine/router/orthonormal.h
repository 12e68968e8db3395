// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace spectra {

/// The rows of t [E,r,H] (r <= H) become orthonormal within each [r,H], in place and outside autograd: the Q of a QR decomposition of
/// the transpose with R's diagonal positive, so that rows that are nearly orthonormal hardly move (a retraction on the Stiefel manifold:
/// Absil, Mahony and Sepulchre 2008, example 4.1.3).
void retractRows(const torch::Tensor &t);

/// Σ over the [r,H] of ‖V Vᵀ − I‖²_F, differentiable. 0 for orthonormal rows, and so is its gradient.
[[nodiscard]] torch::Tensor orthonormalityPenalty(const torch::Tensor &t);

/// Fresh orthonormal rows [E,r,H], each [r,H] drawn on its own (uniformly, Haar).
[[nodiscard]] torch::Tensor orthonormalRows(std::int64_t experts, std::int64_t rank, std::int64_t hidden, std::uint64_t seed, std::uint64_t stream);

} // namespace spectra
