// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <unordered_map>
#include <vector>

namespace spectra {

/// Narrow columns of all tokens that several views need: read once per trace, 17 bytes a token. Immutable.
struct TokenColumns {
    std::int64_t tokens = 0;
    std::vector<std::int32_t> id, sequence;
    std::vector<std::int32_t> nextTop1;              ///< empty when absent
    std::vector<std::uint8_t> mask;
    std::vector<float> nll;                          ///< empty when absent
    std::vector<std::int16_t> domainOfSequence;      ///< index into TraceInfo::domains, −1 unknown
    std::vector<std::int64_t> sequenceOffset;        ///< first token of each sequence, and the end
    std::unordered_map<std::int32_t, std::string> text; ///< of token ids that occur
    [[nodiscard]] int domain(std::int64_t row) const
    {
        const std::int32_t s = sequence[static_cast<std::size_t>(row)];
        return s >= 0 && static_cast<std::size_t>(s) < domainOfSequence.size() ? domainOfSequence[static_cast<std::size_t>(s)] : -1;
    }
};

/// The chosen experts and weights of one layer, all tokens. Immutable.
struct LayerRouting {
    int layer = 0, slots = 0;
    std::int64_t tokens = 0;
    std::vector<std::uint16_t> experts;   ///< [N,k]
    std::vector<float> weights;           ///< [N,k]; empty when absent
    [[nodiscard]] std::uint16_t top(std::int64_t row) const { return experts[static_cast<std::size_t>(row * slots)]; }
    [[nodiscard]] float topWeight(std::int64_t row) const
    {
        return weights.empty() ? 1.0f : weights[static_cast<std::size_t>(row * slots)];
    }
    [[nodiscard]] bool chose(std::int64_t row, int expert) const
    {
        for (int s = 0; s < slots; ++s)
            if (experts[static_cast<std::size_t>(row * slots + s)] == expert)
                return true;
        return false;
    }
};

// Cached for as long as someone holds them or they are among the last few read; safe from any thread. Expert indices
// outside the trace's range are read as "none". Errors: as TraceSource.
[[nodiscard]] Result<std::shared_ptr<const TokenColumns>> tokenColumns(const std::shared_ptr<const TraceSource> &source,
                                                                       std::stop_token stop = {});
[[nodiscard]] Result<std::shared_ptr<const LayerRouting>> layerRouting(const std::shared_ptr<const TraceSource> &source, int layer,
                                                                       std::stop_token stop = {});
/// One value per token and layer (entropy): [N].
[[nodiscard]] Result<std::shared_ptr<const std::vector<float>>> layerColumn(const std::shared_ptr<const TraceSource> &source,
                                                                            Column column, int layer, std::stop_token stop = {});

} // namespace spectra
