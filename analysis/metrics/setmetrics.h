// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/layerevaluate.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::detail {

/// Metrics of sets and pairs of experts: overlaps, co-activation, expert diversity, vocabulary specialization, score
/// AUC and the concentration of vectors. Their intervals are jackknifed.
void evaluateSets(const EvaluationContext &context, int layer, const LayerStats &stats, LayerMetrics &into);

struct OverlapFigures {
    double mean = 0;           ///< over pairs; NaN with fewer than two experts
    std::vector<float> matrix; ///< [E,E], 1 on the diagonal of used experts
};
/// Jaccard indices from joint counts: `both` [E,E] upper triangle, `load` [E].
[[nodiscard]] OverlapFigures overlapOfCounts(std::span<const std::uint32_t> both, std::span<const std::uint32_t> load,
                                             bool withMatrix);
/// Jaccard indices of the sets of types with a count: `counts` [T,E].
[[nodiscard]] OverlapFigures overlapOfTypes(std::span<const std::uint32_t> counts, std::int64_t experts,
                                            bool withMatrix);
/// The shuffled control of overlapOfTypes(): its mean when which tokens go where is drawn anew, while every type keeps its number of
/// tokens and every set of chosen experts its own. In closed form: a type of f tokens meets an expert with n of N tokens unless all f
/// fall on the other N − n, so pairs have Σ_types P(both) / Σ_types P(either). `types` [T,E], `both` [E,E] upper triangle, `load` [E],
/// `slots` experts per token. NaN with fewer than two experts or no tokens.
[[nodiscard]] double shuffledOverlapOfTypes(std::span<const std::uint32_t> types, std::span<const std::uint32_t> both,
                                            std::span<const std::uint32_t> load, std::int64_t tokens, int slots);
/// Mean over experts of the mean share of a type's assignments, over the expert's types; `perExpert` [E] may be null.
[[nodiscard]] double vocabularySpecialization(std::span<const std::uint32_t> counts, std::int64_t experts,
                                              std::vector<float> *perExpert);

} // namespace spectra::detail
