// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

namespace spectra {

/// A gated FFN, or a bank of them with a leading expert axis. Gate rows come first in `gateUp`, up rows after.
struct FfnWeights {
    torch::Tensor gateUp;                ///< [2I, H] or [E, 2I, H]
    torch::Tensor down;                  ///< [H, I] or [E, H, I]
    torch::Tensor gateUpBias, downBias;  ///< [2I], [H], or with an expert axis; undefined: none
    std::int64_t intermediate = 0;
};

struct LayerWeights {
    torch::Tensor inputNorm, postNorm;   ///< [H] f32
    torch::Tensor qkv, qkvBias;          ///< [(heads + 2·kvHeads)·headDim, H]
    torch::Tensor output, outputBias;    ///< [H, heads·headDim]
    int ordinal = -1;                    ///< among the MoE layers; −1: dense
    FfnWeights dense, experts, shared;
};

/// All weights of a decoder but the router's. Matrices are f32 or bf16, norms and biases f32.
struct Weights {
    torch::Tensor embedding;             ///< [V, H]
    torch::Tensor head;                  ///< [V, H]; the embedding itself when tied
    torch::Tensor finalNorm;             ///< [H]
    std::vector<LayerWeights> layers;
    [[nodiscard]] std::uint64_t bytes() const;
};

/// Reads, dequantises and fuses; each value is written once into the memory it stays in. Errors: input, cancelled.
[[nodiscard]] Result<Weights> readWeights(const Checkpoint &checkpoint, torch::ScalarType type, torch::Device device,
                                          const ProgressFunction &progress, std::stop_token stop);

/// One tensor by name as f32 on the CPU; undefined when there is none. Errors (input): another shape.
[[nodiscard]] Result<torch::Tensor> readTensor(const Checkpoint &checkpoint, const std::string &name, const std::vector<std::int64_t> &shape);

} // namespace spectra
