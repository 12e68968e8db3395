// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tokenizer/mappedtext.h"
#include "engine/tokenizer/regexpattern.h"

#include <nlohmann/json_fwd.hpp>

#include <memory>
#include <string>
#include <vector>

namespace spectra {

/// The normalizer of a tokenizer.json: NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, in a row.
class TextNormalizer {
public:
    /// Errors (input): a kind that is not supported, by name; a field of the wrong type.
    [[nodiscard]] static Result<TextNormalizer> fromJson(const nlohmann::json &json);

    [[nodiscard]] bool isIdentity() const { return m_steps.empty(); }
    /// Rewrites `text` in place.
    [[nodiscard]] Result<void> apply(MappedText &text, RegexMatcher &matcher) const;

    enum class Kind { nfc, nfd, nfkc, nfkd, lowercase, strip, prepend, replace };

private:
    struct Step {
        Kind kind = Kind::nfc;
        std::string content;   // Prepend, Replace: what is written
        std::string literal;   // Replace: the text looked for, when it is no pattern
        std::shared_ptr<const RegexPattern> pattern;
        bool left = true, right = true; // Strip
    };
    static Result<void> add(const nlohmann::json &json, int depth, std::vector<Step> &steps);
    static Result<void> applyStep(const Step &step, MappedText &text, RegexMatcher &matcher);
    std::vector<Step> m_steps;
};

} // namespace spectra
