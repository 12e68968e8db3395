// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spectra {

/// Small helpers on UTF-8 that is already known to be valid.
namespace utf8 {

[[nodiscard]] inline int lengthOf(char lead)
{
    const auto c = static_cast<unsigned char>(lead);
    return c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
}
[[nodiscard]] inline char32_t decode(std::string_view text, std::size_t at)
{
    const auto byte = [&](std::size_t i) { return char32_t(static_cast<unsigned char>(text[at + i])); };
    switch (lengthOf(text[at])) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3: return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
    }
}
inline void append(std::string &out, char32_t c)
{
    if (c < 0x80) {
        out += char(c);
    } else if (c < 0x800) {
        out += char(0xc0 | c >> 6);
        out += char(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        out += char(0xe0 | c >> 12);
        out += char(0x80 | (c >> 6 & 0x3f));
        out += char(0x80 | (c & 0x3f));
    } else {
        out += char(0xf0 | c >> 18);
        out += char(0x80 | (c >> 12 & 0x3f));
        out += char(0x80 | (c >> 6 & 0x3f));
        out += char(0x80 | (c & 0x3f));
    }
}
/// Start of the last character of a text that is not empty.
[[nodiscard]] inline std::size_t lastStart(std::string_view text)
{
    std::size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80)
        --at;
    return at;
}
/// Length of the longest valid UTF-8 prefix of text from `at` on.
[[nodiscard]] std::size_t validLength(std::string_view text, std::size_t at);
/// The text with U+FFFD for every maximal part of an ill-formed sequence (Unicode 15, section 3.9), as Rust's
/// from_utf8_lossy does it. With `rest`, an incomplete sequence at the end is moved there instead.
void appendLossy(std::string &out, std::string_view bytes, std::string *rest);

/// White_Space and the property N, as Rust's char knows them.
[[nodiscard]] bool isSpace(char32_t c);
[[nodiscard]] bool isNumeric(char32_t c);
/// Letters, marks, decimal digits and connectors: what a regular expression's \w matches.
[[nodiscard]] bool isWord(char32_t c);

} // namespace utf8

/// The printable alphabet of byte-level BPE (Radford et al. 2019): each byte is one code point below U+0180.
namespace bytealphabet {

[[nodiscard]] char32_t toChar(unsigned char byte);
/// The byte, or -1.
[[nodiscard]] int toByte(char32_t c);
/// The bytes that a vocabulary entry spells, or its own bytes when a character is not of the alphabet.
[[nodiscard]] std::string toBytes(std::string_view piece);
[[nodiscard]] std::string spell(std::string_view bytes);

} // namespace bytealphabet
} // namespace spectra
