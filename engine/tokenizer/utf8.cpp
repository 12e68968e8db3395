// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/utf8.h"

#include "engine/core/files.h"

#include <unicode/uchar.h>

#include <array>
#include <cstring>

namespace spectra {
namespace utf8 {

std::size_t validLength(std::string_view text, std::size_t at)
{
    const std::size_t begin = at;
    while (at < text.size()) {
        if (static_cast<unsigned char>(text[at]) < 0x80) {
            std::uint64_t eight = 0;
            while (at + 8 <= text.size()) {
                std::memcpy(&eight, text.data() + at, 8);
                if (eight & 0x8080808080808080u)
                    break;
                at += 8;
            }
            while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80)
                ++at;
            continue;
        }
        const int length = utf8Length(text, at);
        if (length == 0)
            break;
        at += std::size_t(length);
    }
    return at - begin;
}

namespace {
/// Length of the maximal part at `at`, where no valid sequence starts; `open` says that more bytes could complete it.
std::size_t illFormedPart(std::string_view bytes, std::size_t at, bool &open)
{
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
    open = false;
    const unsigned lead = byte(at);
    unsigned need = 0;
    unsigned low = 0x80;
    unsigned high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
        need = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        need = 2;
        low = lead == 0xe0 ? 0xa0 : 0x80;
        high = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        need = 3;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 1;
    }
    std::size_t length = 1;
    for (; length <= need; ++length) {
        if (at + length == bytes.size()) {
            open = true;
            return length;
        }
        const unsigned next = byte(at + length);
        if (next < low || next > high)
            return length;
        low = 0x80;
        high = 0xbf;
    }
    return length;
}
} // namespace

void appendLossy(std::string &out, std::string_view bytes, std::string *rest)
{
    std::size_t at = 0;
    while (at < bytes.size()) {
        const std::size_t valid = validLength(bytes, at);
        out.append(bytes, at, valid);
        at += valid;
        if (at == bytes.size())
            return;
        bool open = false;
        const std::size_t part = illFormedPart(bytes, at, open);
        if (open && rest) {
            rest->assign(bytes.substr(at));
            return;
        }
        out += "\xEF\xBF\xBD";
        at += part;
    }
}

bool isSpace(char32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a)
        || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool isNumeric(char32_t c)
{
    if (c < 0x80)
        return c >= '0' && c <= '9';
    return (U_GET_GC_MASK(UChar32(c)) & U_GC_N_MASK) != 0;
}

bool isWord(char32_t c)
{
    if (c == 0x200c || c == 0x200d)
        return true;
    return (U_GET_GC_MASK(UChar32(c)) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0
        || u_hasBinaryProperty(UChar32(c), UCHAR_ALPHABETIC);
}

} // namespace utf8

namespace bytealphabet {
namespace {

struct Alphabet {
    std::array<char32_t, 256> chars{};
    std::array<int, 0x180> bytes{};

    Alphabet()
    {
        bytes.fill(-1);
        char32_t next = 256;
        for (unsigned b = 0; b < 256; ++b) {
            const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
            chars[b] = printable ? char32_t(b) : next++;
            bytes[chars[b]] = int(b);
        }
    }
};

const Alphabet &alphabet()
{
    static const Alphabet table;
    return table;
}

} // namespace

char32_t toChar(unsigned char byte)
{
    return alphabet().chars[byte];
}

int toByte(char32_t c)
{
    return c < 0x180 ? alphabet().bytes[c] : -1;
}

std::string toBytes(std::string_view piece)
{
    std::string bytes;
    bytes.reserve(piece.size());
    for (std::size_t at = 0; at < piece.size(); at += std::size_t(utf8::lengthOf(piece[at]))) {
        const int byte = toByte(utf8::decode(piece, at));
        if (byte < 0)
            return std::string(piece);
        bytes += char(byte);
    }
    return bytes;
}

std::string spell(std::string_view bytes)
{
    std::string piece;
    for (const char byte : bytes)
        utf8::append(piece, toChar(static_cast<unsigned char>(byte)));
    return piece;
}

} // namespace bytealphabet
} // namespace spectra
