// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/sequences.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>

namespace spectra {
namespace {

/// The text with each byte that is not UTF-8 as U+FFFD; `replaced` counts them.
std::string validUtf8(const std::string &text, std::int64_t &replaced)
{
    std::size_t i = 0;
    for (int n = 1; i < text.size() && (n = utf8Length(text, i)) > 0;)
        i += static_cast<std::size_t>(n);
    if (i >= text.size())
        return text;
    std::string out = text.substr(0, i);
    while (i < text.size()) {
        const int n = utf8Length(text, i);
        if (n == 0) {
            out += "\xEF\xBF\xBD";
            ++replaced;
            ++i;
        } else {
            out.append(text, i, static_cast<std::size_t>(n));
            i += static_cast<std::size_t>(n);
        }
    }
    return out;
}

bool startsCharacter(const std::string &text, std::int64_t at)
{
    return at >= static_cast<std::int64_t>(text.size()) || (static_cast<unsigned char>(text[static_cast<std::size_t>(at)]) & 0xC0u) != 0x80u;
}

/// Encodes at least `wanted` tokens of the text, or all: a book is not tokenised for its first page.
Result<Tokenizer::Encoding> encodeEnough(const Tokenizer &tokenizer, const std::string &text, std::int64_t wanted, const SequenceCut &cut)
{
    constexpr std::size_t margin = 4096; // a prefix's last tokens may differ from the whole text's
    std::size_t take = text.size();
    if (wanted < std::numeric_limits<std::int64_t>::max() / 64)
        take = std::min(take, static_cast<std::size_t>(wanted) * 8 + margin);
    for (;;) {
        while (take < text.size() && !startsCharacter(text, static_cast<std::int64_t>(take)))
            ++take;
        SPECTRA_TRY(auto encoding, tokenizer.encode(std::string_view(text).substr(0, take), {false, cut.parseSpecial, cut.stop}));
        if (take == text.size())
            return encoding;
        const auto safe = std::lower_bound(encoding.byteOffsets.begin(), encoding.byteOffsets.end(), static_cast<std::int32_t>(take - margin / 2));
        if (safe - encoding.byteOffsets.begin() >= wanted)
            return encoding;
        take = take > text.size() / 2 ? text.size() : take * 2;
    }
}

TokenSequence piece(const Prompt &prompt, const std::string &text, const Tokenizer::Encoding &encoding, std::size_t first, std::size_t last,
                    const Tokenizer &tokenizer)
{
    TokenSequence s;
    s.domain = prompt.domain;
    s.label = prompt.label;
    const auto begin = static_cast<std::size_t>(encoding.byteOffsets[first]);
    const std::size_t end = last < encoding.ids.size() ? static_cast<std::size_t>(encoding.byteOffsets[last]) : text.size();
    s.text = text.substr(first == 0 ? 0 : begin, end - (first == 0 ? 0 : begin));
    const auto shift = static_cast<std::int32_t>(first == 0 ? 0 : begin);
    if (tokenizer.addsBos() && tokenizer.bos()) {
        s.ids.push_back(*tokenizer.bos());
        s.byteOffsets.push_back(0);
        s.mask.push_back(0);
    }
    for (std::size_t i = first; i < last; ++i) {
        s.ids.push_back(encoding.ids[i]);
        s.byteOffsets.push_back(encoding.byteOffsets[i] - shift);
        s.mask.push_back(tokenizer.isSpecial(encoding.ids[i]) ? 0 : 1);
    }
    return s;
}

Result<TokenSequence> fromIds(const Prompt &prompt, const Tokenizer &tokenizer, std::int64_t vocabulary)
{
    TokenSequence s;
    s.id = prompt.id;
    s.domain = prompt.domain;
    s.label = prompt.label;
    s.ids = prompt.ids;
    for (std::int32_t id : s.ids) {
        if (id < 0 || id >= vocabulary)
            return inputError(fmt::format("token id {} is outside the vocabulary of {}", id, vocabulary), prompt.id);
        s.byteOffsets.push_back(static_cast<std::int32_t>(s.text.size()));
        s.mask.push_back(tokenizer.isSpecial(id) ? 0 : 1);
        s.text += printableUtf8(tokenizer.tokenBytes(id));
    }
    return s;
}

} // namespace

Result<CutResult> cutPrompts(const std::vector<Prompt> &prompts, const Tokenizer &tokenizer, std::int64_t vocabulary, const SequenceCut &cut)
{
    CutResult result;
    std::map<int, std::int64_t> left;
    std::int64_t replaced = 0;
    const std::int64_t added = tokenizer.addsBos() && tokenizer.bos() ? 1 : 0;
    for (const Prompt &prompt : prompts) {
        if (cut.stop.stop_requested())
            return cancelledError();
        if (!prompt.ids.empty()) {
            SPECTRA_TRY(auto sequence, fromIds(prompt, tokenizer, vocabulary));
            result.tokens += static_cast<std::int64_t>(sequence.ids.size());
            result.sequences.push_back(std::move(sequence));
            continue;
        }
        std::int64_t &room = left.try_emplace(prompt.group, cut.maxTokens > 0 ? cut.maxTokens : std::numeric_limits<std::int64_t>::max()).first->second;
        if (room <= 0)
            continue;
        const std::string text = validUtf8(prompt.text, replaced);
        SPECTRA_TRY(const auto encoding, encodeEnough(tokenizer, text, room, cut));
        const auto available = static_cast<std::int64_t>(encoding.ids.size());
        if (available == 0)
            return inputError("has no tokens", prompt.id);
        const std::int64_t limit = std::min(available, room);
        const std::int64_t step = cut.wholePrompt ? limit : std::max<std::int64_t>(1, cut.sequenceLength - added);
        std::int64_t first = 0;
        std::vector<TokenSequence> pieces;
        while (first < limit) {
            std::int64_t last = std::min(limit, first + step);
            const std::int64_t wished = last;
            while (last < available && last > first + 1 && !startsCharacter(text, encoding.byteOffsets[static_cast<std::size_t>(last)]))
                --last;
            // A character of more tokens than a sequence holds cannot be kept whole.
            if (last == first + 1 && wished > last && !startsCharacter(text, encoding.byteOffsets[static_cast<std::size_t>(last)]))
                last = wished;
            pieces.push_back(piece(prompt, text, encoding, static_cast<std::size_t>(first), static_cast<std::size_t>(last), tokenizer));
            // The limit fell inside a character: its tokens are left out rather than cut.
            if (wished == limit && last < wished)
                break;
            first = last;
        }
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            pieces[i].id = !prompt.document.empty() ? fmt::format("{}:{}", prompt.document, i + 1)
                : pieces.size() == 1                ? prompt.id
                                                    : fmt::format("{}#{}", prompt.id, i + 1);
            pieces[i].text = validUtf8(pieces[i].text, replaced);
            result.tokens += static_cast<std::int64_t>(pieces[i].ids.size());
            result.sequences.push_back(std::move(pieces[i]));
        }
        room -= limit;
    }
    if (replaced > 0)
        result.warnings.push_back(fmt::format("{} bytes that are not UTF-8 were replaced by U+FFFD", replaced));
    if (result.sequences.empty())
        return inputError("the prompts hold no tokens");
    return result;
}

} // namespace spectra
