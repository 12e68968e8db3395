// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace spectra {

/// One figure. Everything may be absent; nothing is ever NaN or infinite.
struct MetricPoint {
    std::optional<double> value;
    std::optional<double> low,
        high;                     ///< 95 % interval (or MetricOptions::level), where one was asked for and is defined
    std::optional<double> chance; ///< the level without any structure
    std::int64_t count = 0;       ///< what it rests on: counted tokens, pairs of neighbours, experts
};

/// A metric that is a matrix. Row-major; an undefined cell is NaN (the only place for one: a matrix is drawn, not
/// parsed).
struct MetricMatrix {
    int layer = -1; ///< ordinal, -1: over all layers
    std::int64_t rows = 0, columns = 0;
    std::vector<std::string> rowLabels, columnLabels; ///< empty: the expert's index
    std::vector<float> values;
    [[nodiscard]] float operator()(std::int64_t r, std::int64_t c) const
    {
        return values[static_cast<std::size_t>(r * columns + c)];
    }
};

/// One metric of one trace.
struct MetricResult {
    std::string key;
    MetricPoint overall;                 ///< unweighted mean of the layers' values; chance likewise
    std::vector<MetricPoint> byLayer;    ///< [L] in the trace's order; empty for metrics that span the layers
    std::vector<MetricPoint> byDomain;   ///< [Q] order of TraceInfo::domains; mean over layers on that domain's tokens
    std::vector<MetricPoint> bySequence; ///< [S]
    std::vector<MetricPoint> byPhase;    ///< [2] prompt, generated
    std::vector<MetricPoint> byLayerDomain; ///< [L·Q] row-major, values only; with byDomain
    std::vector<MetricMatrix> matrices;     ///< one per layer where the metric is a matrix
    std::string absent;                     ///< why there is no value; empty if there is one
    std::string interval; ///< how low and high were made: "percentile bootstrap over sequences, 1000 resamples"
    std::string note;     ///< what a reader must know: sampled tokens, 0 by construction
};

struct MetricReport {
    std::vector<std::string> domains;       ///< labels of byDomain
    std::vector<std::int32_t> decoderIndex; ///< labels of byLayer
    std::int64_t countedTokens = 0;         ///< counted (mask 1) and selected
    std::int64_t excludedTokens = 0;        ///< masked
    std::vector<MetricResult> metrics;      ///< in the registry's order
    double seconds = 0;
    [[nodiscard]] const MetricResult *find(const std::string &key) const
    {
        for (const MetricResult &m : metrics)
            if (m.key == key)
                return &m;
        return nullptr;
    }
};

} // namespace spectra
