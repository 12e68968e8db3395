// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace spectra {

// Inference over a handful of independent runs (seeds). Values are expected to be finite; a statistic that the data cannot
// give (too few values, no spread) is absent, never invented.

/// A mean with its two-sided Student t interval.
struct MeanInterval {
    double mean = 0;
    std::size_t n = 0;
    std::optional<double> half;      ///< half width; absent with fewer than two values
    std::optional<double> deviation; ///< sample standard deviation (ddof 1); absent with fewer than two values
};
/// mean ± t_{n−1,(1+level)/2} · s/√n. Absent without values.
[[nodiscard]] std::optional<MeanInterval> meanInterval(std::span<const double> values, double level = 0.95);

/// A two-sided test.
struct TestResult {
    double difference = 0; ///< mean(a) − mean(b), or mean − value
    double statistic = 0;
    double freedom = 0;    ///< degrees of freedom; 0 for a permutation test
    double p = 1;
    std::optional<double> half; ///< half width of the 95 % interval of the difference
};
/// Student's one-sample t against `value`. Absent with fewer than two values. No spread at all: p is 1 when the mean equals
/// `value`, else 0.
[[nodiscard]] std::optional<TestResult> oneSampleT(std::span<const double> values, double value);
/// Student's t of the differences a_i − b_i. Absent when the sizes differ or there are fewer than two pairs.
[[nodiscard]] std::optional<TestResult> pairedT(std::span<const double> a, std::span<const double> b);
/// Welch's t (unequal variances, Welch–Satterthwaite degrees of freedom). Absent with fewer than two values on a side.
[[nodiscard]] std::optional<TestResult> welchT(std::span<const double> a, std::span<const double> b);
/// Sign-flip permutation test of the mean difference: exact over all 2^n flips up to n = 16, else `draws` random ones with
/// the seed, p = (1 + hits)/(1 + draws) (Phipson and Smyth 2010). Absent when the sizes differ or there are no pairs.
[[nodiscard]] std::optional<TestResult> pairedPermutation(std::span<const double> a, std::span<const double> b, int draws = 20000,
                                                          std::uint64_t seed = 0);

/// Adjusted p-values by Holm's step-down procedure (family-wise error; Holm 1979), in the order given.
[[nodiscard]] std::vector<double> holm(std::span<const double> p);
/// Adjusted p-values by Benjamini and Hochberg's step-up procedure (false discovery rate; 1995), in the order given.
[[nodiscard]] std::vector<double> benjaminiHochberg(std::span<const double> p);

/// Cohen's d with the pooled standard deviation (ddof 1). Absent with fewer than two values on a side or without spread.
[[nodiscard]] std::optional<double> cohensD(std::span<const double> a, std::span<const double> b);
/// Cliff's δ: P(a > b) − P(a < b) over all pairs, in [−1, 1]. Absent when a side is empty.
[[nodiscard]] std::optional<double> cliffsDelta(std::span<const double> a, std::span<const double> b);

} // namespace spectra
