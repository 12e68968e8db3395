// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json_fwd.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// The decoder of a tokenizer.json: ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, in a row; without one the
/// pieces are joined with spaces. Immutable.
class DecoderSpec {
public:
    enum class Kind { byteLevel, metaspace, replace, byteFallback, fuse, strip, joinWithSpaces };
    struct Stage {
        Kind kind = Kind::fuse;
        std::string from, to;        // Replace; Metaspace and Strip: `from` is the character
        std::size_t start = 0, stop = 0; // Strip
        bool dropFirst = true;       // Metaspace
        bool fused = false;          // what comes in is one text in parts, not one token each
    };
    /// Errors (input): a kind that is not supported, by name; a field of the wrong type.
    [[nodiscard]] static Result<DecoderSpec> fromJson(const nlohmann::json &json);
    [[nodiscard]] const std::vector<Stage> &stages() const { return m_stages; }
    /// One token by itself: what it stands for in the text.
    [[nodiscard]] std::string bytesOf(std::string_view piece) const;

private:
    static Result<void> add(const nlohmann::json &json, int depth, std::vector<Stage> &stages);
    std::vector<Stage> m_stages;
};

/// A decoder at work: pieces go in one by one, text comes out as soon as no later piece can change it.
class DecodeChain {
public:
    explicit DecodeChain(const DecoderSpec &spec);
    void push(std::string_view piece, std::string &out) { step(0, piece, out); }
    /// The rest; afterwards the chain is as new.
    void finish(std::string &out);

private:
    struct State {
        std::string held;      // bytes that wait for more
        std::size_t count = 0; // tokens, or leading characters, seen
        bool counting = true;
    };
    void step(std::size_t i, std::string_view piece, std::string &out);
    void stripFused(std::size_t i, std::string_view text, std::string &out);
    void flushBytes(std::size_t i, std::string &out);
    const DecoderSpec &m_spec;
    std::vector<State> m_states;
};

/// The byte of a spelling "<0xNN>", or -1.
[[nodiscard]] int fallbackByte(std::string_view piece);

} // namespace spectra
