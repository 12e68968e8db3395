// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/matrixview.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <cstdint>
#include <stop_token>
#include <vector>

namespace spectra {

enum class DistanceMetric : std::uint8_t { euclidean, cosine };
enum class NeighborMethod : std::uint8_t { automatic, exact, hnsw };

/// k nearest other points of each of n points, nearest first; ties by index.
struct NeighborTable {
    std::int64_t points = 0;
    int k = 0;
    std::vector<std::int32_t> index; ///< [n,k]
    std::vector<float> distance;     ///< [n,k] squared Euclidean (of unit vectors for cosine)
    bool exact = true;
};

/// Exact by blocked matrix products, or HNSW. `automatic`: exact for n ≤ 50,000. k is cut to n − 1.
/// Deterministic at any thread count when exact. Errors: input (NaN), cancelled.
[[nodiscard]] Result<NeighborTable> nearestNeighbors(MatrixView points, int k,
                                                     DistanceMetric metric = DistanceMetric::euclidean,
                                                     NeighborMethod method = NeighborMethod::automatic,
                                                     std::uint64_t seed = 0, std::stop_token stop = {},
                                                     const ProgressFunction &progress = {});

} // namespace spectra
