// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

struct BpeTrainOptions {
    std::int64_t vocabulary = 4096;                             ///< tokens in all: special tokens, 256 bytes, merges
    std::vector<std::string> specialTokens = {"<|endoftext|>"}; ///< first ids; the first one ends a text
    std::int64_t minimumFrequency = 2;                          ///< of a pair that is merged
};

/// Trains a byte-level BPE vocabulary (Sennrich et al. 2016 on bytes, pre-tokenised as GPT-2 does). Text comes in pieces; only
/// the counts of distinct words are kept. Ties between pairs go to the one whose ids are lower, as Hugging Face `tokenizers`
/// decides, so the result is the same at any order of pieces and equal to that library's.
class BpeTrainer {
public:
    explicit BpeTrainer(BpeTrainOptions options);
    ~BpeTrainer();
    BpeTrainer(const BpeTrainer &) = delete;
    BpeTrainer &operator=(const BpeTrainer &) = delete;

    /// One document, or a piece that ends where a document may be cut. Bytes that are not UTF-8 are a word of their own, as
    /// Tokenizer::encode() takes them. What goes wrong is told by train().
    void add(std::string_view text);
    /// The text of a tokenizer.json that Tokenizer::fromJson() and Hugging Face `tokenizers` read. The words stay: it may be
    /// called again. Errors: usage (vocabulary below 256 + special tokens; special tokens empty, twice or a single byte's
    /// spelling), input (too little text: how many tokens it gives is named), cancelled.
    [[nodiscard]] Result<std::string> train(const ProgressFunction &progress, std::stop_token stop);
    /// The tokenizer_config.json that goes with it: the first special token ends a text.
    [[nodiscard]] std::string configJson() const;

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
