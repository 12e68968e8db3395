// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/run/engine.h"
#include "engine/tokenizer/tokenizer.h"

#include <cstdint>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// One sequence ready to run.
struct TokenSequence {
    std::string id, domain, label;
    std::string text;                        ///< valid UTF-8
    std::vector<std::int32_t> ids;
    std::vector<std::int32_t> byteOffsets;   ///< in `text`
    std::vector<std::uint8_t> mask;          ///< 1 counted; special tokens are not
};

struct SequenceCut {
    int sequenceLength = 512;                ///< tokens, BOS counted
    std::int64_t maxTokens = 0;              ///< per group, BOS not counted; 0: all
    bool parseSpecial = false;
    bool wholePrompt = false;                ///< never cut
    std::stop_token stop = {};
};

struct CutResult {
    std::vector<TokenSequence> sequences;
    std::int64_t tokens = 0;
    std::vector<std::string> warnings;
};

/// Tokenises prompts and cuts them. A cut never falls inside a UTF-8 character, so a sequence may be a few tokens short.
/// Bytes that are not UTF-8 become U+FFFD first. Errors: input (a prompt without tokens; ids outside the vocabulary),
/// cancelled.
[[nodiscard]] Result<CutResult> cutPrompts(const std::vector<Prompt> &prompts, const Tokenizer &tokenizer, std::int64_t vocabulary,
                                           const SequenceCut &cut);

} // namespace spectra
