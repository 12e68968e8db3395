// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace spectra::detail {

struct Candidate {
    float distance;
    std::int32_t index;
    friend bool operator<(const Candidate &a, const Candidate &b)
    {
        return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
    }
};

/// The nearest `keep` of a stream: gathers twice as many, then cuts back to the nearest.
class Nearest {
public:
    void reset(int keep)
    {
        m_keep = static_cast<std::size_t>(keep);
        m_all.clear();
        m_bound = std::numeric_limits<float>::infinity();
    }
    [[nodiscard]] float bound() const { return m_bound; }
    void add(Candidate c)
    {
        m_all.push_back(c);
        if (m_all.size() >= 2 * m_keep + 32)
            cut();
    }
    std::vector<Candidate> &finish()
    {
        if (m_all.size() > m_keep)
            cut();
        return m_all;
    }

private:
    void cut()
    {
        std::nth_element(m_all.begin(), m_all.begin() + static_cast<std::ptrdiff_t>(m_keep) - 1, m_all.end());
        m_all.resize(m_keep);
        m_bound = m_all.back().distance;
    }
    std::size_t m_keep = 1;
    std::vector<Candidate> m_all;
    float m_bound = 0;
};

} // namespace spectra::detail
