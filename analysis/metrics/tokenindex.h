// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <stop_token>
#include <vector>

namespace spectra::detail {

/// What the metrics need to know of every token, read once: 1 to 9 bytes each.
struct TokenIndex {
    enum Flag : std::uint8_t {
        counted = 1, ///< mask 1 and selected
        linked = 2,  ///< the token before is counted, of the same sequence and one position ahead of it
        generated = 4,
        starts = 8, ///< first counted token of its sequence
    };
    std::vector<std::uint8_t> flags;           ///< [N]
    std::vector<std::uint32_t> type, nextType; ///< [N] index among the vocabulary ids seen; empty unless asked for
    std::int64_t types = 0, nextTypes = 0;
    std::vector<std::int64_t> firstToken; ///< runs of one sequence: first token, closed by N
    std::vector<std::int32_t> runSequence;
    std::vector<std::int32_t> domain;          ///< [S] −1: none
    std::vector<std::int64_t> sequenceTokens;  ///< [S] counted
    std::vector<std::uint8_t> sequencePartial; ///< [S] 1: some counted tokens are not selected
    std::int64_t tokens = 0, countedTokens = 0, excludedTokens = 0;
    bool hasGenerated = false;
    bool selected = false; ///< a selection leaves counted tokens out

    [[nodiscard]] bool has(std::int64_t token, Flag flag) const
    {
        return (flags[static_cast<std::size_t>(token)] & flag) != 0;
    }
};

struct TokenIndexOptions {
    bool types = false, nextTypes = false;
    const RowSet *selection = nullptr;
    std::int64_t blockTokens = 16384;
};

/// Errors: input (sequence numbers that do not exist or go back), cancelled.
[[nodiscard]] Result<TokenIndex> readTokenIndex(const TraceSource &trace, const TokenIndexOptions &options,
                                                std::stop_token stop);

} // namespace spectra::detail
