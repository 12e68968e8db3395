// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

namespace spectra {

/// Grouped-query attention over a KV cache.
struct AttentionShape {
    std::int64_t heads = 0, kvHeads = 0, headDim = 0;
    std::int64_t window = 0;             ///< sliding window in tokens, itself included; 0: none
    [[nodiscard]] std::int64_t queryWidth() const { return heads * headDim; }
    [[nodiscard]] std::int64_t keyWidth() const { return kvHeads * headDim; }
    [[nodiscard]] std::int64_t width() const { return (heads + 2 * kvHeads) * headDim; }
};

/// Puts the keys and values of rows [first, first + n) of `qkv` at positions [position, position + n) of the cache.
void storeKeysValues(const torch::Tensor &qkv, std::int64_t first, std::int64_t n, torch::Tensor &keys, torch::Tensor &values,
                     std::int64_t position, const AttentionShape &shape);

/// Puts the keys and values of `qkv` rows (already rotated) at positions [position, position + n) of the cache, then lets
/// every row attend to all positions up to its own. qkv and out are whole buffers of which rows [first, first + n) are this
/// sequence's. keys and values: [kvHeads, capacity, headDim].
void attend(torch::Tensor &out, const torch::Tensor &qkv, std::int64_t first, std::int64_t n, torch::Tensor &keys, torch::Tensor &values,
            std::int64_t position, const AttentionShape &shape, bool bf16);

} // namespace spectra
