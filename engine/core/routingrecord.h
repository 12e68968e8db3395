// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/capture.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace spectra {

inline constexpr std::uint16_t kNoExpert = 65535;

/// What one MoE layer decided for a range of tokens: the only form in which routing leaves the engine.
/// Spans point into `buffer`, which all of them share; a span is empty when its field was not captured or the router
/// does not have it. Row-major, one row per token of the range. Immutable once handed over; safe to share.
struct RoutingRecord {
    int layer = 0;               ///< ordinal among the traced MoE layers, 0..L-1
    int decoderLayer = 0;        ///< decoder index of that layer
    std::int64_t firstToken = 0; ///< running token number in the trace
    std::int64_t tokens = 0;     ///< rows n
    int experts = 0, slots = 0, routerDim = 0, hidden = 0; ///< E, k, D, H
    FieldMask present = 0;
    std::shared_ptr<const std::vector<std::byte>> buffer;

    std::span<const std::uint16_t> expertIds;     ///< [n,k] descending weight, kNoExpert = none
    std::span<const float> weights;               ///< [n,k]
    std::span<const std::uint8_t> dropped;        ///< [n]
    std::span<const float> logits;                ///< [n,E]
    std::span<const float> selection;             ///< [n,E]
    std::span<const float> probabilities;         ///< [n,E]
    std::span<const float> entropy;               ///< [n] nats
    std::span<const float> routingVectors;        ///< [n,E,D]
    std::span<const float> expressionVectors;     ///< [n,E,D]
    std::span<const float> gruState;              ///< [n,E·D]
    std::span<const float> hiddenStates;          ///< [n,H] router inputs; only in records of sampled sequences
    std::span<const float> expertOutputs;         ///< [n,k,H]; only in records of sampled sequences
    std::span<const float> sinkhornPotentials;    ///< [E] of this transport batch, routers with a transport over tokens
    float sinkhornViolation = -1;                 ///< relative column violation of this batch, < 0: none
};

/// Narrow token columns of a range. Vectors have `id.size()` entries or are empty (nll, nextTop1).
struct TokenRecord {
    std::int64_t firstToken = 0;
    std::int32_t sequence = 0;
    std::vector<std::int32_t> id;
    std::vector<std::string> text;          ///< printable UTF-8 of each token's own bytes
    std::vector<std::int32_t> position;
    std::vector<std::uint8_t> phase;        ///< 0 prompt, 1 generated
    std::vector<std::uint8_t> mask;         ///< 1 counted
    std::vector<std::int32_t> byteOffset;   ///< in the UTF-8 of the sequence's text
    std::vector<float> nll;                 ///< NaN for the sequence's last
    std::vector<std::int32_t> nextTop1;
};

/// One sequence of a trace. `length` and `text` of a generated sequence are complete only when it ends.
struct SequenceInfo {
    std::string id, domain, text, label;
    std::int64_t offset = 0;       ///< first token
    std::int64_t length = 0;       ///< tokens
    std::int32_t promptLength = 0; ///< of which prompt
    std::int32_t counted = 0;      ///< of which counted (mask 1)
};

/// Mean raw vectors over one sequence's counted tokens, [E,D] each (empty: the router has none).
struct SequenceMeans {
    int layer = 0;
    std::int32_t sequence = 0;
    std::vector<float> routing, expression;
};

/// What is known of a layer only at the end of a run, or of the model as such. Empty vectors: absent.
struct LayerTables {
    int layer = 0;
    std::vector<float> routerWeights;        ///< [E,H]
    std::vector<float> bufferMeanExpression; ///< [E,D]
    std::vector<float> bufferPotential;      ///< [E]
    std::vector<double> expertInputSum;      ///< [E,H] sums over counted tokens
    std::vector<double> expertOutputSum;     ///< [E,H]
    std::vector<std::int64_t> expertCount;   ///< [E] counted assignments
};

} // namespace spectra
