// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace spectra {

/// The vocabulary that a GGUF file carries (keys tokenizer.ggml.*), handed from the checkpoint to the tokenizer.
struct GgufVocabulary {
    std::string model;                       ///< "gpt2" or "llama"
    std::string pre;                         ///< name of the pre-tokenizer, may be empty
    std::vector<std::string> tokens;
    std::vector<std::int32_t> types;         ///< 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte; may be empty
    std::vector<float> scores;               ///< may be empty
    std::vector<std::string> merges;         ///< "a b"
    std::int64_t bos = -1, eos = -1, eot = -1, unknown = -1, padding = -1;
    int addBos = -1, addEos = -1;            ///< -1: not said
    int addSpacePrefix = -1;
    std::string chatTemplate;
};

} // namespace spectra
