// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/pretokenizer.h"

#include "engine/tokenizer/jsonfields.h"
#include "engine/tokenizer/utf8.h"

#include <map>

namespace spectra {
namespace {

using Behavior = PreTokenizer::Behavior;

const std::map<std::string, Behavior, std::less<>> behaviors = {{"Removed", Behavior::removed},
                                                               {"Isolated", Behavior::isolated},
                                                               {"MergedWithPrevious", Behavior::mergedWithPrevious},
                                                               {"MergedWithNext", Behavior::mergedWithNext},
                                                               {"Contiguous", Behavior::contiguous}};

/// The words of GPT-2 (Radford et al. 2019).
constexpr std::string_view gpt2Words = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Joins the alternating parts of a text, matches and what is between them, as a Split's behaviour asks.
template <typename Emit> class PartJoiner {
public:
    PartJoiner(Behavior behavior, Emit emit) : m_behavior(behavior), m_emit(std::move(emit)) {}

    bool add(std::size_t begin, std::size_t end, bool isMatch)
    {
        switch (m_behavior) {
        case Behavior::isolated: return m_emit(begin, end);
        case Behavior::removed: return isMatch || m_emit(begin, end);
        case Behavior::mergedWithPrevious: {
            const bool join = isMatch && !m_lastWasMatch && m_held;
            m_lastWasMatch = isMatch;
            return join ? extend(end) : hold(begin, end);
        }
        case Behavior::mergedWithNext: {
            const bool join = !isMatch && m_lastWasMatch && m_held;
            m_lastWasMatch = isMatch;
            return join ? extend(end) : hold(begin, end);
        }
        case Behavior::contiguous: {
            const bool join = m_held && isMatch == m_lastWasMatch;
            m_lastWasMatch = isMatch;
            return join ? extend(end) : hold(begin, end);
        }
        }
        return true;
    }
    bool finish() { return !m_held || m_emit(m_begin, m_end); }

private:
    bool extend(std::size_t end)
    {
        m_end = end;
        return true;
    }
    bool hold(std::size_t begin, std::size_t end)
    {
        const bool go = finish();
        m_held = true;
        m_begin = begin;
        m_end = end;
        return go;
    }
    Behavior m_behavior;
    Emit m_emit;
    bool m_lastWasMatch = false;
    bool m_held = false;
    std::size_t m_begin = 0, m_end = 0;
};

} // namespace

Result<PreTokenizer> PreTokenizer::fromJson(const nlohmann::json &json)
{
    PreTokenizer result;
    if (!json.is_null())
        SPECTRA_CHECK(add(json, 0, result));
    return result;
}

Result<void> PreTokenizer::add(const nlohmann::json &json, int depth, PreTokenizer &into)
{
    SPECTRA_TRY(const std::string type, jsonfields::type(json));
    if (type == "Sequence") {
        const auto list = json.find("pretokenizers");
        if (depth >= jsonfields::deepestSequence || list == json.end() || !list->is_array())
            return inputError("a list of at most 8 levels was expected", "Sequence.pretokenizers");
        for (const auto &element : *list)
            SPECTRA_CHECK(add(element, depth + 1, into));
        return {};
    }
    if (into.m_byteLevel)
        return inputError("a pre-tokenizer after ByteLevel is not supported: " + type);
    if (into.m_steps.size() >= 64)
        return inputError("more than 64 pre-tokenizers");
    Step step;
    if (type == "Split") {
        SPECTRA_CHECK(jsonfields::pattern(json, step.literal, step.pattern));
        SPECTRA_TRY(const std::string name, jsonfields::requiredText(json, "behavior"));
        const auto behavior = behaviors.find(name);
        if (behavior == behaviors.end())
            return inputError("the behavior " + name + " is not supported", "Split.behavior");
        step.behavior = behavior->second;
        SPECTRA_TRY(step.invert, jsonfields::flag(json, "invert", false));
    } else if (type == "Digits") {
        step.kind = Kind::digits;
        SPECTRA_TRY(step.individualDigits, jsonfields::flag(json, "individual_digits", false));
    } else if (type == "ByteLevel") {
        step.kind = Kind::byteLevel;
        SPECTRA_TRY(step.addPrefixSpace, jsonfields::flag(json, "add_prefix_space", true));
        SPECTRA_TRY(const bool useRegex, jsonfields::flag(json, "use_regex", true));
        if (useRegex) {
            SPECTRA_TRY(step.pattern, RegexPattern::compile(gpt2Words));
        }
        into.m_byteLevel = true;
    } else if (type == "Metaspace") {
        step.kind = Kind::metaspace;
        SPECTRA_TRY(step.literal, jsonfields::text(json, "replacement", "\xE2\x96\x81"));
        if (step.literal.empty() || std::size_t(utf8::lengthOf(step.literal[0])) != step.literal.size())
            return inputError("one character was expected", "Metaspace.replacement");
        SPECTRA_TRY(const bool prefix, jsonfields::flag(json, "add_prefix_space", true));
        SPECTRA_TRY(const std::string scheme, jsonfields::text(json, "prepend_scheme", prefix ? "always" : "never"));
        if (scheme != "always" && scheme != "first" && scheme != "never")
            return inputError("the prepend scheme " + scheme + " is not supported", "Metaspace.prepend_scheme");
        step.prepend = scheme == "always" ? Prepend::always : scheme == "first" ? Prepend::first : Prepend::never;
        SPECTRA_TRY(step.split, jsonfields::flag(json, "split", true));
    } else {
        return inputError("the pre-tokenizer " + type + " is not supported", "type");
    }
    into.m_steps.push_back(std::move(step));
    return {};
}

bool PreTokenizer::run(const TextPiece &piece, RegexMatcher &matcher, const Word &word, std::optional<Error> &error) const
{
    Context context{matcher, word, error};
    return step(0, piece, context);
}

bool PreTokenizer::step(std::size_t i, const TextPiece &piece, Context &context) const
{
    if (piece.text.empty())
        return true;
    if (i == m_steps.size())
        return context.word(piece);
    switch (m_steps[i].kind) {
    case Kind::split: return splitStep(m_steps[i], i, piece, context);
    case Kind::digits: return digitsStep(m_steps[i], i, piece, context);
    case Kind::byteLevel: return byteLevelStep(m_steps[i], i, piece, context);
    case Kind::metaspace: return metaspaceStep(m_steps[i], i, piece, context);
    }
    return true;
}

bool PreTokenizer::splitStep(const Step &own, std::size_t i, const TextPiece &piece, Context &context) const
{
    const std::string_view text = piece.text;
    PartJoiner joiner(own.behavior, [&](std::size_t begin, std::size_t end) { return step(i + 1, piece.part(begin, end), context); });
    std::size_t done = 0;
    std::size_t at = 0;
    while (at < text.size()) {
        std::size_t begin = 0;
        std::size_t end = 0;
        if (own.pattern) {
            const auto outcome = context.matcher.find(*own.pattern, text, at, begin, end);
            if (outcome == RegexMatcher::Outcome::failed) {
                context.error = context.matcher.failure();
                return false;
            }
            if (outcome == RegexMatcher::Outcome::none)
                break;
        } else {
            begin = text.find(own.literal, at);
            if (begin == std::string_view::npos)
                break;
            end = begin + own.literal.size();
        }
        if (begin == end) { // an empty match divides, and the search goes on one character later
            if (begin >= text.size())
                break;
            at = begin + std::size_t(utf8::lengthOf(text[begin]));
            if (begin > done && !joiner.add(done, begin, own.invert))
                return false;
            done = begin;
            continue;
        }
        if (begin > done && !joiner.add(done, begin, own.invert))
            return false;
        if (!joiner.add(begin, end, !own.invert))
            return false;
        done = at = end;
    }
    if (done < text.size() && !joiner.add(done, text.size(), own.invert))
        return false;
    return joiner.finish();
}

bool PreTokenizer::digitsStep(const Step &own, std::size_t i, const TextPiece &piece, Context &context) const
{
    const std::string_view text = piece.text;
    std::size_t done = 0;
    bool inDigits = false;
    for (std::size_t at = 0; at < text.size();) {
        const char c = text[at];
        const bool ascii = static_cast<unsigned char>(c) < 0x80;
        const std::size_t length = ascii ? 1 : std::size_t(utf8::lengthOf(c));
        const bool digit = ascii ? c >= '0' && c <= '9' : utf8::isNumeric(utf8::decode(text, at));
        if (at > done && (digit != inDigits || (digit && own.individualDigits))) {
            if (!step(i + 1, piece.part(done, at), context))
                return false;
            done = at;
        }
        inDigits = digit;
        at += length;
    }
    return step(i + 1, piece.part(done, text.size()), context);
}

bool PreTokenizer::byteLevelStep(const Step &own, std::size_t i, const TextPiece &piece, Context &context) const
{
    TextPiece whole = piece;
    MappedText prefixed;
    if (own.addPrefixSpace && piece.text[0] != ' ') {
        TextRewriter writer(piece.text, *piece.map, piece.at);
        writer.put(" ", 0);
        writer.copy(0, piece.text.size());
        writer.finish(prefixed);
        whole = {prefixed.text, &prefixed.map, 0};
    }
    return own.pattern ? splitStep(own, i, whole, context) : step(i + 1, whole, context);
}

bool PreTokenizer::metaspaceStep(const Step &own, std::size_t i, const TextPiece &piece, Context &context) const
{
    const std::string_view text = piece.text;
    const std::string &mark = own.literal;
    MappedText marked;
    TextRewriter writer(text, *piece.map, piece.at);
    const bool starts = text[0] == ' ' || text.substr(0, mark.size()) == mark;
    if (!starts && (own.prepend == Prepend::always || (own.prepend == Prepend::first && piece.map->origin(piece.at) == 0)))
        writer.put(mark, 0);
    std::size_t copied = 0;
    for (std::size_t at = text.find(' '); at != std::string_view::npos; at = text.find(' ', at + 1)) {
        writer.copy(copied, at - copied);
        writer.put(mark, at);
        copied = at + 1;
    }
    writer.copy(copied, text.size() - copied);
    writer.finish(marked);
    const TextPiece whole{marked.text, &marked.map, 0};
    if (!own.split)
        return step(i + 1, whole, context);
    PartJoiner joiner(Behavior::mergedWithNext,
                      [&](std::size_t begin, std::size_t end) { return step(i + 1, whole.part(begin, end), context); });
    std::size_t done = 0;
    for (std::size_t at = marked.text.find(mark); at != std::string_view::npos; at = marked.text.find(mark, done)) {
        if (at > done && !joiner.add(done, at, false))
            return false;
        if (!joiner.add(at, at + mark.size(), true))
            return false;
        done = at + mark.size();
    }
    if (done < marked.text.size() && !joiner.add(done, marked.text.size(), false))
        return false;
    return joiner.finish();
}

} // namespace spectra
