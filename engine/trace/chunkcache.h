// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace spectra {

/// Decoded rows of one chunk of one layer, in storage type; text columns fill `text` instead.
struct Chunk {
    std::int64_t rows = 0;
    std::vector<std::byte> bytes;
    std::vector<std::string> text;
    [[nodiscard]] std::size_t cost() const;
};

/// The one cache of all open traces: least recently used chunks go when 128 MiB are full. Thread-safe.
class ChunkCache {
public:
    struct Key {
        std::uint64_t reader = 0;
        std::int32_t dataset = 0, layer = 0;
        std::int64_t chunk = 0;
        friend bool operator==(const Key &, const Key &) = default;
    };

    static ChunkCache &shared();
    explicit ChunkCache(std::size_t capacity) : m_capacity(capacity) {}
    [[nodiscard]] std::shared_ptr<const Chunk> find(const Key &key);
    void insert(const Key &key, std::shared_ptr<const Chunk> chunk);
    void forget(std::uint64_t reader);
    [[nodiscard]] std::size_t bytes() const;
    [[nodiscard]] static std::uint64_t nextReader();

private:
    struct Hash {
        std::size_t operator()(const Key &key) const;
    };
    using Entry = std::pair<Key, std::shared_ptr<const Chunk>>;
    mutable std::mutex m_mutex;
    std::list<Entry> m_order; ///< most recent first
    std::unordered_map<Key, std::list<Entry>::iterator, Hash> m_index;
    std::size_t m_capacity, m_bytes = 0;
};

} // namespace spectra
