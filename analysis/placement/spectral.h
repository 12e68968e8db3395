// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// Spectral clustering of a graph (normalised cuts: Shi and Malik 2000; the eigenvectors of the smallest eigenvalues of
/// I − D^(−1/2) A D^(−1/2), each row times D^(−1/2), then k-means), as scikit-learn does it: sizes are free, no group is empty.
/// `affinity` is symmetric [n,n], at least 0; its diagonal is not read. 1 <= groups <= n. Returns a group per vertex, numbered by their
/// first vertices. Deterministic for a seed. O(n³).
[[nodiscard]] std::vector<int> spectralGroups(std::span<const double> affinity, std::int64_t n, int groups, std::uint64_t seed);

} // namespace spectra
