// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tokenizer/bpe.h"

#include "engine/tokenizer/utf8.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace spectra {
namespace {

constexpr std::size_t shortWord = 40;        // symbols; longer words go through a heap
constexpr std::size_t longWordStep = 65536;  // symbols looked at in one go
constexpr std::size_t rememberedWords = 8192; // a power of two

} // namespace

void PairTable::reserve(std::size_t pairs)
{
    std::size_t slots = 16;
    m_shift = 60;
    while (slots < pairs * 2) {
        slots *= 2;
        --m_shift;
    }
    m_slots.assign(slots, Slot());
    m_size = 0;
}

void PairTable::set(std::uint32_t left, std::uint32_t right, Value value)
{
    if (m_slots.empty() || m_size * 3 >= m_slots.size() * 2) {
        std::vector<Slot> old = std::move(m_slots);
        reserve(std::max<std::size_t>(16, old.size()));
        for (const Slot &slot : old) {
            if (slot.key != emptyKey)
                set(std::uint32_t(slot.key >> 32), std::uint32_t(slot.key), slot.value);
        }
    }
    const std::uint64_t key = keyOf(left, right);
    std::size_t at = (key * multiplier) >> m_shift;
    while (m_slots[at].key != emptyKey && m_slots[at].key != key)
        at = (at + 1) & (m_slots.size() - 1);
    m_size += m_slots[at].key == emptyKey ? 1 : 0;
    m_slots[at] = {key, value};
}

BpeRoom::BpeRoom(bool remember)
{
    if (remember)
        m_remembered.resize(rememberedWords);
}

void BpeModel::charSymbol(std::string_view word, std::size_t at, std::size_t length, std::string &scratch,
                          Pending &pending, std::vector<WordToken> &out) const
{
    const std::string_view bytes = word.substr(at, length);
    std::string_view key = bytes;
    const bool prefixed = at > 0 && !prefix.empty();
    const bool suffixed = at + length == word.size() && !suffix.empty();
    if (prefixed || suffixed || byteLevel) {
        scratch.assign(prefixed ? prefix : std::string());
        scratch += byteLevel ? bytealphabet::spell(bytes) : std::string(bytes);
        scratch += suffixed ? suffix : std::string();
        key = scratch;
    }
    if (const auto it = pieces.find(key); it != pieces.end()) {
        if (pending.id >= 0)
            out.push_back({std::exchange(pending.id, -1), pending.at});
        out.push_back({it->second, std::uint32_t(at)});
        return;
    }
    if (byteFallback && std::all_of(bytes.begin(), bytes.end(), [this](char c) { return byteIds[static_cast<unsigned char>(c)] >= 0; })) {
        for (std::size_t i = 0; i < bytes.size(); ++i)
            out.push_back({byteIds[static_cast<unsigned char>(bytes[i])], std::uint32_t(at + i)});
        return;
    }
    if (unknown < 0)
        return;
    if (pending.id >= 0 && fuseUnknown)
        return;
    if (pending.id >= 0)
        out.push_back({pending.id, pending.at});
    pending = {unknown, std::uint32_t(at)};
}

void BpeModel::symbols(std::string_view word, std::size_t &at, std::size_t most, Pending &pending,
                       std::vector<WordToken> &out) const
{
    std::string scratch;
    const bool plainBytes = byteLevel && prefix.empty() && suffix.empty();
    while (at < word.size() && out.size() < most) {
        const std::size_t length = byteLevel ? 1 : std::min(std::size_t(utf8::lengthOf(word[at])), word.size() - at);
        const std::int32_t id = plainBytes ? byteIds[static_cast<unsigned char>(word[at])] : -1;
        if (id >= 0 && pending.id < 0)
            out.push_back({id, std::uint32_t(at)});
        else
            charSymbol(word, at, length, scratch, pending, out);
        at += length;
    }
    if (at == word.size() && pending.id >= 0)
        out.push_back({std::exchange(pending.id, -1), pending.at});
}

void BpeModel::mergeShort(std::vector<WordToken> &tokens) const
{
    std::array<std::uint32_t, shortWord> ranks{};
    std::array<std::int32_t, shortWord> merged{};
    constexpr std::uint32_t never = 0xffffffffu;
    std::size_t count = tokens.size();
    const auto look = [&](std::size_t i) {
        const PairTable::Value *value = merges.find(std::uint32_t(tokens[i].id), std::uint32_t(tokens[i + 1].id));
        ranks[i] = value ? value->rank : never;
        merged[i] = value ? value->id : -1;
    };
    for (std::size_t i = 0; i + 1 < count; ++i)
        look(i);
    while (count > 1) {
        std::size_t best = 0;
        for (std::size_t i = 1; i + 1 < count; ++i) {
            if (ranks[i] < ranks[best])
                best = i;
        }
        if (ranks[best] == never)
            break;
        tokens[best].id = merged[best];
        tokens.erase(tokens.begin() + std::ptrdiff_t(best) + 1);
        for (std::size_t i = best + 1; i + 2 < count; ++i) {
            ranks[i] = ranks[i + 1];
            merged[i] = merged[i + 1];
        }
        --count;
        if (best > 0)
            look(best - 1);
        if (best + 1 < count)
            look(best);
    }
}

void BpeModel::mergeLong(std::span<const WordToken> initial, BpeRoom &room) const
{
    const std::size_t count = initial.size();
    auto &symbols = room.m_symbols;
    auto &heap = room.m_heap;
    symbols.clear();
    heap.clear();
    symbols.reserve(count);
    for (std::size_t i = 0; i < count; ++i)
        symbols.push_back({initial[i].id, std::int32_t(i) - 1, i + 1 < count ? std::int32_t(i) + 1 : -1, initial[i].at});
    const auto later = [](const BpeRoom::Candidate &a, const BpeRoom::Candidate &b) {
        return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
    };
    const auto candidate = [&](std::int32_t at, bool first) {
        const auto &left = symbols[std::size_t(at)];
        if (left.next < 0)
            return;
        const PairTable::Value *value = merges.find(std::uint32_t(left.id), std::uint32_t(symbols[std::size_t(left.next)].id));
        if (!value)
            return;
        heap.push_back({value->rank, at, value->id});
        if (!first)
            std::push_heap(heap.begin(), heap.end(), later);
    };
    for (std::size_t i = 0; i + 1 < count; ++i)
        candidate(std::int32_t(i), true);
    std::make_heap(heap.begin(), heap.end(), later);
    while (!heap.empty()) {
        std::pop_heap(heap.begin(), heap.end(), later);
        const BpeRoom::Candidate top = heap.back();
        heap.pop_back();
        auto &left = symbols[std::size_t(top.at)];
        if (left.id < 0 || left.next < 0)
            continue;
        auto &right = symbols[std::size_t(left.next)];
        const PairTable::Value *value = merges.find(std::uint32_t(left.id), std::uint32_t(right.id));
        if (!value || value->id != top.id)
            continue;
        left.id = top.id;
        left.next = right.next;
        right.id = -1;
        if (left.next >= 0)
            symbols[std::size_t(left.next)].previous = top.at;
        if (left.previous >= 0)
            candidate(left.previous, false);
        candidate(top.at, false);
    }
    for (std::int32_t at = 0; at >= 0; at = symbols[std::size_t(at)].next)
        room.m_tokens.push_back({symbols[std::size_t(at)].id, symbols[std::size_t(at)].at});
}

void BpeModel::mergePart(std::span<const WordToken> part, BpeRoom &room) const
{
    room.m_tokens.clear();
    if (part.size() > shortWord) {
        mergeLong(part, room);
        return;
    }
    room.m_tokens.assign(part.begin(), part.end());
    mergeShort(room.m_tokens);
}

void BpeModel::encodeLong(std::string_view word, std::size_t at, Pending pending, BpeRoom &room, const Emit &emit) const
{
    auto &initial = room.m_initial;
    // No merge ever joins across a cut, so each part is merged by itself: room for one part is enough.
    std::size_t looked = 1;
    for (;;) {
        std::size_t begin = 0;
        for (; looked < initial.size(); ++looked) {
            if (!prefix.empty()
                || joints.find(lastChars[std::size_t(initial[looked - 1].id)], firstChars[std::size_t(initial[looked].id)]))
                continue;
            mergePart(std::span(initial).subspan(begin, looked - begin), room);
            emit(room.m_tokens);
            begin = looked;
        }
        initial.erase(initial.begin(), initial.begin() + std::ptrdiff_t(begin));
        looked = initial.size();
        if (at == word.size())
            break;
        symbols(word, at, initial.size() + longWordStep, pending, initial);
        looked = std::max<std::size_t>(looked, 1);
    }
    mergePart(initial, room);
    emit(room.m_tokens);
}

void BpeModel::encode(std::string_view word, BpeRoom &room, const Emit &emit) const
{
    auto &tokens = room.m_tokens;
    tokens.clear();
    if (word.empty())
        return;
    BpeRoom::Remembered *slot = nullptr;
    if (word.size() <= BpeRoom::longestWord && !room.m_remembered.empty()) {
        slot = &room.m_remembered[std::hash<std::string_view>()(word) & (rememberedWords - 1)];
        if (slot->length == word.size() && std::memcmp(slot->text.data(), word.data(), word.size()) == 0) {
            for (std::size_t i = 0; i < slot->count; ++i)
                tokens.push_back({slot->ids[i], slot->at[i]});
            emit(tokens);
            return;
        }
    }
    bool whole = false;
    if (ignoreMerges) {
        std::string_view key = word;
        if (byteLevel) {
            room.m_key = bytealphabet::spell(word);
            key = room.m_key;
        }
        if (const auto it = pieces.find(key); it != pieces.end()) {
            tokens.push_back({it->second, 0});
            whole = true;
        }
    }
    if (!whole) {
        Pending pending;
        std::size_t at = 0;
        room.m_initial.clear();
        symbols(word, at, longWordStep, pending, room.m_initial);
        if (at < word.size() || room.m_initial.size() > shortWord) {
            encodeLong(word, at, pending, room, emit);
            return;
        }
        mergePart(room.m_initial, room);
    }
    if (slot && tokens.size() <= BpeRoom::mostTokens) {
        slot->length = std::uint8_t(word.size());
        slot->count = std::uint8_t(tokens.size());
        std::memcpy(slot->text.data(), word.data(), word.size());
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            slot->ids[i] = tokens[i].id;
            slot->at[i] = std::uint8_t(tokens[i].at);
        }
    }
    emit(tokens);
}

} // namespace spectra
