// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/modelconfig.h"
#include "engine/core/result.h"
#include "engine/model/attention.h"
#include "engine/model/linear.h"
#include "engine/model/pass.h"
#include "engine/model/rope.h"
#include "engine/model/weights.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace spectra {

/// The layers, as Llama and Mixtral have them: x += attention(norm(x)); x += FFN or experts(norm(x)). Internal to Model.
class Decoder {
public:
    Decoder(const ModelConfig &config, const Weights &weights, Router *router, Rope rope, torch::Device device);

    /// Runs everything in `input`, cut into pieces as the router's needs allow.
    [[nodiscard]] Result<torch::Tensor> run(const PassInput &input, const PassHooks &hooks);
    /// Room for `tokens` in all. Errors (input): too large for this machine.
    [[nodiscard]] Result<void> reserve(SequenceState &state, std::int64_t tokens) const;
    [[nodiscard]] Workspace &workspace() { return m_workspace; }

private:
    /// Part of one sequence in a piece.
    struct Segment {
        std::size_t sequence = 0;
        std::int64_t begin = 0, count = 0;   ///< tokens of the sequence's input
        std::int64_t first = 0;              ///< row in the piece
        std::int64_t position = 0;
        std::int64_t length = 0;             ///< tokens of the sequence when the whole pass is done
        SequenceState *state = nullptr;
    };
    struct Piece {
        std::vector<Segment> segments;
        std::int64_t firstRow = 0, rows = 0;
    };
    struct PieceData;

    /// Where the caller asks for last tokens only and nobody looks at the last layer's output of the others, that output is
    /// not made.
    void prune(PieceData &data, const PassInput &input, const PassHooks &hooks) const;
    [[nodiscard]] std::vector<Piece> cut(const PassInput &input) const;
    /// Leaves the residual stream of the piece in the workspace. Moves the states on.
    [[nodiscard]] Result<void> runPiece(const Piece &piece, const PassInput &input, const PassHooks &hooks);
    void attention(const LayerWeights &w, std::size_t layer, PieceData &data);
    [[nodiscard]] Result<void> feedForward(const LayerWeights &w, int layer, PieceData &data, const PassHooks &hooks);
    void loadRouterState(PieceData &data) const;
    void storeRouterState(PieceData &data) const;

    const ModelConfig &m_config;
    const Weights &m_weights;
    Router *m_router;
    Rope m_rope;
    AttentionShape m_shape;
    torch::Device m_device;
    Workspace m_workspace;
};

} // namespace spectra
