// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/neighbors.h"
#include "analysis/matrixview.h"

#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

namespace spectra {

/// How faithful a map is. Absent where n is too small for the neighbourhood.
struct MapQuality {
    int k = 15;
    std::optional<double> trustworthiness, continuity;           ///< 1 is best (Venna and Kaski 2001)
    std::optional<double> knnRecall10, knnRecall30, knnRecall90; ///< share of the true neighbours kept
    std::int64_t sampledPoints = 0;                              ///< the points judged, all for n ≤ 5000
};
/// `original` [n,d], `map` [n,2]. Above 5,000 points a seeded sample of 5,000 is judged against all n (recall) and
/// among all n (ranks). Errors: usage (different n), input (NaN), cancelled.
[[nodiscard]] Result<MapQuality> mapQuality(MatrixView original, MatrixView map,
                                            DistanceMetric metric = DistanceMetric::euclidean, int k = 15,
                                            std::uint64_t seed = 0, std::stop_token stop = {});

} // namespace spectra
