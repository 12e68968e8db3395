// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/router/router.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

namespace spectra {

/// What RoMA keeps of the samples that a model answered right (Li et al. 2025, arXiv 2511.07419, sections 3.1 and 3.2). On disk a folder
/// with two NumPy arrays of float32 or float64: embeddings.npy [n, D], of a sentence embedder or the model itself, and routing.npy [n, M, E], the
/// softmax over all experts in the last M MoE layers at the sample's last token.
struct RomaBank {
    std::int64_t samples = 0, dimension = 0, layers = 0, experts = 0;
    std::vector<float> embeddings, routing;

    /// Errors (input): a file is missing or malformed, shapes do not fit together, no samples, a value that is not finite, routing that
    /// is no distribution (the row is named).
    [[nodiscard]] static Result<RomaBank> open(const std::filesystem::path &folder);
    /// Checks what open() checks; `where` names it in errors.
    [[nodiscard]] Result<void> check(const std::string &where) const;
    /// Writes both files into an existing folder. Errors (work): exists and !overwrite, not writable.
    [[nodiscard]] Result<void> write(const std::filesystem::path &folder, bool overwrite) const;
};

/// The k nearest samples of a bank for each of m queries, nearest first (ties to the lower index), and their weights
/// W_ij = exp(−‖E_i − E_j‖²/2σ²) / Σ_j of it.
struct RomaNeighbours {
    std::int64_t count = 0, k = 0;
    std::vector<std::int64_t> index;     ///< [m,k]
    std::vector<float> weights;          ///< [m,k]
    double sigma = 0;                    ///< the one used
};
/// `queries` [m, D]. `sigma` 0: the median of all distances found, as the paper gives none. `own`: for each query the bank's sample that
/// it is itself and that is no neighbour of it, −1 none; empty: none has one.
/// Errors (usage): k below 1 or above what the bank has, sizes that do not fit, σ not finite; (input): a query that is not finite.
[[nodiscard]] Result<RomaNeighbours> romaNeighbours(const RomaBank &bank, std::span<const float> queries, std::int64_t k = 3, double sigma = 0,
                                                    std::span<const std::int64_t> own = {});

/// Targets of a batch whose sequences are these queries, −1: none (its weights are 0). Errors (usage): a query outside the neighbours.
[[nodiscard]] Result<ManifoldTargets> romaTargets(const RomaBank &bank, const RomaNeighbours &neighbours, std::span<const std::int64_t> queries);

} // namespace spectra
