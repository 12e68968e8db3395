// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/decodechain.h"

#include "engine/tokenizer/jsonfields.h"
#include "engine/tokenizer/utf8.h"

namespace spectra {
namespace {

using Kind = DecoderSpec::Kind;

/// Non-overlapping occurrences from the left.
std::string replaced(std::string_view text, const std::string &from, const std::string &to)
{
    std::string out;
    std::size_t done = 0;
    for (std::size_t at = text.find(from); at != std::string_view::npos; at = text.find(from, done)) {
        out.append(text, done, at - done);
        out += to;
        done = at + from.size();
    }
    out.append(text, done, text.size() - done);
    return out;
}

bool startsWith(std::string_view text, std::string_view what)
{
    return text.substr(0, what.size()) == what;
}

std::string stripped(std::string_view text, const DecoderSpec::Stage &stage)
{
    std::size_t begin = 0;
    for (std::size_t i = 0; i < stage.start && startsWith(text.substr(begin), stage.from) && begin < text.size(); ++i)
        begin += stage.from.size();
    std::size_t end = text.size();
    for (std::size_t i = 0; i < stage.stop && end >= stage.from.size(); ++i) {
        if (text.substr(end - stage.from.size(), stage.from.size()) != stage.from)
            break;
        end -= stage.from.size();
    }
    return begin < end ? std::string(text.substr(begin, end - begin)) : std::string();
}

} // namespace

int fallbackByte(std::string_view piece)
{
    if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>')
        return -1;
    int value = 0;
    for (const char c : piece.substr(3, 2)) {
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

Result<DecoderSpec> DecoderSpec::fromJson(const nlohmann::json &json)
{
    DecoderSpec result;
    if (json.is_null())
        result.m_stages.push_back({Kind::joinWithSpaces, {}, {}, 0, 0, true, false});
    else
        SPECTRA_CHECK(add(json, 0, result.m_stages));
    bool fused = false;
    for (Stage &stage : result.m_stages) {
        stage.fused = fused;
        fused = fused || stage.kind == Kind::fuse || stage.kind == Kind::byteLevel;
    }
    return result;
}

Result<void> DecoderSpec::add(const nlohmann::json &json, int depth, std::vector<Stage> &stages)
{
    SPECTRA_TRY(const std::string type, jsonfields::type(json));
    if (type == "Sequence") {
        const auto list = json.find("decoders");
        if (depth >= jsonfields::deepestSequence || list == json.end() || !list->is_array())
            return inputError("a list of at most 8 levels was expected", "Sequence.decoders");
        for (const auto &element : *list)
            SPECTRA_CHECK(add(element, depth + 1, stages));
        return {};
    }
    if (stages.size() >= 64)
        return inputError("more than 64 decoders");
    Stage stage;
    if (type == "ByteLevel") {
        stage.kind = Kind::byteLevel;
    } else if (type == "ByteFallback") {
        stage.kind = Kind::byteFallback;
    } else if (type == "Fuse") {
        stage.kind = Kind::fuse;
    } else if (type == "Replace") {
        stage.kind = Kind::replace;
        std::shared_ptr<const RegexPattern> pattern;
        SPECTRA_CHECK(jsonfields::pattern(json, stage.from, pattern));
        if (pattern)
            return inputError("a decoder Replace by a Regex is not supported", "pattern");
        SPECTRA_TRY(stage.to, jsonfields::requiredText(json, "content"));
        if (stage.to.size() > 1024)
            return inputError("the text to write is longer than 1024 bytes", "content");
    } else if (type == "Strip") {
        stage.kind = Kind::strip;
        SPECTRA_TRY(stage.from, jsonfields::requiredText(json, "content"));
        if (stage.from.empty() || std::size_t(utf8::lengthOf(stage.from[0])) != stage.from.size())
            return inputError("one character was expected", "Strip.content");
        for (const char *key : {"start", "stop"}) {
            const auto it = json.find(key);
            if (it == json.end() || !it->is_number_integer() || it->get<std::int64_t>() < 0 || it->get<std::int64_t>() > 1024)
                return inputError("a number of at most 1024 was expected", std::string("Strip.") + key);
            (key[2] == 'a' ? stage.start : stage.stop) = it->get<std::size_t>();
        }
    } else if (type == "Metaspace") {
        stage.kind = Kind::metaspace;
        SPECTRA_TRY(stage.from, jsonfields::text(json, "replacement", "\xE2\x96\x81"));
        if (stage.from.empty() || std::size_t(utf8::lengthOf(stage.from[0])) != stage.from.size())
            return inputError("one character was expected", "Metaspace.replacement");
        SPECTRA_TRY(const bool prefix, jsonfields::flag(json, "add_prefix_space", true));
        SPECTRA_TRY(const std::string scheme, jsonfields::text(json, "prepend_scheme", prefix ? "always" : "never"));
        stage.dropFirst = scheme != "never";
    } else {
        return inputError("the decoder " + type + " is not supported", "type");
    }
    stages.push_back(std::move(stage));
    return {};
}

std::string DecoderSpec::bytesOf(std::string_view piece) const
{
    std::string text(piece);
    for (const Stage &stage : m_stages) {
        if (stage.kind == Kind::byteLevel)
            text = bytealphabet::toBytes(text);
        else if (stage.kind == Kind::replace)
            text = replaced(text, stage.from, stage.to);
        else if (stage.kind == Kind::metaspace)
            text = replaced(text, stage.from, " ");
        else if (stage.kind == Kind::byteFallback) {
            if (const int byte = fallbackByte(text); byte >= 0)
                return std::string(1, char(byte));
        }
    }
    return text;
}

DecodeChain::DecodeChain(const DecoderSpec &spec) : m_spec(spec), m_states(spec.stages().size()) {}

void DecodeChain::step(std::size_t i, std::string_view piece, std::string &out)
{
    if (i == m_spec.stages().size()) {
        out += piece;
        return;
    }
    const DecoderSpec::Stage &stage = m_spec.stages()[i];
    State &state = m_states[i];
    switch (stage.kind) {
    case Kind::fuse: step(i + 1, piece, out); return;
    case Kind::joinWithSpaces:
        if (state.count++ > 0)
            step(i + 1, " ", out);
        step(i + 1, piece, out);
        return;
    case Kind::byteLevel: {
        state.held += bytealphabet::toBytes(piece);
        std::string text;
        std::string rest;
        utf8::appendLossy(text, state.held, &rest);
        state.held = std::move(rest);
        step(i + 1, text, out);
        return;
    }
    case Kind::byteFallback:
        if (const int byte = fallbackByte(piece); byte >= 0) {
            state.held += char(byte);
            return;
        }
        flushBytes(i, out);
        step(i + 1, piece, out);
        return;
    case Kind::metaspace:
        step(i + 1, replaced(piece, stage.from, stage.dropFirst && state.count == 0 ? "" : " "), out);
        state.count = 1;
        return;
    case Kind::replace:
        if (!stage.fused || std::size_t(utf8::lengthOf(stage.from[0])) == stage.from.size())
            step(i + 1, replaced(piece, stage.from, stage.to), out);
        else
            state.held += piece; // an occurrence may go on in the next part
        return;
    case Kind::strip:
        if (stage.fused)
            stripFused(i, piece, out);
        else
            step(i + 1, stripped(piece, stage), out);
        return;
    }
}

void DecodeChain::stripFused(std::size_t i, std::string_view text, std::string &out)
{
    const DecoderSpec::Stage &stage = m_spec.stages()[i];
    State &state = m_states[i];
    if (stage.stop > 0) { // the end is known at the end only
        state.held += text;
        return;
    }
    while (state.counting && !text.empty()) {
        state.counting = state.count < stage.start && startsWith(text, stage.from);
        if (state.counting) {
            text.remove_prefix(stage.from.size());
            ++state.count;
        }
    }
    step(i + 1, text, out);
}

/// A run of byte tokens is text when all of it is UTF-8, and one U+FFFD per byte when not.
void DecodeChain::flushBytes(std::size_t i, std::string &out)
{
    std::string bytes = std::move(m_states[i].held);
    m_states[i].held.clear();
    if (bytes.empty())
        return;
    if (utf8::validLength(bytes, 0) == bytes.size()) {
        step(i + 1, bytes, out);
        return;
    }
    for (std::size_t n = 0; n < bytes.size(); ++n)
        step(i + 1, "\xEF\xBF\xBD", out);
}

void DecodeChain::finish(std::string &out)
{
    for (std::size_t i = 0; i < m_states.size(); ++i) {
        const DecoderSpec::Stage &stage = m_spec.stages()[i];
        if (stage.kind == Kind::byteFallback) {
            flushBytes(i, out);
        } else if (!m_states[i].held.empty()) {
            std::string text;
            if (stage.kind == Kind::byteLevel)
                utf8::appendLossy(text, m_states[i].held, nullptr);
            else if (stage.kind == Kind::replace)
                text = replaced(m_states[i].held, stage.from, stage.to);
            else
                text = stripped(m_states[i].held, stage);
            m_states[i].held.clear();
            step(i + 1, text, out);
        }
        m_states[i] = State();
    }
}

} // namespace spectra
