// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace spectra {

/// A set of token rows [0, size) of one trace as a bitset: filter, selection and highlight are three of these.
/// Every operation on 1 M rows touches 125 kB. Not synchronised: copy to hand over to another thread.
class RowSet {
public:
    RowSet() = default;
    explicit RowSet(std::size_t size, bool full = false);

    [[nodiscard]] std::size_t size() const { return m_size; }
    [[nodiscard]] std::size_t count() const;
    [[nodiscard]] bool empty() const { return count() == 0; }
    [[nodiscard]] bool contains(std::size_t row) const
    {
        return row < m_size && (m_words[row >> 6] >> (row & 63) & 1u) != 0;
    }
    void insert(std::size_t row) { m_words[row >> 6] |= std::uint64_t(1) << (row & 63); }
    void erase(std::size_t row) { m_words[row >> 6] &= ~(std::uint64_t(1) << (row & 63)); }
    void insertRange(std::size_t first, std::size_t last);
    void clear();
    void resize(std::size_t size);

    // Sets of different size are taken as sets over the larger one.
    RowSet &unite(const RowSet &other);
    RowSet &intersect(const RowSet &other);
    RowSet &subtract(const RowSet &other);
    RowSet &invert();

    [[nodiscard]] std::vector<std::int64_t> rows() const;
    template <typename F> void forEach(F &&function) const
    {
        for (std::size_t w = 0; w < m_words.size(); ++w)
            for (std::uint64_t bits = m_words[w]; bits != 0; bits &= bits - 1)
                function((w << 6) + static_cast<std::size_t>(std::countr_zero(bits)));
    }
    [[nodiscard]] const std::vector<std::uint64_t> &words() const { return m_words; }
    friend bool operator==(const RowSet &, const RowSet &) = default;

private:
    void trim();
    std::size_t m_size = 0;
    std::vector<std::uint64_t> m_words;
};

} // namespace spectra
