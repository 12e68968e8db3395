// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace spectra {

/// QK-clip (Kimi K2, arXiv 2507.20534, section 2.1): shrinks the projections of heads whose largest attention logit of the last
/// batch is above `tau`, so that the same batch would stay at or below it. Kimi K2 scales W_q and W_k of such a head by
/// √(τ/S_max) each. With grouped queries a key head serves several query heads, so the split of the factor is ours: the key
/// head takes √γ of the *mildest* of its group's factors γ_h = min(1, τ/S_max,h), and each query head the rest of its own,
/// γ_h / √(max γ). No head is shrunk more than its own γ_h asks; with one query head per key head it is Kimi K2's rule.
///
/// `qkvWeight`: [(heads + 2·kvHeads)·headDim, H] f32 in order, rows q, k, v; changed in place. `qkvBias`: the same rows of a
/// bias, or undefined; scaled alike, for logits are products of both. `maxLogits`: [heads], largest q·k/√headDim; values
/// that are not finite or not above `tau` leave a head alone. tau > 0. Returns the number of heads clipped.
std::int64_t qkClip(torch::Tensor qkvWeight, torch::Tensor qkvBias, std::int64_t heads, std::int64_t kvHeads, std::int64_t headDim,
                    const torch::Tensor &maxLogits, double tau);

} // namespace spectra
