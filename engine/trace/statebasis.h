// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// Mean and leading principal axes of a set of rows.
struct StateBasis {
    std::vector<float> mean;  ///< [W]
    std::vector<float> axes;  ///< [components, W], unit length, descending variance; zero where the rows span less
};

/// Principal axes of `rows` [n, width]. Each axis has its component of largest magnitude positive. Deterministic.
[[nodiscard]] StateBasis fitStateBasis(std::span<const float> rows, std::int64_t width, int components);
/// Coordinates [n, components] of rows [n, width].
[[nodiscard]] std::vector<float> projectStates(const StateBasis &basis, std::span<const float> rows, int components);

} // namespace spectra
