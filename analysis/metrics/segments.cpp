// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/segments.h"

#include "analysis/targetclones.h"
#include "engine/core/routingrecord.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace spectra::detail {
namespace {

/// How many experts were used since time `since`: the place of an expert in the order of recency.
SPECTRA_CLONES int usedSince(const std::int32_t *last, int experts, std::int32_t since)
{
    int later = 0;
    for (int e = 0; e < experts; ++e)
        later += last[e] > since;
    return later;
}

} // namespace

void SegmentScanner::Level::clear()
{
    for (const std::uint16_t e : used)
        count[e] = 0;
    used.clear();
    filled = all = 0;
}

void SegmentScanner::Level::take(std::uint16_t expert, std::uint16_t times)
{
    if (count[expert] == 0)
        used.push_back(expert);
    count[expert] = static_cast<std::uint16_t>(count[expert] + times);
    all += times;
}

SegmentScanner::SegmentScanner(int experts, int slots)
    : m_experts(experts)
    , m_slots(slots)
    , m_histogram(static_cast<std::size_t>(kSegmentLengths.back() * slots) + 1, 0)
    , m_last(static_cast<std::size_t>(experts), -1)
{
    for (Level &level : m_levels)
        level.count.assign(static_cast<std::size_t>(experts), 0);
}

/// Assignments that the k busiest experts serve, by counting sort of the counts.
int SegmentScanner::best(const Level &level)
{
    int most = 0;
    for (const std::uint16_t e : level.used) {
        ++m_histogram[level.count[e]];
        most = std::max<int>(most, level.count[e]);
    }
    int sum = 0, left = m_slots;
    for (int c = most; c > 0; --c) {
        std::int32_t &experts = m_histogram[static_cast<std::size_t>(c)];
        const int take = std::min(left, experts);
        sum += take * c;
        left -= take;
        experts = 0;
    }
    return sum;
}

void SegmentScanner::add(const std::uint16_t *experts, bool linked, bool starts, double *segments, double *caches)
{
    if (!linked)
        for (Level &level : m_levels)
            level.clear();
    if (starts || m_now > std::numeric_limits<std::int32_t>::max() - m_slots - 1) {
        std::fill(m_last.begin(), m_last.end(), -1);
        m_now = 0;
    }
    for (int i = 0; i < m_slots; ++i) {
        const std::uint16_t e = experts[i];
        if (e == kNoExpert)
            continue;
        m_levels[0].take(e, 1);
        const int place = m_last[e] < 0 ? m_experts : usedSince(m_last.data(), m_experts, m_last[e]);
        for (std::size_t c = 0; c < kCacheSlots.size(); ++c) {
            caches[2 * c] += place < std::min(m_experts, kCacheSlots[c] * m_slots);
            caches[2 * c + 1] += 1;
        }
        m_last[e] = m_now++;
    }
    if (++m_levels[0].filled < kSegmentLengths[0])
        return;
    for (std::size_t s = 0; s < m_levels.size(); ++s) {
        Level &level = m_levels[s];
        segments[2 * s] += best(level);
        segments[2 * s + 1] += level.all;
        const bool more = s + 1 < m_levels.size();
        if (more)
            for (const std::uint16_t e : level.used)
                m_levels[s + 1].take(e, level.count[e]);
        level.clear();
        if (!more || ++m_levels[s + 1].filled < 2)
            break;
    }
}

double overlapInSequence(const std::vector<std::uint16_t> &experts, int slots, int expertCount,
                         const std::vector<std::uint32_t> &member, std::size_t members, double &coActivation)
{
    const double none = std::numeric_limits<double>::quiet_NaN();
    const auto e = static_cast<std::size_t>(expertCount), k = static_cast<std::size_t>(slots);
    const std::size_t words = (members + 63) / 64;
    std::vector<std::uint64_t> sets(e * words, 0);
    for (std::size_t i = 0; i < experts.size(); ++i)
        if (experts[i] != kNoExpert)
            sets[experts[i] * words + member[i / k] / 64] |= std::uint64_t(1) << (member[i / k] % 64);
    std::vector<double> largest(e, 0.0), size(e, 0.0);
    for (std::size_t a = 0; a < e; ++a)
        for (std::size_t w = 0; w < words; ++w)
            size[a] += std::popcount(sets[a * words + w]);
    double sum = 0;
    for (std::size_t a = 0; a < e; ++a)
        for (std::size_t b = a + 1; b < e; ++b) {
            double both = 0;
            for (std::size_t w = 0; w < words; ++w)
                both += std::popcount(sets[a * words + w] & sets[b * words + w]);
            const double either = size[a] + size[b] - both;
            sum += either > 0 ? both / either : 0;
            largest[a] = size[a] > 0 ? std::max(largest[a], both / size[a]) : 0;
            largest[b] = size[b] > 0 ? std::max(largest[b], both / size[b]) : 0;
        }
    double used = 0;
    coActivation = 0;
    for (std::size_t a = 0; a < e; ++a)
        if (size[a] > 0) {
            coActivation += largest[a];
            used += 1;
        }
    coActivation = used > 0 && e > 1 ? coActivation / used : none;
    return e > 1 ? 2 * sum / static_cast<double>(e * (e - 1)) : none;
}

} // namespace spectra::detail
