// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace spectra {

/// Ranks from 1, equal values share the mean of theirs.
[[nodiscard]] std::vector<double> ranks(std::span<const double> values);
/// Spearman's ρ: Pearson's correlation of the ranks. Absent when the sizes differ, with fewer than two pairs or without spread on a side.
[[nodiscard]] std::optional<double> spearman(std::span<const double> a, std::span<const double> b);
/// Two-sided permutation test of ρ = 0: the share of orders of `b` whose |ρ| is as large. All n! orders up to n = 8, else `draws` random ones
/// with the seed, p = (1 + hits)/(1 + draws). Absent as spearman(), and with fewer than three pairs.
[[nodiscard]] std::optional<double> spearmanP(std::span<const double> a, std::span<const double> b, int draws = 20000, std::uint64_t seed = 0);

/// Least-squares line y = intercept + slope·x.
struct Regression {
    double slope = 0, intercept = 0;
    double r2 = 0;                   ///< share of y's variance; 0 when y has none
    std::optional<double> half;      ///< half width of the slope's 95 % t interval, n − 2 degrees of freedom; absent with two points
};
/// Absent when the sizes differ or with fewer than two distinct x.
[[nodiscard]] std::optional<Regression> regress(std::span<const double> x, std::span<const double> y);

} // namespace spectra
