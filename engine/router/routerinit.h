// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace spectra {

/// Fresh weights. All draws come from spectra::Random(seed, stream), never from torch's global generator, so a seed gives the
/// same router whatever ran before.
[[nodiscard]] torch::Tensor normalTensor(std::int64_t rows, std::int64_t columns, double deviation, std::uint64_t seed, std::uint64_t stream);
/// U(-a, a) with a = sqrt(6 / (rows + columns)).
[[nodiscard]] torch::Tensor xavierUniform(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream);
/// Orthonormal rows (rows <= columns) or columns, times `gain`.
[[nodiscard]] torch::Tensor orthogonal(std::int64_t rows, std::int64_t columns, double gain, std::uint64_t seed, std::uint64_t stream);
/// Unit rows: orthonormal where rows <= columns, else a unit-norm tight frame (columns orthogonal and of equal length).
[[nodiscard]] torch::Tensor unitFrame(std::int64_t rows, std::int64_t columns, std::uint64_t seed, std::uint64_t stream);

} // namespace spectra
