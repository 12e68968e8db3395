// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/capture.h"
#include "engine/model/sequencestate.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stop_token>
#include <vector>

namespace spectra {

/// One sequence's tokens in a pass.
struct SequenceInput {
    std::span<const std::int32_t> tokens;
    std::span<const std::uint8_t> mask;  ///< 1 = counted; empty: all. As long as `tokens`
    SequenceState *state = nullptr;      ///< continues it and moves it on; nullptr: a whole sequence that nobody continues
};

/// What goes through the decoder at once. Rows are the tokens of all sequences one after the other, N in all.
struct PassInput {
    std::vector<SequenceInput> sequences;
    /// Rows per piece of a prefill. Token-scope routers: pieces of at most this many rows, equal to one pass. Sequence
    /// scope: whole sequences, as many as fit (at least one). Batch scope: everything at once.
    std::int64_t chunk = 512;
    /// Keep the final hidden state of each sequence's last token only: [S,H] instead of [N,H].
    bool lastOnly = false;
};

/// Experts of one layer put in or taken out after routing. First a forced expert takes the slot of least weight of every
/// token that has not chosen it, and that slot's weight (several take the last slots in order). Then a masked expert's
/// weight becomes 0 and the others of the token are renormalised to the same sum (all masked: the routed part is 0).
struct Intervention {
    std::vector<int> masked, forced;
};

/// What one MoE layer did with the rows [firstRow, firstRow + n) of the pass. Tensors live until the call returns.
struct RoutingLayer {
    int decoderLayer = 0;
    int ordinal = 0;                     ///< among the MoE layers
    std::int64_t firstRow = 0;
    const RoutingStep &step;             ///< as applied, after interventions
    const torch::Tensor &input;          ///< [n,H] f32: the router's input
    torch::Tensor expertOutputs;         ///< [m,k,H] f32 unweighted outputs of the chosen experts for the rows asked for; undefined: none
    std::vector<std::int64_t> outputRows; ///< rows (of the pass) of expertOutputs, ascending
};

/// Sums over counted tokens of what went into and came out of each expert of one layer (unweighted).
struct ExpertSums {
    torch::Tensor input, output;         ///< [E,H] f64, CPU
    std::vector<std::int64_t> count;     ///< [E]
};

/// Seconds spent, added up over passes.
struct PassTiming {
    double attention = 0, router = 0, experts = 0, dense = 0, head = 0, capture = 0;
};

/// What a caller wants to see and change of a pass. Calls come on the calling thread, in row order per layer.
struct PassHooks {
    Capture capture;                                            ///< optional tensors wanted in RoutingStep
    std::function<void(const RoutingLayer &)> onLayer;
    /// Residual stream [n,H] f32: decoderLayer −1 is the embedding, l the output of layer l (before the final norm).
    std::function<void(int decoderLayer, std::int64_t firstRow, const torch::Tensor &hidden)> onHidden;
    std::function<bool(std::int64_t row)> wantExpertOutputs;    ///< rows of the pass whose expert outputs are kept
    std::vector<ExpertSums> *expertSums = nullptr;              ///< one per MoE layer; made when empty
    std::map<int, Intervention> interventions;                  ///< by decoder layer
    PassTiming *timing = nullptr;
    std::function<void(std::int64_t rowsDone, std::int64_t rows)> onProgress;
    std::stop_token stop;                                       ///< checked several times per layer
};

/// Per-token scores of a prompt.
struct TokenScores {
    std::vector<float> nll;              ///< −log p(target), nats; NaN where target < 0
    std::vector<std::int32_t> top1;      ///< most likely next token
};

} // namespace spectra
