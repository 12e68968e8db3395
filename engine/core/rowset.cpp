// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/rowset.h"

#include <algorithm>

namespace spectra {

RowSet::RowSet(std::size_t size, bool full) : m_size(size), m_words((size + 63) / 64, full ? ~std::uint64_t(0) : 0)
{
    trim();
}

std::size_t RowSet::count() const
{
    std::size_t n = 0;
    for (std::uint64_t w : m_words)
        n += static_cast<std::size_t>(std::popcount(w));
    return n;
}

void RowSet::insertRange(std::size_t first, std::size_t last)
{
    last = std::min(last, m_size);
    if (first >= last)
        return;
    const std::size_t firstWord = first >> 6;
    const std::size_t lastWord = (last - 1) >> 6;
    const std::uint64_t head = ~std::uint64_t(0) << (first & 63);
    const std::uint64_t tail = ~std::uint64_t(0) >> (63 - ((last - 1) & 63));
    if (firstWord == lastWord) {
        m_words[firstWord] |= head & tail;
        return;
    }
    m_words[firstWord] |= head;
    std::fill(m_words.begin() + static_cast<std::ptrdiff_t>(firstWord) + 1,
              m_words.begin() + static_cast<std::ptrdiff_t>(lastWord), ~std::uint64_t(0));
    m_words[lastWord] |= tail;
}

void RowSet::clear()
{
    std::fill(m_words.begin(), m_words.end(), 0);
}

void RowSet::resize(std::size_t size)
{
    m_size = size;
    m_words.resize((size + 63) / 64, 0);
    trim();
}

RowSet &RowSet::unite(const RowSet &other)
{
    if (other.m_size > m_size)
        resize(other.m_size);
    for (std::size_t i = 0; i < other.m_words.size(); ++i)
        m_words[i] |= other.m_words[i];
    return *this;
}

RowSet &RowSet::intersect(const RowSet &other)
{
    if (other.m_size > m_size)
        resize(other.m_size);
    for (std::size_t i = 0; i < m_words.size(); ++i)
        m_words[i] &= i < other.m_words.size() ? other.m_words[i] : 0;
    return *this;
}

RowSet &RowSet::subtract(const RowSet &other)
{
    for (std::size_t i = 0; i < std::min(m_words.size(), other.m_words.size()); ++i)
        m_words[i] &= ~other.m_words[i];
    return *this;
}

RowSet &RowSet::invert()
{
    for (std::uint64_t &w : m_words)
        w = ~w;
    trim();
    return *this;
}

std::vector<std::int64_t> RowSet::rows() const
{
    std::vector<std::int64_t> out;
    out.reserve(count());
    forEach([&](std::size_t row) { out.push_back(static_cast<std::int64_t>(row)); });
    return out;
}

void RowSet::trim()
{
    if (m_size % 64 != 0)
        m_words.back() &= ~std::uint64_t(0) >> (64 - m_size % 64);
}

} // namespace spectra
