// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace spectra {

/// A hash table from pairs of 32-bit numbers, filled once, then only read.
class PairTable {
public:
    struct Value {
        std::uint32_t rank = 0;
        std::int32_t id = -1;
    };
    void reserve(std::size_t pairs);
    /// A later value of the same pair replaces the earlier one.
    void set(std::uint32_t left, std::uint32_t right, Value value);
    [[nodiscard]] const Value *find(std::uint32_t left, std::uint32_t right) const
    {
        if (m_slots.empty())
            return nullptr;
        const std::uint64_t key = keyOf(left, right);
        for (std::size_t at = (key * multiplier) >> m_shift;; at = (at + 1) & (m_slots.size() - 1)) {
            const Slot &slot = m_slots[at];
            if (slot.key == key)
                return &slot.value;
            if (slot.key == emptyKey)
                return nullptr;
        }
    }
    [[nodiscard]] std::size_t size() const { return m_size; }
    template <typename F> void forEach(F &&f) const
    {
        for (const Slot &slot : m_slots) {
            if (slot.key != emptyKey)
                f(std::uint32_t(slot.key >> 32), std::uint32_t(slot.key), slot.value);
        }
    }

private:
    static constexpr std::uint64_t multiplier = 0x9E3779B97F4A7C15u;
    static constexpr std::uint64_t emptyKey = ~std::uint64_t(0);
    static std::uint64_t keyOf(std::uint32_t left, std::uint32_t right) { return std::uint64_t(left) << 32 | right; }
    struct Slot {
        std::uint64_t key = emptyKey;
        Value value;
    };
    std::vector<Slot> m_slots;
    std::size_t m_size = 0;
    int m_shift = 64;
};

struct StringHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>()(s); }
};
using PieceMap = std::unordered_map<std::string_view, std::int32_t, StringHash, std::equal_to<>>;

/// Where tokens of one word go: the id and its first byte, counted from the start of the word.
struct WordToken {
    std::int32_t id;
    std::uint32_t at;
};

/// One thread's room for merging, with a memory of short words already done.
class BpeRoom {
public:
    /// `remember`: worth it for long texts only.
    explicit BpeRoom(bool remember);

private:
    friend class BpeModel;
    struct Symbol {
        std::int32_t id, previous, next;
        std::uint32_t at;
    };
    struct Candidate {
        std::uint32_t rank;
        std::int32_t at, id;
    };
    static constexpr std::size_t longestWord = 24;
    static constexpr std::size_t mostTokens = 6;
    struct Remembered {
        std::uint8_t length = 0, count = 0;
        std::array<std::uint8_t, mostTokens> at{};
        std::array<char, longestWord> text{};
        std::array<std::int32_t, mostTokens> ids{};
    };
    std::vector<Remembered> m_remembered;
    std::vector<WordToken> m_tokens;
    std::vector<WordToken> m_initial;
    std::vector<Symbol> m_symbols;
    std::vector<Candidate> m_heap;
    std::string m_key;
};

/// Byte-pair merging over bytes (spelled in the byte alphabet) or over characters, as Hugging Face `tokenizers` does it:
/// the pair of lowest rank first, of equal ranks the leftmost. Filled by build.cpp, then only read.
class BpeModel {
public:
    bool byteLevel = false;    ///< words are bytes, else UTF-8
    bool byteFallback = false; ///< a character that the vocabulary lacks becomes its <0xNN> tokens
    bool fuseUnknown = false;
    bool ignoreMerges = false; ///< a word that is in the vocabulary is that token
    std::string prefix;        ///< of every symbol but a word's first
    std::string suffix;        ///< of a word's last symbol
    std::int32_t unknown = -1;
    PairTable merges;
    /// Pairs of (last code point, first code point) that some merge joins: between any others a word may be cut.
    PairTable joints;
    std::array<std::int32_t, 256> byteIds{}; ///< of a byte's symbol, or of its <0xNN>; -1: none
    PieceMap pieces;                         ///< of the model's vocabulary
    std::vector<std::uint32_t> firstChars, lastChars; ///< by id, of its spelling

    /// Tokens of one word, handed on in order; of a long word in parts, so that nothing of its length is held.
    using Emit = std::function<void(std::span<const WordToken>)>;
    void encode(std::string_view word, BpeRoom &room, const Emit &emit) const;

private:
    /// The symbols of `word` from `at` on, which moves: all, or about `most`. `pending` carries an unknown token over.
    struct Pending {
        std::int32_t id = -1;
        std::uint32_t at = 0;
    };
    void symbols(std::string_view word, std::size_t &at, std::size_t most, Pending &pending, std::vector<WordToken> &out) const;
    void encodeLong(std::string_view word, std::size_t at, Pending pending, BpeRoom &room, const Emit &emit) const;
    void mergePart(std::span<const WordToken> part, BpeRoom &room) const;
    void charSymbol(std::string_view word, std::size_t at, std::size_t length, std::string &scratch,
                    Pending &pending, std::vector<WordToken> &out) const;
    void mergeShort(std::vector<WordToken> &tokens) const;
    void mergeLong(std::span<const WordToken> initial, BpeRoom &room) const;
};

} // namespace spectra
