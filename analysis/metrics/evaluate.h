// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/metric.h"
#include "analysis/metrics/metricresult.h"
#include "engine/core/progress.h"
#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

struct MetricOptions {
    std::vector<std::string> keys;                             ///< empty: every metric. Unknown keys are a usage error
    bool byDomain = true, bySequence = false, byPhase = false; ///< layers always
    bool matrices = true;                                      ///< fill MetricResult::matrices
    bool intervals = false;
    double level = 0.95;
    int resamples = 1000;     ///< percentile bootstrap: sequences are drawn with replacement inside their domain
    int jackknifeGroups = 20; ///< set-valued metrics: delete-group jackknife over groups of sequences
    std::uint64_t seed = 0;   ///< resampling, token samples, chance levels
    std::shared_ptr<const RowSet> selection; ///< only these tokens; null: all. Masked tokens never count
    std::int64_t blockTokens = 16384;        ///< rows read at a time; changes nothing but memory
    std::int64_t silhouetteTokens = 2048;    ///< sampled per layer
    std::int64_t sampleTokens = 65536;       ///< tokens per layer that rank statistics and chance levels are taken on
};

/// Streams the trace layer by layer in token blocks and evaluates the asked metrics.
/// Memory: about 16 bytes per token plus the sufficient statistics of as many layers as there are threads (at most 8);
/// never an [L,N] or [N,E] array. Results are bit-identical for a seed at any thread count and block size.
/// A metric that the trace lacks the data for is in the report with `absent` set.
/// Errors: usage (unknown key, option out of range), input (trace damaged: expert index out of range), cancelled.
[[nodiscard]] Result<MetricReport> evaluateMetrics(const TraceSource &trace, const MetricOptions &options,
                                                   std::stop_token stop = {}, const ProgressFunction &progress = {});

} // namespace spectra
