// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/routingrecord.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// Tokens [first, last) of a trace.
struct TokenRange {
    std::int64_t first = 0, last = 0;
    [[nodiscard]] std::int64_t size() const { return last - first; }
    friend bool operator==(const TokenRange &, const TokenRange &) = default;
};

/// Per-token columns that exist once per MoE layer.
enum class Column : std::uint8_t {
    experts, weights, logits, selection, probabilities, entropy, dropped, routingVectors, expressionVectors, gruState, gruPca,
    hidden,        ///< sampled rows: Block::token names them
    expertOutputs, ///< sampled rows
};

/// Small per-layer tables.
enum class Table : std::uint8_t {
    gramRouting, gramExpression, gramRouterWeights,           // [E,E]
    meanRouting, meanExpression,                              // [E,D]
    sequenceMeanRouting, sequenceMeanExpression,              // [S,E,D]
    routerWeights,                                            // [E,H]
    bufferMeanExpression,                                     // [E,D]
    bufferPotential,                                          // [E]
    expertInputMean, expertOutputMean,                        // [E,H]
    sinkhornViolation,                                        // [B]
    sinkhornPotentials,                                       // [B,E]
    gruPcaMean,                                               // [E·D]
    gruPcaBasis,                                              // [8,E·D]
};

/// One column of one layer for a token range (or, for sampled columns, the sampled tokens inside the range).
/// Row-major [rows, inner…]. Experts come in `u16`, dropped in `u8`, all else in `f32` whatever the file stores.
struct Block {
    Column column = Column::experts;
    int layer = 0;
    TokenRange range;
    std::int64_t rows = 0;
    std::vector<std::int64_t> inner;     ///< shape of one row
    std::vector<float> f32;
    std::vector<std::uint16_t> u16;
    std::vector<std::uint8_t> u8;
    std::vector<std::int64_t> token;     ///< sampled columns: the token of each row
    [[nodiscard]] std::int64_t width() const
    {
        std::int64_t w = 1;
        for (std::int64_t d : inner)
            w *= d;
        return w;
    }
};

/// Token columns of a range.
struct TokenBlock {
    TokenRange range;
    std::vector<std::int32_t> id, sequence, position, byteOffset, nextTop1; ///< nextTop1 may be empty
    std::vector<std::uint8_t> phase, mask;
    std::vector<float> nll;              ///< empty when absent
    std::vector<std::string> text;
};

/// A per-layer table, row-major.
struct TableValue {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

/// Attributes of /model, as the trace page names them.
struct ModelAttributes {
    std::string name, architecture, router, config, checkpointSha256, dtype, device, tokenizerSha256;
    std::int32_t layers = 0;          ///< decoder layers
    std::int32_t experts = 0, topK = 0, sharedExperts = 0, routerDim = 0, hidden = 0;
    std::string scoreFunction, sinkhornScope, gruAxis;
    bool normalizeTopK = true, scoreBeforeTopK = true, causal = true;
    double routedScalingFactor = 1;
    std::int32_t groups = 1, topKGroups = 1;
    std::optional<double> capacityFactor, sinkhornEpsilon, repulsionWeight;
    std::optional<std::int32_t> sinkhornIterations;
    std::int64_t trainingStep = 0, seed = 0;
    std::string note;                 ///< what a reader must know: "fresh router, not trained"
};

/// Attributes of /environment: study data only, no user or host name.
struct EnvironmentAttributes {
    std::string version, gitCommit, libtorch, compiler, processor, system, commandLine;
    std::int32_t threads = 0;
    double wallSeconds = 0;
};

/// What a trace is and holds; metadata only, no token data.
struct TraceInfo {
    std::string file;                    ///< empty for a running job
    std::string uuid, created, generator, formatVersion;
    bool complete = false;
    std::int64_t tokens = 0;             ///< N committed
    std::int64_t sequences = 0;          ///< S
    std::int32_t experts = 0, slots = 0, routerDim = 0, hidden = 0;
    std::vector<std::int32_t> decoderIndex; ///< [L]
    std::vector<std::string> domains;    ///< distinct, in order of appearance
    ModelAttributes model;
    EnvironmentAttributes environment;
    std::map<Column, std::string> missingColumns; ///< absent columns with the reason
    std::map<Table, std::string> missingTables;
    std::int64_t sampledTokens = 0;      ///< M of /hidden
    bool hasNll = false, hasNextTop1 = false;

    [[nodiscard]] int layers() const { return static_cast<int>(decoderIndex.size()); }
    [[nodiscard]] bool has(Column c) const { return !missingColumns.contains(c); }
    [[nodiscard]] bool has(Table t) const { return !missingTables.contains(t); }
};

/// A trace to read: a file (TraceReader) or a running job (LiveTrace). Thread-safe; blocks are shared and immutable.
/// Reads whole chunks through one LRU cache for all open traces. Never call block() or tokens() of a file on the GUI thread.
class TraceSource {
public:
    virtual ~TraceSource() = default;
    [[nodiscard]] virtual std::shared_ptr<const TraceInfo> info() const = 0;
    [[nodiscard]] virtual Result<std::shared_ptr<const std::vector<SequenceInfo>>> sequences() const = 0;
    /// Errors: usage (range outside the trace), input (damaged file), cancelled.
    [[nodiscard]] virtual Result<std::shared_ptr<const TokenBlock>> tokens(TokenRange range, std::stop_token stop = {}) const = 0;
    /// `layer` is the ordinal 0..L-1. Errors as tokens(), and usage when the column is absent.
    [[nodiscard]] virtual Result<std::shared_ptr<const Block>> block(Column column, int layer, TokenRange range,
                                                                     std::stop_token stop = {}) const = 0;
    [[nodiscard]] virtual Result<std::shared_ptr<const TableValue>> table(Table table, int layer) const = 0;
};

} // namespace spectra
