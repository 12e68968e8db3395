// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// Minimum-cost assignment by shortest augmenting paths (Jonker and Volgenant 1987; the rectangular form of Crouse
/// 2016). `cost` is row-major [rows, columns] and finite. Returns for each row its column, −1 for rows left over when
/// rows > columns.
[[nodiscard]] std::vector<int> assignMinimum(std::span<const double> cost, std::int64_t rows, std::int64_t columns);
[[nodiscard]] std::vector<int> assignMaximum(std::span<const double> gain, std::int64_t rows, std::int64_t columns);

} // namespace spectra
