// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tokenizer/mappedtext.h"
#include "engine/tokenizer/regexpattern.h"

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// A part of a mapped text: byte i of `text` is byte at + i of the text that `map` is for.
struct TextPiece {
    std::string_view text;
    const OffsetMap *map;
    std::size_t at;

    [[nodiscard]] TextPiece part(std::size_t begin, std::size_t end) const
    {
        return {text.substr(begin, end - begin), map, at + begin};
    }
};

/// The pre-tokenizer of a tokenizer.json: Split, Digits, ByteLevel, Metaspace, in a row. Pieces go one by one down the
/// row to the model; no list of them is ever made.
class PreTokenizer {
public:
    /// Errors (input): a kind that is not supported, by name; a field of the wrong type; a pattern that does not compile.
    [[nodiscard]] static Result<PreTokenizer> fromJson(const nlohmann::json &json);

    /// Words are handed on as bytes of the byte alphabet.
    [[nodiscard]] bool byteLevel() const { return m_byteLevel; }

    /// The last stop of a piece; false stops the whole run.
    using Word = std::function<bool(const TextPiece &)>;
    /// False: stopped by `word`, or failed with `error` set.
    bool run(const TextPiece &piece, RegexMatcher &matcher, const Word &word, std::optional<Error> &error) const;

    enum class Kind { split, digits, byteLevel, metaspace };
    enum class Behavior { removed, isolated, mergedWithPrevious, mergedWithNext, contiguous };
    enum class Prepend { always, first, never };

private:
    struct Step {
        Kind kind = Kind::split;
        std::string literal; // Split by a text; Metaspace: the replacement
        std::shared_ptr<const RegexPattern> pattern;
        Behavior behavior = Behavior::isolated;
        bool invert = false;
        bool individualDigits = false;
        bool addPrefixSpace = false;
        Prepend prepend = Prepend::always;
        bool split = true;
    };
    struct Context {
        RegexMatcher &matcher;
        const Word &word;
        std::optional<Error> &error;
    };
    static Result<void> add(const nlohmann::json &json, int depth, PreTokenizer &into);
    bool step(std::size_t i, const TextPiece &piece, Context &context) const;
    bool splitStep(const Step &step, std::size_t i, const TextPiece &piece, Context &context) const;
    bool digitsStep(const Step &step, std::size_t i, const TextPiece &piece, Context &context) const;
    bool byteLevelStep(const Step &step, std::size_t i, const TextPiece &piece, Context &context) const;
    bool metaspaceStep(const Step &step, std::size_t i, const TextPiece &piece, Context &context) const;
    std::vector<Step> m_steps;
    bool m_byteLevel = false;
};

} // namespace spectra
