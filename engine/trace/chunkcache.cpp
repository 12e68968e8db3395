// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/chunkcache.h"

#include <atomic>

namespace spectra {

std::size_t Chunk::cost() const
{
    std::size_t bytesUsed = sizeof(Chunk) + bytes.capacity() + text.capacity() * sizeof(std::string);
    for (const std::string &t : text)
        bytesUsed += t.capacity() > 15 ? t.capacity() : 0;
    return bytesUsed;
}

ChunkCache &ChunkCache::shared()
{
    static ChunkCache cache(std::size_t(128) << 20);
    return cache;
}

std::uint64_t ChunkCache::nextReader()
{
    static std::atomic<std::uint64_t> next{1};
    return next.fetch_add(1);
}

std::size_t ChunkCache::Hash::operator()(const Key &key) const
{
    std::uint64_t h = key.reader * 0x9E3779B97F4A7C15ull ^ static_cast<std::uint64_t>(key.chunk) * 0xBF58476D1CE4E5B9ull
        ^ (static_cast<std::uint64_t>(static_cast<std::uint32_t>(key.dataset)) << 32 | static_cast<std::uint32_t>(key.layer)) * 0x94D049BB133111EBull;
    return static_cast<std::size_t>(h ^ (h >> 31));
}

std::shared_ptr<const Chunk> ChunkCache::find(const Key &key)
{
    const std::lock_guard lock(m_mutex);
    const auto it = m_index.find(key);
    if (it == m_index.end())
        return {};
    m_order.splice(m_order.begin(), m_order, it->second);
    return it->second->second;
}

void ChunkCache::insert(const Key &key, std::shared_ptr<const Chunk> chunk)
{
    const std::size_t cost = chunk->cost();
    std::list<Entry> dropped; // freed outside the lock
    const std::lock_guard lock(m_mutex);
    if (cost > m_capacity || m_index.contains(key))
        return;
    m_order.emplace_front(key, std::move(chunk));
    m_index.emplace(key, m_order.begin());
    m_bytes += cost;
    while (m_bytes > m_capacity) {
        m_bytes -= m_order.back().second->cost();
        m_index.erase(m_order.back().first);
        dropped.splice(dropped.end(), m_order, std::prev(m_order.end()));
    }
}

void ChunkCache::forget(std::uint64_t reader)
{
    const std::lock_guard lock(m_mutex);
    for (auto it = m_order.begin(); it != m_order.end();) {
        if (it->first.reader == reader) {
            m_bytes -= it->second->cost();
            m_index.erase(it->first);
            it = m_order.erase(it);
        } else {
            ++it;
        }
    }
}

std::size_t ChunkCache::bytes() const
{
    const std::lock_guard lock(m_mutex);
    return m_bytes;
}

} // namespace spectra
