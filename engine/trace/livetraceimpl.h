// SPDX-License-Identifier: GPL-3.0-or-later
// Private to livetrace*.cpp.
#pragma once

#include "engine/trace/livetrace.h"
#include "engine/trace/tokencolumn.h"
#include "engine/trace/traceschema.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <string>

namespace spectra {
using schema::Dataset;

/// What a live trace holds at one moment, for the tokens that every layer has. Records share their buffers with it.
struct LiveSnapshot {
    TraceSpec spec;
    std::int64_t tokens = 0;             ///< > 0
    std::vector<SequenceInfo> sequences; ///< with at least one token, as long as their tokens go
    std::vector<bool> ended;             ///< whole, with its final text and means
    bool cut = false;                    ///< the run was stopped before its last sequence ended
    TokenBlock columns;                  ///< may go beyond `tokens`, as records may
    std::vector<std::map<std::int64_t, RoutingRecord>> records;
    std::vector<std::map<std::int32_t, SequenceMeans>> means;
    std::map<std::int64_t, std::vector<float>> potentials;
    std::vector<LayerTables> tables;
};

class LiveTrace::Impl {
public:
    TraceSpec spec;
    std::int64_t limit = 0;

    mutable std::mutex mutex;
    std::uint64_t revision = 0;
    std::int64_t bytes = 0;
    bool full = false; ///< wide columns of new tokens are not kept any more
    bool finished = false;
    std::vector<SequenceInfo> sequences;
    std::vector<bool> ended;
    TokenBlock columns;
    Coverage tokenCoverage;
    std::vector<Coverage> coverage;
    std::vector<std::map<std::int64_t, RoutingRecord>> records; ///< per layer, by first token
    std::vector<std::map<std::int32_t, SequenceMeans>> means;   ///< per layer
    std::map<std::int64_t, std::vector<float>> violations;      ///< per batch [L]
    std::map<std::int64_t, std::vector<float>> potentials;      ///< per batch [L,E]
    std::vector<LayerTables> tables;
    std::int64_t sampled = 0;
    mutable std::shared_ptr<const TraceInfo> lastInfo;
    mutable std::uint64_t lastInfoRevision = ~std::uint64_t(0);

    [[nodiscard]] std::int64_t tokens() const
    {
        std::int64_t end = tokenCoverage.end(0);
        for (const Coverage &c : coverage)
            end = std::min(end, c.end(0));
        return end;
    }
    [[nodiscard]] std::vector<std::int64_t> inner(Column column) const
    {
        const std::int64_t E = spec.experts, k = spec.slots, D = spec.routerDim, H = spec.hidden;
        switch (column) {
        case Column::experts:
        case Column::weights: return {k};
        case Column::logits:
        case Column::selection:
        case Column::probabilities: return {E};
        case Column::entropy:
        case Column::dropped: return {};
        case Column::routingVectors:
        case Column::expressionVectors: return {E, D};
        case Column::gruState: return {E * D};
        case Column::gruPca: return {schema::kPcaComponents};
        case Column::hidden: return {H};
        case Column::expertOutputs: return {k, H};
        }
        return {};
    }
    [[nodiscard]] std::optional<std::string> missing(Column column) const
    {
        const Dataset d = *schema::datasetOf(column);
        if (!spec.capture.has(schema::fieldOf(d)))
            return "not captured in this run";
        if (!schema::exists(d, spec))
            return "the router '" + spec.model.router + "' has none";
        if (column == Column::gruPca)
            return "fitted when the trace is written";
        if ((column == Column::hidden || column == Column::expertOutputs) && sampled == 0)
            return "no sequence has been sampled yet";
        return {};
    }
    [[nodiscard]] LiveSnapshot snapshot() const;
    [[nodiscard]] std::vector<double> mean(int layer, bool expression) const;
    [[nodiscard]] Result<TableValue> table(Table table, int layer) const;
};

} // namespace spectra
