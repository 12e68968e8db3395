// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tokenizer/regexpattern.h"
#include "engine/tokenizer/utf8.h"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace spectra::jsonfields {

inline constexpr int deepestSequence = 8; ///< of nested "Sequence" elements

/// A field that may be absent; errors (input) when it is there with another type.
[[nodiscard]] inline Result<bool> flag(const nlohmann::json &object, const char *key, bool otherwise)
{
    const auto it = object.find(key);
    if (it == object.end() || it->is_null())
        return otherwise;
    if (!it->is_boolean())
        return inputError("a true or false was expected", key);
    return it->get<bool>();
}
[[nodiscard]] inline Result<std::string> text(const nlohmann::json &object, const char *key, std::string otherwise)
{
    const auto it = object.find(key);
    if (it == object.end() || it->is_null())
        return otherwise;
    if (!it->is_string())
        return inputError("a text was expected", key);
    return it->get<std::string>();
}
[[nodiscard]] inline Result<std::string> requiredText(const nlohmann::json &object, const char *key)
{
    const auto it = object.find(key);
    if (it == object.end() || !it->is_string())
        return inputError("a text was expected", key);
    return it->get<std::string>();
}
/// The "type" of an element of the pipeline.
[[nodiscard]] inline Result<std::string> type(const nlohmann::json &object)
{
    if (!object.is_object())
        return inputError("an object was expected");
    return requiredText(object, "type");
}
/// {"String": …} or {"Regex": …}: sets the one or the other.
[[nodiscard]] inline Result<void> pattern(const nlohmann::json &object, std::string &literal,
                                          std::shared_ptr<const RegexPattern> &regex)
{
    const auto it = object.find("pattern");
    if (it == object.end() || !it->is_object() || it->size() != 1)
        return inputError("one of String and Regex was expected", "pattern");
    if (const auto s = it->find("String"); s != it->end() && s->is_string()) {
        literal = s->get<std::string>();
        return literal.empty() ? Result<void>(inputError("the text to look for is empty", "pattern")) : Result<void>();
    }
    const auto r = it->find("Regex");
    if (r == it->end() || !r->is_string())
        return inputError("one of String and Regex was expected", "pattern");
    auto compiled = RegexPattern::compile(r->get<std::string>());
    if (!compiled)
        return compiled.error();
    regex = std::move(compiled).value();
    return {};
}

} // namespace spectra::jsonfields
