// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"
#include "views/latestjob.h"
#include "views/tracecolumns.h"

#include <QString>

#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// What is mapped.
enum class SpaceObject { hidden, probabilities, expression, routing, experts };

struct SpaceRequest {
    SpaceObject object = SpaceObject::hidden;
    bool tsne = true;
    int layer = 0;
    int sample = 8192;        ///< at most so many points; evenly spread over the trace
    double perplexity = 30;
    int iterations = 750;
    std::uint64_t seed = 0;
    std::optional<RowSet> filter;
};

/// What the points are; the same for every state of a running map. Immutable.
struct SpacePoints {
    SpaceObject object = SpaceObject::hidden;
    int layer = 0;                        ///< ordinal; experts of several layers: see layerOf
    std::int64_t candidates = 0;          ///< points there would be without a sample
    std::vector<std::int64_t> row;        ///< token, −1: not a token
    std::vector<std::int32_t> sequence;   ///< −1: none
    std::vector<std::int16_t> expert;     ///< top expert, or the expert itself; −1 none
    std::vector<std::int16_t> domain;     ///< −1 unknown
    std::vector<std::int16_t> layerOf;    ///< experts: the layer of each point
    std::vector<float> entropy, nll;      ///< may be empty
    std::shared_ptr<const TokenColumns> columns;
    std::shared_ptr<const LayerRouting> routing;
    int experts = 0;
    std::vector<std::int32_t> decoderIndex;
    std::vector<std::string> domains;
    QString expertTable;                  ///< experts: which vectors
};

/// Points that are tokens, not vectors of experts.
[[nodiscard]] inline bool isTokens(const SpacePoints &p)
{
    return p.object == SpaceObject::hidden || p.object == SpaceObject::probabilities;
}

/// A map, complete or on its way.
struct SpaceData {
    std::shared_ptr<const SpacePoints> points;
    std::shared_ptr<const std::vector<float>> coordinates; ///< [n,2]
    bool tsne = true;
    int iteration = 0, iterations = 0;
    std::optional<double> kl;
    double perplexity = 0;
    std::uint64_t seed = 0;
    std::vector<double> explained;        ///< PCA: share of variance of the two axes
    bool finished = false;
    QString note;
};

/// Reads what is mapped and maps it; `shown` is called with each partial state on the job's thread.
/// Errors: as TraceSource and the embeddings.
[[nodiscard]] Result<std::shared_ptr<const SpaceData>> computeSpace(const std::shared_ptr<const TraceSource> &source, const SpaceRequest &request,
                                                                    JobContext &job,
                                                                    const std::function<void(std::shared_ptr<const SpaceData>)> &shown);
/// Why an object cannot be mapped from this trace; empty if it can.
[[nodiscard]] QString whyNoSpace(SpaceObject object, const TraceInfo &info);

} // namespace spectra
