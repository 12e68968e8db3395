// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/placement/grouping.h"
#include "engine/core/result.h"

#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

namespace spectra {

/// GRACE-MoE as a planner (Han et al. 2025, arXiv 2509.25041): where the experts of a layer should lie on a cluster, given what a trace
/// chose. Experts that are chosen together are put together, those of the busiest GPU are copied, and tokens go to the nearest copy.
///
/// The authors released no code; where the paper leaves a choice or contradicts itself, this is what is done:
/// * Spectral clustering is that of normalised cuts with k-means (the paper names no variant). A node gets at least as many experts as it
///   has GPUs: the weakest experts of larger nodes are moved, else a GPU could be left empty.
/// * The ratio r of the controlled sizes is the knee of the scaled curve of U over S on the ratios 0, 0.05 … 1, per layer
///   (the paper reads one r = 0.15 for all models off the curves); or it is given.
/// * Copied are the heaviest GPU's experts, by falling load, until their sum first reaches W_max·n/(1+n): the one that crosses is copied too.
/// * A copied load is split evenly over the 1+n GPUs, W_p = W_r/(1+n), as the text says; the printed equation has W_max for W_r, which does
///   not conserve load.
/// * Tokens start evenly on all GPUs (the paper's data parallel attention): token t on GPU t mod D. A target among several copies in the
///   nearest tier that has one is drawn by smooth weighted round robin with weights 1/W'.
struct PlacementOptions {
    int nodes = 1, gpusPerNode = 1;
    double ratio = -1;                   ///< < 0: the knee
    bool replicate = true;
    std::uint64_t seed = 0;
};

/// What a layer's routing says: A_ij, the number of tokens that chose both i and j (0 on the diagonal), and W_i, that chose i.
struct RoutingProfile {
    std::int64_t experts = 0, tokens = 0;
    std::vector<double> affinity, load;  ///< [E,E], [E]
};
/// `chosen` [tokens, slots], kNoExpert for an empty slot. Errors (input): an expert that is not there.
[[nodiscard]] Result<RoutingProfile> profileRouting(std::span<const std::uint16_t> chosen, std::int64_t slots, std::int64_t experts);

/// How one placement would do on the profiled tokens.
struct PlacementForecast {
    std::vector<double> load;            ///< [D] assignments that each GPU computes
    double imbalance = 0;                ///< max/mean of load; 1 is even; 0 without any load
    double leavesGpu = 0, leavesNode = 0; ///< share of assignments whose expert is reached on another GPU, another node
    double gpusReached = 0, nodesReached = 0; ///< other GPUs, other nodes that a token's vector is sent to, mean: each once per token
};

struct LayerPlacement {
    double ratio = 0;                    ///< r used
    std::vector<RatioPoint> tried;       ///< the curve; empty when the ratio was given
    ExpertGroups nodes;                  ///< [N] experts of each node
    ExpertGroups gpus;                   ///< [D], GPU n·G + g is g of node n: each expert once
    int heaviest = 0;                    ///< GPU with the largest load
    std::vector<int> copied;             ///< its experts that have copies, by falling load
    std::vector<int> copiesOn;           ///< GPUs that have them, the least loaded first
    std::vector<double> predicted;       ///< [D] W' by the paper's formula
    PlacementForecast contiguous, grouped, replicated; ///< E/D neighbours per GPU (the usual placement), the groups, and with copies
};

/// Errors (usage): fewer experts than GPUs, sizes out of range, more than 2048 experts; (input) as profileRouting(); cancelled.
[[nodiscard]] Result<LayerPlacement> planPlacement(std::span<const std::uint16_t> chosen, std::int64_t slots, std::int64_t experts, const PlacementOptions &options,
                                                   std::stop_token stop = {});

} // namespace spectra
