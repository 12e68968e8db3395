// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace spectra {

/// L(x) = a·x^(−b) + c.
struct PowerLaw {
    double a = 0, b = 0, c = 0;
    double squares = 0; ///< residual sum of squares
    [[nodiscard]] double at(double x) const;
};

/// Least squares over all points. For a given exponent the law is linear in a and c, so the search runs over b alone
/// (variable projection; Golub and Pereyra 1973): a scan of |b| over 1e-3…10, both signs, then Brent's method around its
/// best point. `offset` false fixes c = 0. Absent: an x that is not positive, a value that is not finite, fewer distinct x
/// than free parameters.
[[nodiscard]] std::optional<PowerLaw> fitPowerLaw(std::span<const double> x, std::span<const double> y, bool offset);

/// A fit with percentile intervals from resampling groups (seeds) with replacement: a resample takes all points of each
/// seed drawn.
struct PowerLawFit {
    PowerLaw law;
    std::optional<std::pair<double, double>> a, b, c; ///< absent with fewer than two groups
    std::vector<double> low, high;                    ///< of the curve at `at`; empty with fewer than two groups
    int resamples = 0;                                ///< that could be fitted
};
[[nodiscard]] std::optional<PowerLawFit> bootstrapPowerLaw(std::span<const double> x, std::span<const double> y, std::span<const int> group,
                                                           std::span<const double> at, bool offset, int resamples = 500, std::uint64_t seed = 0,
                                                           double level = 0.95);

/// Slope and intercept of the least-squares line. Absent with fewer than two distinct x.
[[nodiscard]] std::optional<std::pair<double, double>> fitLine(std::span<const double> x, std::span<const double> y);

} // namespace spectra
