// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// One line of a data file: an object with its place for errors. All errors are of kind input and name the line and the key.
class JsonLine {
public:
    JsonLine(const nlohmann::json &object, std::string where, std::int64_t number)
        : m_object(&object), m_where(std::move(where)), m_number(number)
    {
    }
    [[nodiscard]] const std::string &where() const { return m_where; }
    [[nodiscard]] std::int64_t number() const { return m_number; } ///< from 1
    [[nodiscard]] const nlohmann::json &object() const { return *m_object; }

    /// The first of these keys that is there and not null; nullptr: none.
    [[nodiscard]] const nlohmann::json *find(std::initializer_list<const char *> keys) const;
    [[nodiscard]] bool has(const char *key) const { return find({key}) != nullptr; }
    /// A string under the first of these keys that is there.
    [[nodiscard]] Result<std::string> text(std::initializer_list<const char *> keys) const;
    /// The same, never blank.
    [[nodiscard]] Result<std::string> filledText(std::initializer_list<const char *> keys) const;
    /// A list of strings.
    [[nodiscard]] Result<std::vector<std::string>> texts(std::initializer_list<const char *> keys) const;
    /// A whole number, also as text ("3").
    [[nodiscard]] Result<std::int64_t> integer(std::initializer_list<const char *> keys) const;
    /// A string or number as text, or the line's number: names an item.
    [[nodiscard]] std::string id(std::initializer_list<const char *> keys) const;
    [[nodiscard]] Error error(std::string what, std::string mend = {}) const { return inputError(std::move(what), m_where, std::move(mend)); }
    [[nodiscard]] Error missing(std::initializer_list<const char *> keys) const;

private:
    const nlohmann::json *m_object;
    std::string m_where;
    std::int64_t m_number;
};

/// Calls `line` for every JSON line that is not blank. A file that is one JSON array of objects is read as its elements.
/// Errors (input): not UTF-8 JSON objects, nested too deeply, none at all; what `line` returns.
[[nodiscard]] Result<void> forEachLine(std::string_view content, const std::string &name, const std::function<Result<void>(const JsonLine &)> &line);

} // namespace spectra
