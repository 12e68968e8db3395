// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

/// The differentiable operations of a decoder layer, each one autograd node. f32 on the CPU; matrices in bf16 where asked for.
/// Weights must be leaves: backward adds their gradients to .grad itself (gradientPlace() in traintasks.h says why) and gives
/// autograd only those of the activations. Nothing depends on the number of threads, and nothing is drawn.
namespace spectra::train {

/// Rows of `table` [V,H] at ids [N] i64: [N,H].
[[nodiscard]] torch::Tensor embed(const torch::Tensor &table, const torch::Tensor &ids);

/// x [N,H] / √(mean x² + ε) · w [H] per row (Zhang and Sennrich 2019).
[[nodiscard]] torch::Tensor rmsNorm(const torch::Tensor &x, const torch::Tensor &w, double epsilon);

/// residual [N,O] + x [N,I]·wᵀ (+ bias); residual and bias may be undefined.
[[nodiscard]] torch::Tensor linear(const torch::Tensor &residual, const torch::Tensor &x, const torch::Tensor &w, const torch::Tensor &bias, bool bf16);

struct AttentionSizes {
    std::int64_t sequences = 0, length = 0, heads = 0, kvHeads = 0, headDim = 0;
    std::int64_t window = 0;             ///< tokens that a token sees, itself included; 0: all before it
};
/// Causal attention inside each sequence of qkv [S·T, (heads + 2·kvHeads)·headDim], after rotating queries and keys by cos and sin
/// [T, half]: [S·T, heads·headDim].
[[nodiscard]] torch::Tensor attention(const torch::Tensor &qkv, const torch::Tensor &cos, const torch::Tensor &sin, const AttentionSizes &sizes, bool bf16);
/// Largest q·k/√d of each head over all pairs that attention sees: [heads]. No gradient.
[[nodiscard]] torch::Tensor largestLogits(const torch::Tensor &qkv, const torch::Tensor &cos, const torch::Tensor &sin, const AttentionSizes &sizes);

/// Mean cross entropy over the targets ≥ 0.
struct HeadLoss {
    torch::Tensor loss;                  ///< scalar, nats; 0 without targets
    torch::Tensor nll;                   ///< [N]; NaN without a target; no gradient
};
/// Of the logits x [N,H]·wᵀ with w [V,H] and targets [N] i64. Logits are made and used up in blocks of rows, gradients on the way.
[[nodiscard]] HeadLoss headLoss(const torch::Tensor &x, const torch::Tensor &w, const torch::Tensor &targets, bool bf16);

} // namespace spectra::train
