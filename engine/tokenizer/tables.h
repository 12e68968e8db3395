// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tokenizer/addedtokens.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/decodechain.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/pretokenizer.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace spectra {

/// What a tokenizer.json or a GGUF vocabulary says, before it is checked.
struct TokenizerSpec {
    nlohmann::json normalizer, preTokenizer, postProcessor, decoder; // null: none
    std::vector<AddedToken> added;
    std::vector<std::pair<std::string, std::int64_t>> vocabulary;
    std::vector<std::pair<std::string, std::string>> merges; // in order of rank
    std::vector<std::uint32_t> ranks; // of the merges, where some are equal; empty: their places
    std::string unknown, prefix, suffix;
    bool hasUnknown = false;
    bool byteFallback = false, fuseUnknown = false, ignoreMerges = false;
    std::int64_t bos = -1, eos = -1, eot = -1;
    std::string chatTemplate;
};

/// A loaded tokenizer: only read after build().
struct TokenizerTables {
    TextNormalizer normalizer;
    PreTokenizer preTokenizer;
    DecoderSpec decoder;
    BpeModel model;
    std::vector<std::int32_t> before, after; // what the post-processor adds
    std::vector<std::string> piecesById;     // spelling; added tokens: their content
    std::vector<std::uint8_t> kinds;         // by id: bits below
    std::vector<AddedToken> added;
    AddedTokenFinder rawFinder;        // tokens looked for in the text as given
    AddedTokenFinder normalizedFinder; // tokens looked for in the normalized text
    std::unordered_map<std::string_view, std::int32_t> idsByPiece;
    std::int32_t bos = -1, eos = -1, eot = -1;
    std::string chatTemplate;
    std::string normalizerJson, preTokenizerJson, postProcessorJson, decoderJson; // as given, for toJson()
    std::string unknown;
    bool hasUnknown = false;

    static constexpr std::uint8_t inModel = 1, isAdded = 2, isSpecial = 4;

    [[nodiscard]] bool has(std::int32_t id) const { return id >= 0 && std::size_t(id) < kinds.size() && kinds[std::size_t(id)] != 0; }
};

/// Checks a specification and makes the tables. Errors (input): places inside the file, e.g. "model.merges[7]".
[[nodiscard]] Result<std::unique_ptr<const TokenizerTables>> buildTokenizer(TokenizerSpec spec);

/// Errors (input): not JSON, nested deeper than 64, a field of the wrong type.
[[nodiscard]] Result<TokenizerSpec> specFromJson(std::string_view json);
/// Adds what a tokenizer_config.json says (bos, eos, chat template); what it does not say stays.
[[nodiscard]] Result<void> addConfig(std::string_view json, TokenizerSpec &spec);
/// Parses JSON of at most 64 levels. Errors (input), with the byte.
[[nodiscard]] Result<nlohmann::json> parseJson(std::string_view text);

} // namespace spectra
