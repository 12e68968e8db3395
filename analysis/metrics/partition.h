// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/matrixview.h"

#include <cstdint>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

namespace spectra {

/// A contingency table of two labellings, row-major counts.
struct Contingency {
    std::int64_t rows = 0, columns = 0;
    std::vector<double> counts;

    Contingency(std::int64_t r, std::int64_t c)
        : rows(r)
        , columns(c)
        , counts(static_cast<std::size_t>(r * c), 0.0)
    {
    }
    [[nodiscard]] double &at(std::int64_t r, std::int64_t c)
    {
        return counts[static_cast<std::size_t>(r * columns + c)];
    }
    [[nodiscard]] double at(std::int64_t r, std::int64_t c) const
    {
        return counts[static_cast<std::size_t>(r * columns + c)];
    }
    [[nodiscard]] static Contingency of(std::span<const int> a, std::span<const int> b); ///< labels ≥ 0, equal length
};

/// Agreement of two labellings, nats. Empty rows and columns do not matter.
struct PartitionAgreement {
    double mutualInformation = 0, entropyRows = 0, entropyColumns = 0;
    double nmi = 0; ///< arithmetic normalisation (scikit-learn's default)
    double ami = 0; ///< adjusted by the exact hypergeometric expectation (Vinh, Epps, Bailey 2010)
    double expectedMutualInformation = 0;
    double cramersV = 0; ///< bias-corrected (Bergsma 2013)
};
/// Absent for an empty table. With a single label on one side every agreement is as in scikit-learn: 1 for two trivial
/// labellings, else 0.
[[nodiscard]] std::optional<PartitionAgreement> partitionAgreement(const Contingency &table, bool adjusted = true);

/// NMI of two indicator variables from their counts: n tokens, a and b of them, both in `both`.
[[nodiscard]] double indicatorNmi(double both, double a, double b, double n);

/// Silhouette of each point (Euclidean): O(n²) over blocks. A point alone in its cluster has 0.
/// Empty when there are fewer than 2 clusters. Errors: cancelled through an empty result with `stop` requested.
[[nodiscard]] std::vector<double> silhouettes(MatrixView points, std::span<const int> labels,
                                              std::stop_token stop = {});

/// Area under the ROC curve of scores for positives against negatives, ties count half; absent if either is empty.
[[nodiscard]] std::optional<double> areaUnderCurve(std::span<const float> positives, std::span<const float> negatives);

} // namespace spectra
