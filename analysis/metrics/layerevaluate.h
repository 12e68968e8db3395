// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/layerstats.h"

#include <limits>
#include <map>
#include <string>
#include <vector>

namespace spectra::detail {

inline constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// One metric of one layer (or of all layers together). NaN: undefined.
struct LayerMetric {
    double value = kNone, chance = kNone;
    std::int64_t count = 0;
    bool jackknife = false; ///< how `replicates` were made
    std::vector<double> replicates;
    std::vector<double> domain, domainChance; ///< [Q] or empty
    std::vector<std::int64_t> domainCount;
    std::vector<std::vector<double>> domainReplicates; ///< [Q][·] or empty
    std::vector<double> sequence, phase;
    std::vector<std::int64_t> sequenceCount, phaseCount;
    std::vector<MetricMatrix> matrices;
    std::string note;
};
using LayerMetrics = std::map<std::string, LayerMetric, std::less<>>;

/// What evaluation needs to know besides the statistics.
struct EvaluationContext {
    const TraceInfo &info;
    const TokenIndex &index;
    const Units &units;
    const Slices &slices;
    const LayerPlan &plan;
    const MetricOptions &options;
    const std::vector<float> &bootstrap; ///< [resamples, U]; empty without intervals
    const std::map<std::string, const MetricInfo *, std::less<>> &wanted;
    const std::stop_token &stop;
    [[nodiscard]] bool wants(std::string_view key) const { return wanted.find(key) != wanted.end(); }
};

/// From the statistics of one layer to its metrics. Errors: cancelled.
[[nodiscard]] Result<LayerMetrics> evaluateLayer(const EvaluationContext &context, int layer, const LayerStats &stats);

/// Agreement of a layer's top-1 experts with those of the layer before (both [N], kNoExpert where not counted).
void evaluateLayerPair(const EvaluationContext &context, int layer, const std::vector<std::uint16_t> &before,
                       const std::vector<std::uint16_t> &now, LayerMetrics &into);

/// Appends a layer's top-1 experts to the hash of each token's path.
void extendPaths(std::vector<std::uint64_t> &paths, const std::vector<std::uint16_t> &top1);

/// Paths through all layers from a hash per token.
[[nodiscard]] LayerMetrics evaluatePaths(const EvaluationContext &context, const std::vector<std::uint64_t> &paths);

/// Gram figures and alignment of one layer, from its tables. Errors: input (tables of a wrong size), cancelled.
[[nodiscard]] Result<LayerMetrics> evaluateTables(const EvaluationContext &context, const TraceSource &trace,
                                                  int layer);

} // namespace spectra::detail
