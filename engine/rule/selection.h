// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::rule {

/// The k largest of each row of q [n,E], descending, ties to the lower index. experts [n,k]; weights [n,k] receive q there,
/// renormalised to sum 1 when `renormalise` (a row whose chosen values sum to 0 gets equal weights). NaN counts as the lowest
/// value. k <= E. Same result for any thread count. Thread-safe.
void topK(std::span<const float> q, std::int64_t experts, std::int64_t k, bool renormalise, std::span<std::int64_t> chosen,
          std::span<float> weights);

/// What a quota left of a batch.
struct QuotaResult {
    std::vector<std::int64_t> experts;   ///< [n,k] descending q, -1 = none
    std::vector<float> weights;          ///< [n,k] renormalised over the experts that remain
    std::vector<std::uint8_t> dropped;   ///< [n] slots that stayed empty
    std::int64_t capacity = 0;           ///< slots per expert; of several capacities the largest
    double fellBack = 0;                 ///< share of counted rows whose set is not their own top-k
};

/// Capacity ⌈α·N·k/E⌉ of an expert.
[[nodiscard]] std::int64_t quotaCapacity(double factor, std::int64_t rows, std::int64_t experts, std::int64_t k);

/// Capacities that follow a measured demand (shares of the assignments, summing to 1): the ⌈α·N·k⌉ slots that all experts have
/// together are shared in proportion to w_i = max(demand_i, 1/(2E)), whole slots by largest remainder, ties to the lower index. They sum to
/// ⌈α·N·k⌉ exactly, and none is below ⌊⌈α·N·k⌉/(3E)⌋, because the w_i sum to at most 3/2. A demand that is not finite or negative counts as 0.
[[nodiscard]] std::vector<std::int64_t> demandCapacities(double factor, std::int64_t rows, std::int64_t k, std::span<const double> demand);

/// Quota assignment (method page, "Details"): all (row, expert) pairs in descending q, ties by row then expert; a pair is taken if
/// the expert has a free slot and the row still needs one. Rows with counted = 0 (empty span: all count) take their plain
/// top-k and no slots. Deterministic. O(n·E).
[[nodiscard]] QuotaResult assignQuota(std::span<const float> q, std::int64_t experts, std::int64_t k, double factor,
                                      std::span<const std::uint8_t> counted = {});
/// The same with a capacity for each expert: capacities [E] >= 0.
[[nodiscard]] QuotaResult assignQuota(std::span<const float> q, std::int64_t k, std::span<const std::int64_t> capacities,
                                      std::span<const std::uint8_t> counted = {});

} // namespace spectra::rule
