// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <memory>
#include <string>
#include <string_view>

namespace spectra {

/// A compiled pattern of a tokenizer.json, shared between threads. The file's dialect is Oniguruma's (Ruby syntax); the
/// pattern is rewritten where PCRE2 would silently read it otherwise, or refused.
class RegexPattern {
public:
    /// Errors (input): does not compile, or means something else to PCRE2 (set operations, nested classes, \h …).
    [[nodiscard]] static Result<std::shared_ptr<const RegexPattern>> compile(std::string_view pattern);
    ~RegexPattern();
    RegexPattern(const RegexPattern &) = delete;
    RegexPattern &operator=(const RegexPattern &) = delete;

    [[nodiscard]] const std::string &source() const { return m_source; }

private:
    friend class RegexMatcher;
    RegexPattern() = default;
    struct Code;
    std::unique_ptr<Code> m_code;
    std::string m_source;
};

/// One thread's room to match in.
class RegexMatcher {
public:
    RegexMatcher();
    ~RegexMatcher();
    RegexMatcher(const RegexMatcher &) = delete;
    RegexMatcher &operator=(const RegexMatcher &) = delete;

    enum class Outcome { found, none, failed };
    /// First match of `pattern` in `text` (valid UTF-8) from `from` on, as [begin, end). `failed`: see failure().
    [[nodiscard]] Outcome find(const RegexPattern &pattern, std::string_view text, std::size_t from, std::size_t &begin,
                               std::size_t &end);
    [[nodiscard]] Error failure() const;

private:
    struct Room;
    std::unique_ptr<Room> m_room;
};

} // namespace spectra
