// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/neighbors.h"

#include <cstdint>
#include <stop_token>
#include <vector>

namespace spectra {

/// Symmetric joint probabilities p_ij of t-SNE in compressed rows; they sum to 1, the diagonal is absent.
struct Affinities {
    std::int64_t points = 0;
    std::vector<std::int64_t> row; ///< [n+1]
    std::vector<std::uint32_t> column;
    std::vector<float> value;
};

/// Conditional probabilities of a perplexity over the given neighbours, made symmetric: (p_j|i + p_i|j) / 2n.
/// A row whose neighbours are all equally far is uniform. Errors: cancelled.
[[nodiscard]] Result<Affinities> tsneAffinities(const NeighborTable &neighbors, double perplexity,
                                                std::stop_token stop = {});

} // namespace spectra
