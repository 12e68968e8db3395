// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

struct BpeTrainOptions {
    std::int64_t vocabulary = 4096;                          ///< tokens in all: 256 bytes, special tokens, merges
    std::vector<std::string> specialTokens = {"<|endoftext|>"}; ///< first ids; the first one ends a text
    std::int64_t minimumFrequency = 2;                       ///< of a pair that is merged
};

/// Trains a byte-level BPE vocabulary (Sennrich et al. 2016 on bytes, pre-tokenised as GPT-2 does). Text comes in pieces; only
/// the counts of distinct words are kept. Ties between pairs go to the one whose ids are lower, as Hugging Face `tokenizers`
/// decides, so the result is the same at any order of pieces.
class BpeTrainer {
public:
    explicit BpeTrainer(BpeTrainOptions options);
    ~BpeTrainer();
    /// One document, or a piece that ends where a document may be cut.
    void add(std::string_view text);
    /// The text of a tokenizer.json that Tokenizer::fromJson() and Hugging Face `tokenizers` read. Errors: usage (vocabulary below
    /// 256 + special tokens), input (too little text: fewer merges than asked for, which are named), cancelled.
    [[nodiscard]] Result<std::string> train(const ProgressFunction &progress, std::stop_token stop);

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
