// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/vocabulary.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

struct TokenizerTables; // the loaded tokenizer (tables.h)

/// Text to token ids and back, token for token as Hugging Face `tokenizers` does it: byte-level BPE, and BPE over
/// characters with byte fallback (SentencePiece). Immutable after loading; every member is const and thread-safe.
///
/// Text need not be valid UTF-8. A run of bytes that is not UTF-8 is a piece of its own: no pattern looks across it, and
/// it becomes byte tokens (byte-level models and models with byte fallback) or one U+FFFD per byte (all others).
class Tokenizer {
public:
    struct EncodeOptions {
        bool addSpecial = true;    ///< what the post-processor adds, e.g. the beginning-of-sequence token
        bool parseSpecial = false; ///< text that spells a special token becomes that token
        std::stop_token stop = {}; ///< asked at every word: a book takes seconds
    };
    struct Encoding {
        std::vector<std::int32_t> ids;
        std::vector<std::int32_t> byteOffsets; ///< where each token starts in the given text, bytes; never decreasing.
                                               ///< Added tokens: 0 before the text, its length after it.
        std::vector<std::uint8_t> special;     ///< 1: a special token
    };

    /// Reads a tokenizer.json, and beside it tokenizer_config.json when there is one (bos, eos, chat template).
    /// Errors (input): missing, larger than 256 MiB, malformed, or it uses what is not supported, which is named.
    [[nodiscard]] static Result<std::shared_ptr<const Tokenizer>> fromJsonFile(const std::filesystem::path &path);
    /// `where` names the source in errors; `config` is the text of a tokenizer_config.json, or empty.
    [[nodiscard]] static Result<std::shared_ptr<const Tokenizer>> fromJson(std::string_view json, std::string where,
                                                                           std::string_view config = {});
    /// GGUF models `gpt2` (with the names of `pre` that ggufPreNames() lists) and `llama` (SentencePiece scores).
    [[nodiscard]] static Result<std::shared_ptr<const Tokenizer>> fromGguf(const GgufVocabulary &vocabulary,
                                                                           std::string where);
    /// Names of GGUF pre-tokenizers that are understood.
    [[nodiscard]] static std::vector<std::string> ggufPreNames();

    /// Errors: input (text of 2 GiB or more; a pattern that needs more steps than allowed on this text), cancelled.
    /// Time grows as n log n in the length of the longest piece. Memory: a small multiple of the text.
    [[nodiscard]] Result<Encoding> encode(std::string_view text, EncodeOptions options) const;
    [[nodiscard]] Result<Encoding> encode(std::string_view text) const { return encode(text, EncodeOptions()); }

    /// What one token stands for in the text, bytes: possibly half a character. Special tokens: their text. Ids that the
    /// vocabulary does not have: empty.
    [[nodiscard]] std::string tokenBytes(std::int32_t id) const;
    /// The vocabulary's own spelling ("Ġthe", "▁the", "<0x0A>").
    [[nodiscard]] std::string piece(std::int32_t id) const;
    /// The text of a sequence by the tokenizer's decoder; always valid UTF-8 (bytes that are not become U+FFFD). Unknown
    /// ids are left out.
    [[nodiscard]] std::string decode(std::span<const std::int32_t> ids, bool skipSpecial = false) const;

    [[nodiscard]] std::int32_t size() const; ///< largest id + 1
    [[nodiscard]] std::optional<std::int32_t> idOf(std::string_view piece) const;
    [[nodiscard]] std::optional<std::int32_t> bos() const;
    [[nodiscard]] std::optional<std::int32_t> eos() const;
    /// True when encode() with addSpecial puts a token before the text.
    [[nodiscard]] bool addsBos() const;
    [[nodiscard]] bool isSpecial(std::int32_t id) const;
    /// Tokens that end a text or a turn, ascending: eos, eot and the special tokens of well-known end names.
    [[nodiscard]] std::vector<std::int32_t> endIds() const;
    /// The Jinja text that a checkpoint brings, or empty.
    [[nodiscard]] std::string chatTemplate() const;

    /// A tokenizer.json that reads back to an equal tokenizer, here and in Hugging Face `tokenizers`.
    [[nodiscard]] std::string toJson() const;
    /// The tokenizer_config.json that goes beside it: bos, eos, chat template.
    [[nodiscard]] std::string toConfigJson() const;
    /// Of toJson(): equal for equal tokenizers, however they were loaded.
    [[nodiscard]] std::string sha256() const;

    ~Tokenizer();
    Tokenizer(const Tokenizer &) = delete;
    Tokenizer &operator=(const Tokenizer &) = delete;

private:
    explicit Tokenizer(std::unique_ptr<const TokenizerTables> tables);
    friend class StreamDecoder;
    std::unique_ptr<const TokenizerTables> m_tables;
};

class DecodeChain;

/// decode() one token at a time: the pieces that push() returns and what finish() adds make up decode() of all ids.
/// Whatever a later token could still change is held back, incomplete UTF-8 above all. Not thread-safe.
class StreamDecoder {
public:
    explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer, bool skipSpecial = false);
    ~StreamDecoder();
    StreamDecoder(StreamDecoder &&) noexcept;
    StreamDecoder &operator=(StreamDecoder &&) noexcept;

    [[nodiscard]] std::string push(std::int32_t id);
    /// The rest. The decoder then starts over.
    [[nodiscard]] std::string finish();

private:
    std::shared_ptr<const Tokenizer> m_tokenizer;
    std::unique_ptr<DecodeChain> m_chain;
    bool m_skipSpecial;
};

} // namespace spectra
