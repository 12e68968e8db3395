// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <torch/torch.h>

#include <cstdint>

namespace spectra {

// Experts of every token id, for hash routing: tables [V,k] i64 of different experts per row, made before training.

/// Equally many occurrences for each expert (Roller et al. 2021, arXiv 2106.04426, section 3.1, "balanced assignment"): ids by falling count, ties
/// by id, each to the k experts with the fewest occurrences so far, ties to the lower index. Ids that do not occur go to the experts
/// with the fewest of those. counts [V] i64. Errors (usage): negative counts, not one axis.
[[nodiscard]] Result<torch::Tensor> balancedTable(const torch::Tensor &counts, std::int64_t experts, std::int64_t k);

/// Ids that mean something alike share experts (there, "clustered hash"): k-means of the ids' embeddings with one cluster per expert
/// (k-means++ start, Lloyd until nothing moves or 100 rounds, an empty cluster starts anew at the id farthest from its centre), then the k
/// nearest centres of each id, nearest first. embeddings [V,H]. Deterministic for a seed. Errors: usage (fewer ids than experts), input
/// (an embedding is not finite, naming the id).
[[nodiscard]] Result<torch::Tensor> clusteredTable(const torch::Tensor &embeddings, std::int64_t experts, std::int64_t k, std::uint64_t seed);

} // namespace spectra
