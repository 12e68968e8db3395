// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace spectra {

/// All that one sequence carries from pass to pass: keys and values of every layer and the router's state over tokens.
/// They are cloned, cut and dropped together. Not thread-safe; owned by the engine thread.
class SequenceState {
public:
    /// Number of tokens that have passed through the model: the position of the next one.
    [[nodiscard]] std::int64_t length() const { return m_length; }
    /// Tokens that fit before the cache grows again.
    [[nodiscard]] std::int64_t capacity() const;
    /// Bytes held by keys and values.
    [[nodiscard]] std::uint64_t bytes() const;

    /// A deep copy of the used part, with room for `reserve` further tokens.
    [[nodiscard]] SequenceState clone(std::int64_t reserve = 0) const;
    /// The router's part alone: small, a snapshot to which truncate() can go back.
    [[nodiscard]] RouterState routerSnapshot() const { return m_router.clone(); }
    /// Goes back to the first `length` tokens. A router with a state over tokens needs the snapshot taken at that length.
    /// Errors (usage): longer than the state, or no snapshot for a router that has a state.
    [[nodiscard]] Result<void> truncate(std::int64_t length, const RouterState *snapshot = nullptr);

private:
    friend class Model;
    friend class Decoder;
    std::int64_t m_length = 0;
    std::vector<torch::Tensor> m_keys, m_values; ///< per decoder layer [kvHeads, capacity, headDim]
    RouterState m_router;                        ///< token part [1, L_moe, E·D]
};

} // namespace spectra
