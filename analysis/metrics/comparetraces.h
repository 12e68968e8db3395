// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"

#include <cstdint>
#include <optional>
#include <stop_token>
#include <vector>

namespace spectra {

/// Agreement of the routing of one layer in two traces of the same tokens.
struct LayerConsistency {
    int layer = 0;      ///< ordinal in the first trace
    int otherLayer = 0; ///< ordinal of the same decoder layer in the second
    std::int64_t tokens = 0;
    double raw = 0;                   ///< share of tokens with the same expert set
    double matched = 0;               ///< the same after the best renaming of the second trace's experts
    double top1 = 0, top1Matched = 0; ///< share with the same first expert
    double saturation = 0;     ///< mean |A∩B| / k (OLMoE's router saturation, with the second as the final one)
    std::vector<int> matching; ///< second trace's expert → first trace's expert, −1: none left
};
struct TraceConsistency {
    std::int64_t matchedTokens = 0;   ///< same sequence id, position and token id
    std::int64_t unmatchedTokens = 0; ///< counted tokens of the first trace without a partner
    std::vector<LayerConsistency> layers;
    double raw = 0, matched = 0, saturation = 0; ///< unweighted means over layers
};
/// `routing_consistency`. Errors: input (no common token, no common layer, damaged), cancelled.
[[nodiscard]] Result<TraceConsistency> routingConsistency(const TraceSource &first, const TraceSource &second,
                                                          std::stop_token stop = {});

} // namespace spectra
