// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// One merge, as SciPy's linkage matrix: clusters below n are points, n + i is the cluster made by merge i.
struct ClusterMerge {
    int first = 0, second = 0; ///< first < second
    double height = 0;
    int size = 0;
};
struct Dendrogram {
    std::vector<ClusterMerge> merges; ///< n − 1, heights ascending
    std::vector<int> order;           ///< leaves from left to right, children in the order first, second
};
/// Agglomerative clustering, average linkage (UPGMA; nearest-neighbour chain, O(n²)). `distance` is symmetric [n,n].
[[nodiscard]] Dendrogram averageLinkage(std::span<const double> distance, std::int64_t n);
/// The same from similarities such as a Gram matrix: distance = 1 − value.
[[nodiscard]] Dendrogram averageLinkageOfSimilarity(std::span<const double> similarity, std::int64_t n);

} // namespace spectra
