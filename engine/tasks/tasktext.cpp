// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/tasktext.h"

#include "engine/core/files.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <algorithm>

namespace spectra {
namespace {

/// The code point at `at` and its bytes; a byte that is not UTF-8 stands for itself (negative).
struct Character {
    std::int32_t code = 0;
    std::size_t bytes = 1;
};

Character characterAt(std::string_view text, std::size_t at)
{
    const int n = utf8Length(text, at);
    if (n <= 0)
        return {-1, 1};
    UChar32 code = 0;
    std::int32_t offset = 0;
    const auto *bytes = reinterpret_cast<const std::uint8_t *>(text.data() + at);
    U8_NEXT(bytes, offset, n, code);
    return {code, static_cast<std::size_t>(n)};
}

bool isSpace(std::int32_t c)
{
    // str.isspace: bidirectional class WS, B or S, or category Zs. (ASCII: 9–13, 28–31, 32.)
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028
        || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

void append(std::string &out, std::int32_t code)
{
    std::uint8_t buffer[4];
    std::int32_t length = 0;
    UBool error = false;
    U8_APPEND(buffer, length, 4, code, error);
    if (!error)
        out.append(reinterpret_cast<const char *>(buffer), static_cast<std::size_t>(length));
}

} // namespace

std::size_t whiteSpaceAt(std::string_view text, std::size_t at)
{
    if (at >= text.size())
        return 0;
    const Character c = characterAt(text, at);
    return isSpace(c.code) ? c.bytes : 0;
}

std::string_view rightStripped(std::string_view text)
{
    while (!text.empty()) {
        std::size_t last = text.size() - 1;
        while (last > 0 && text.size() - last < 4 && (static_cast<unsigned char>(text[last]) & 0xC0u) == 0x80u)
            --last;
        const std::size_t n = whiteSpaceAt(text, last);
        if (n == 0 || last + n != text.size())
            break;
        text = text.substr(0, last);
    }
    return text;
}

std::string_view stripped(std::string_view text)
{
    while (const std::size_t n = whiteSpaceAt(text, 0))
        text.remove_prefix(n);
    return rightStripped(text);
}

std::int64_t codePoints(std::string_view text)
{
    std::int64_t count = 0;
    for (std::size_t i = 0; i < text.size(); i += static_cast<std::size_t>(std::max(1, utf8Length(text, i))))
        ++count;
    return count;
}

std::string lowerCase(std::string_view text)
{
    std::string out;
    out.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
        const Character c = characterAt(text, i);
        if (c.code < 0)
            out += text[i];
        else
            append(out, u_tolower(c.code));
        i += c.bytes;
    }
    return out;
}

std::string capitalized(std::string_view text)
{
    if (text.empty())
        return {};
    const Character first = characterAt(text, 0);
    std::string out;
    if (first.code < 0)
        out += text[0];
    else
        append(out, u_totitle(first.code));
    return out + lowerCase(text.substr(first.bytes));
}

std::string replaced(std::string text, std::string_view from, std::string_view to)
{
    if (from.empty() || text.find(from) == std::string::npos)
        return text;
    std::string out;
    out.reserve(text.size());
    std::size_t at = 0;
    for (std::size_t found; (found = text.find(from, at)) != std::string::npos; at = found + from.size()) {
        out.append(text, at, found - at);
        out += to;
    }
    out.append(text, at, std::string::npos);
    return out;
}

std::int64_t wordCount(std::string_view text)
{
    std::int64_t count = 1;
    bool inSpace = false;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t n = whiteSpaceAt(text, i);
        if (n > 0 && !inSpace)
            ++count;
        inSpace = n > 0;
        i += n > 0 ? n : static_cast<std::size_t>(std::max(1, utf8Length(text, i)));
    }
    return count;
}

std::string joined(const std::vector<std::string> &parts, std::string_view between)
{
    std::string out;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        if (i > 0)
            out += between;
        out += parts[i];
    }
    return out;
}

} // namespace spectra
