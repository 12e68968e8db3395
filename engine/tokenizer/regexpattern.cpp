// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/regexpattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>

namespace spectra {
namespace {

constexpr std::size_t longestPattern = 64 * 1024;
constexpr std::uint32_t matchLimit = 20'000'000;

// \s and \w differ between the two engines (U+180E; marks and connectors), so they are spelled out.
constexpr std::string_view spaceSet = R"(\t-\r\x{85}\p{Z})";
constexpr std::string_view wordSet = R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc})";

// PCRE2 reads a bare script name as Script_Extensions, Oniguruma as Script.
constexpr std::array<std::string_view, 22> scripts = {
    "Han",     "Hiragana", "Katakana", "Hangul", "Latin",     "Greek",   "Cyrillic", "Arabic", "Hebrew", "Thai",  "Lao",
    "Khmer",   "Myanmar",  "Tibetan",  "Bengali", "Devanagari", "Tamil", "Telugu",   "Bopomofo", "Armenian", "Georgian",
    "Ethiopic"};

Error refused(const std::string &what, std::string_view pattern)
{
    std::string shown(pattern.substr(0, 80));
    return inputError("the pattern " + what, "pattern " + shown + (pattern.size() > 80 ? "…" : ""));
}

/// Rewrites Ruby syntax to PCRE2's; see RegexPattern.
Result<std::string> translate(std::string_view p)
{
    std::string out;
    bool inClass = false;
    std::size_t classStart = 0;
    for (std::size_t i = 0; i < p.size();) {
        const char c = p[i];
        if (c == '\\') {
            if (i + 1 >= p.size())
                return refused("ends in a backslash", p);
            const char e = p[i + 1];
            i += 2;
            switch (e) {
            case 's': out += inClass ? std::string(spaceSet) : "[" + std::string(spaceSet) + "]"; continue;
            case 'w': out += inClass ? std::string(wordSet) : "[" + std::string(wordSet) + "]"; continue;
            case 'S':
            case 'W':
                if (inClass) {
                    out += '\\';
                    out += e;
                } else {
                    out += "[^" + std::string(e == 'S' ? spaceSet : wordSet) + "]";
                }
                continue;
            case 'h':
            case 'H':
            case 'R':
            case 'X':
            case 'g':
            case 'k':
            case 'K':
            case 'C':
            case 'Q':
            case 'E':
            case 'G': return refused(std::string("uses \\") + e + ", which is not supported", p);
            case 'u':
                if (i + 4 > p.size() || p.substr(i, 4).find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
                    return refused("has \\u without four hexadecimal digits", p);
                out += "\\x{" + std::string(p.substr(i, 4)) + "}";
                i += 4;
                continue;
            case 'x':
                out += "\\x";
                if (i < p.size() && p[i] == '{') {
                    const std::size_t close = p.find('}', i);
                    if (close == std::string_view::npos)
                        return refused("has an unclosed \\x{", p);
                    out += p.substr(i, close + 1 - i);
                    i = close + 1;
                }
                continue;
            case 'p':
            case 'P': {
                out += '\\';
                out += e;
                if (i < p.size() && p[i] == '{') {
                    const std::size_t close = p.find('}', i);
                    if (close == std::string_view::npos)
                        return refused("has an unclosed property", p);
                    const std::string_view name = p.substr(i + 1, close - i - 1);
                    out += std::find(scripts.begin(), scripts.end(), name) != scripts.end() ? "{sc:" : "{";
                    out += name;
                    out += '}';
                    i = close + 1;
                }
                continue;
            }
            default:
                out += '\\';
                out += e;
                continue;
            }
        }
        if (!inClass) {
            if (c == '[') {
                inClass = true;
                out += c;
                ++i;
                if (i < p.size() && p[i] == '^')
                    out += p[i++];
                classStart = i;
                continue;
            }
            if (c == '(' && i + 1 < p.size() && p[i + 1] == '*')
                return refused("starts a verb with (*, which is not supported", p);
            if (c == '(' && i + 2 < p.size() && p[i + 1] == '?'
                && std::string_view("imsxn-:=!<>").find(p[i + 2]) == std::string_view::npos)
                return refused("uses a group (?" + std::string(1, p[i + 2]) + ", which is not supported", p);
            if (c == '(' && i + 2 < p.size() && p[i + 1] == '?') {
                const std::size_t close = p.find_first_of(":)=!<>", i + 2);
                if (close != std::string_view::npos && (p[close] == ':' || p[close] == ')')
                    && p.substr(i + 2, close - i - 2).find_first_not_of("i-") != std::string_view::npos)
                    return refused("sets a flag other than i, which is not supported", p);
            }
            if (c == '}' && i + 1 < p.size() && p[i + 1] == '+' && i > 0 && p.substr(0, i).find_last_of('{') != std::string_view::npos
                && p[p.substr(0, i).find_last_of('{') + 1] >= '0' && p[p.substr(0, i).find_last_of('{') + 1] <= '9')
                return refused("has + after {n,m}, which is not supported", p);
            out += c;
            ++i;
            continue;
        }
        if (c == ']' && i != classStart) {
            inClass = false;
        } else if (c == '[') {
            if (i + 1 >= p.size() || p[i + 1] != ':')
                return refused("has a class inside a character class, which is not supported", p);
            const std::size_t close = p.find(":]", i + 2);
            if (close == std::string_view::npos)
                return refused("has an unclosed [: :]", p);
            out += p.substr(i, close + 2 - i);
            i = close + 2;
            continue;
        } else if (c == '&' && i + 1 < p.size() && p[i + 1] == '&') {
            return refused("has && in a character class, which is not supported", p);
        }
        out += c;
        ++i;
    }
    if (inClass)
        return refused("has an unclosed character class", p);
    return out;
}

} // namespace

struct RegexPattern::Code {
    pcre2_code *code = nullptr;
    bool jit = false;
    ~Code() { pcre2_code_free(code); }
};

RegexPattern::~RegexPattern() = default;

Result<std::shared_ptr<const RegexPattern>> RegexPattern::compile(std::string_view pattern)
{
    if (pattern.empty())
        return refused("is empty", pattern);
    if (pattern.size() > longestPattern)
        return refused("is longer than 64 KiB", pattern);
    SPECTRA_TRY(const std::string rewritten, translate(pattern));
    pcre2_compile_context *context = pcre2_compile_context_create(nullptr);
    if (!context)
        return workError("out of memory");
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    int number = 0;
    PCRE2_SIZE place = 0;
    std::shared_ptr<RegexPattern> result(new RegexPattern);
    result->m_source = pattern;
    result->m_code = std::make_unique<Code>();
    result->m_code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(rewritten.data()), rewritten.size(),
                                         PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &number, &place, context);
    pcre2_compile_context_free(context);
    if (!result->m_code->code) {
        std::array<PCRE2_UCHAR, 256> text{};
        pcre2_get_error_message(number, text.data(), text.size());
        return refused("does not compile: " + std::string(reinterpret_cast<const char *>(text.data())), pattern);
    }
    result->m_code->jit = pcre2_jit_compile(result->m_code->code, PCRE2_JIT_COMPLETE) == 0;
    return std::shared_ptr<const RegexPattern>(std::move(result));
}

struct RegexMatcher::Room {
    pcre2_match_context *context = pcre2_match_context_create(nullptr);
    pcre2_match_data *data = pcre2_match_data_create(1, nullptr);
    pcre2_jit_stack *stack = nullptr;
    int error = 0;

    Room()
    {
        if (context) {
            pcre2_set_match_limit(context, matchLimit);
            pcre2_set_heap_limit(context, 64 * 1024); // KiB
        }
    }
    ~Room()
    {
        pcre2_match_data_free(data);
        pcre2_match_context_free(context);
        pcre2_jit_stack_free(stack);
    }
};

RegexMatcher::RegexMatcher() : m_room(std::make_unique<Room>()) {}
RegexMatcher::~RegexMatcher() = default;

RegexMatcher::Outcome RegexMatcher::find(const RegexPattern &pattern, std::string_view text, std::size_t from,
                                         std::size_t &begin, std::size_t &end)
{
    Room &room = *m_room;
    if (!room.context || !room.data) {
        room.error = PCRE2_ERROR_NOMEMORY;
        return Outcome::failed;
    }
    const RegexPattern::Code &code = *pattern.m_code;
    const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    int rc = 0;
    for (;;) {
        rc = code.jit ? pcre2_jit_match(code.code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, room.data, room.context)
                      : pcre2_match(code.code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, room.data, room.context);
        if (rc != PCRE2_ERROR_JIT_STACKLIMIT || room.stack)
            break;
        // The machine stack's 32 KiB did not do: once more with a stack of our own.
        room.stack = pcre2_jit_stack_create(64 * 1024, 32 * 1024 * 1024, nullptr);
        if (!room.stack)
            break;
        pcre2_jit_stack_assign(room.context, nullptr, room.stack);
    }
    if (rc >= 0) {
        const PCRE2_SIZE *places = pcre2_get_ovector_pointer(room.data);
        begin = std::min(places[0], places[1]);
        end = places[1];
        return Outcome::found;
    }
    if (rc == PCRE2_ERROR_NOMATCH)
        return Outcome::none;
    room.error = rc;
    return Outcome::failed;
}

Error RegexMatcher::failure() const
{
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(m_room->error, text.data(), text.size());
    return inputError("the tokenizer's pattern cannot be matched on this text: "
                          + std::string(reinterpret_cast<const char *>(text.data())),
                      "pre-tokenizer");
}

} // namespace spectra
