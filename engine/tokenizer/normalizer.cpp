// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/normalizer.h"

#include "engine/tokenizer/jsonfields.h"
#include "engine/tokenizer/utf8.h"

#include <unicode/bytestream.h>
#include <unicode/edits.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>

#include <map>

namespace spectra {
namespace {

using Kind = TextNormalizer::Kind;

const std::map<std::string, Kind, std::less<>> kinds = {
    {"NFC", Kind::nfc},           {"NFD", Kind::nfd},     {"NFKC", Kind::nfkc},       {"NFKD", Kind::nfkd},
    {"Lowercase", Kind::lowercase}, {"Strip", Kind::strip}, {"Prepend", Kind::prepend}, {"Replace", Kind::replace}};

const icu::Normalizer2 *unicodeForm(Kind kind)
{
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2 *form = nullptr;
    switch (kind) {
    case Kind::nfc: form = icu::Normalizer2::getNFCInstance(status); break;
    case Kind::nfd: form = icu::Normalizer2::getNFDInstance(status); break;
    case Kind::nfkc: form = icu::Normalizer2::getNFKCInstance(status); break;
    default: form = icu::Normalizer2::getNFKDInstance(status); break;
    }
    return U_SUCCESS(status) ? form : nullptr;
}

Result<void> applyForm(Kind kind, MappedText &text)
{
    const icu::Normalizer2 *form = unicodeForm(kind);
    if (!form)
        return workError("the Unicode normalization data is missing", "ICU");
    const icu::StringPiece source(text.text.data(), std::int32_t(text.text.size()));
    UErrorCode status = U_ZERO_ERROR;
    if (form->isNormalizedUTF8(source, status) && U_SUCCESS(status))
        return {};
    std::string out;
    icu::StringByteSink<std::string> sink(&out, source.length());
    icu::Edits edits;
    status = U_ZERO_ERROR;
    form->normalizeUTF8(0, source, sink, &edits, status);
    if (U_FAILURE(status))
        return workError("the text could not be normalized: " + std::string(u_errorName(status)), "ICU");
    TextRewriter writer(text.text, text.map);
    for (auto edit = edits.getFineIterator(); edit.next(status);) {
        const auto from = std::size_t(edit.sourceIndex());
        if (edit.hasChange())
            writer.put(std::string_view(out).substr(std::size_t(edit.destinationIndex()), std::size_t(edit.newLength())), from);
        else
            writer.copy(from, std::size_t(edit.oldLength()));
    }
    writer.finish(text);
    return {};
}

void lower(MappedText &text)
{
    TextRewriter writer(text.text, text.map);
    std::string changed;
    std::size_t copied = 0;
    for (std::size_t at = 0; at < text.text.size();) {
        const char32_t c = utf8::decode(text.text, at);
        const int length = utf8::lengthOf(text.text[at]);
        const auto mapped = char32_t(u_tolower(UChar32(c)));
        if (mapped != c || c == 0x130) {
            writer.copy(copied, at - copied);
            changed.clear();
            if (c == 0x130) // the one character whose full lower case is two
                changed = "i\xCC\x87";
            else
                utf8::append(changed, mapped);
            writer.put(changed, at);
            copied = at + std::size_t(length);
        }
        at += std::size_t(length);
    }
    writer.copy(copied, text.text.size() - copied);
    writer.finish(text);
}

void strip(bool left, bool right, MappedText &text)
{
    std::size_t begin = 0;
    std::size_t end = text.text.size();
    while (left && begin < end && utf8::isSpace(utf8::decode(text.text, begin)))
        begin += std::size_t(utf8::lengthOf(text.text[begin]));
    while (right && end > begin) {
        const std::size_t last = utf8::lastStart(text.text.substr(0, end));
        if (!utf8::isSpace(utf8::decode(text.text, last)))
            break;
        end = last;
    }
    TextRewriter writer(text.text, text.map);
    writer.copy(begin, end - begin);
    writer.finish(text);
}

} // namespace

Result<TextNormalizer> TextNormalizer::fromJson(const nlohmann::json &json)
{
    TextNormalizer result;
    if (!json.is_null())
        SPECTRA_CHECK(add(json, 0, result.m_steps));
    return result;
}

Result<void> TextNormalizer::add(const nlohmann::json &json, int depth, std::vector<Step> &steps)
{
    SPECTRA_TRY(const std::string type, jsonfields::type(json));
    if (type == "Sequence") {
        const auto list = json.find("normalizers");
        if (depth >= jsonfields::deepestSequence || list == json.end() || !list->is_array())
            return inputError("a list of at most 8 levels was expected", "Sequence.normalizers");
        for (const auto &element : *list)
            SPECTRA_CHECK(add(element, depth + 1, steps));
        return {};
    }
    const auto kind = kinds.find(type);
    if (kind == kinds.end())
        return inputError("the normalizer " + type + " is not supported", "type");
    Step step;
    step.kind = kind->second;
    if (step.kind == Kind::prepend) {
        SPECTRA_TRY(step.content, jsonfields::requiredText(json, "prepend"));
    } else if (step.kind == Kind::replace) {
        SPECTRA_TRY(step.content, jsonfields::requiredText(json, "content"));
        SPECTRA_CHECK(jsonfields::pattern(json, step.literal, step.pattern));
    } else if (step.kind == Kind::strip) {
        SPECTRA_TRY(step.left, jsonfields::flag(json, "strip_left", true));
        SPECTRA_TRY(step.right, jsonfields::flag(json, "strip_right", true));
    }
    if (step.content.size() > 1024)
        return inputError("the text to write is longer than 1024 bytes", type);
    if (steps.size() >= 64)
        return inputError("more than 64 normalizers");
    steps.push_back(std::move(step));
    return {};
}

Result<void> TextNormalizer::apply(MappedText &text, RegexMatcher &matcher) const
{
    for (const Step &step : m_steps) {
        SPECTRA_CHECK(applyStep(step, text, matcher));
        if (text.text.size() > std::size_t(INT32_MAX))
            return inputError("the text grows past 2 GiB in the tokenizer's normalizer");
    }
    return {};
}

Result<void> TextNormalizer::applyStep(const Step &step, MappedText &text, RegexMatcher &matcher)
{
    if (text.text.empty())
        return {};
    switch (step.kind) {
    case Kind::lowercase: lower(text); return {};
    case Kind::strip: strip(step.left, step.right, text); return {};
    case Kind::prepend: {
        TextRewriter writer(text.text, text.map);
        writer.put(step.content, 0);
        writer.copy(0, text.text.size());
        writer.finish(text);
        return {};
    }
    case Kind::replace: {
        TextRewriter writer(text.text, text.map);
        const std::string_view source = text.text;
        std::size_t at = 0;
        std::size_t copied = 0;
        std::uint64_t grown = 0;
        while (at <= source.size()) {
            std::size_t begin = 0;
            std::size_t end = 0;
            if (step.pattern) {
                if (at == source.size())
                    break;
                const auto outcome = matcher.find(*step.pattern, source, at, begin, end);
                if (outcome == RegexMatcher::Outcome::failed)
                    return matcher.failure();
                if (outcome == RegexMatcher::Outcome::none)
                    break;
                if (begin == end) { // nothing to replace; look on after the next character
                    at = begin < source.size() ? begin + std::size_t(utf8::lengthOf(source[begin])) : source.size() + 1;
                    continue;
                }
            } else {
                begin = source.find(step.literal, at);
                if (begin == std::string_view::npos)
                    break;
                end = begin + step.literal.size();
            }
            grown += step.content.size();
            if (grown > std::uint64_t(INT32_MAX))
                return inputError("the text grows past 2 GiB in the tokenizer's normalizer");
            writer.copy(copied, begin - copied);
            writer.put(step.content, begin);
            at = copied = end;
        }
        if (copied == 0 && grown == 0)
            return {};
        writer.copy(copied, source.size() - copied);
        writer.finish(text);
        return {};
    }
    default: return applyForm(step.kind, text);
    }
}

} // namespace spectra
