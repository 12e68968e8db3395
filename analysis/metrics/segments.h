// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace spectra::detail {

/// Lengths of segments and sizes of caches (as multiples of k) that segment_routing_best and segment_cache_hit are
/// taken at. Each length is twice the one before: a segment is made of two shorter ones.
inline constexpr std::array<int, 5> kSegmentLengths{4, 8, 16, 32, 64};
inline constexpr std::array<int, 4> kCacheSlots{1, 2, 4, 8};
inline constexpr std::size_t kSegmentMain = 2, kCacheMain = 1;

/// Follows the tokens of a layer in order and counts what k fixed experts could serve in each segment, and the hits of
/// least-recently-used caches.
class SegmentScanner {
public:
    SegmentScanner(int experts, int slots);

    /// One token; `linked`: it follows the one before directly, `starts`: it begins a sequence. Adds pairs
    /// (served, all) per length to `segments` and (hits, accesses) per cache size to `caches`.
    void add(const std::uint16_t *experts, bool linked, bool starts, double *segments, double *caches);

private:
    struct Level {
        int filled = 0, all = 0;          ///< tokens (lowest level) or shorter segments, assignments
        std::vector<std::uint16_t> count; ///< [E]
        std::vector<std::uint16_t> used;  ///< experts with a count
        void clear();
        void take(std::uint16_t expert, std::uint16_t times);
    };
    [[nodiscard]] int best(const Level &level);

    const int m_experts, m_slots;
    std::array<Level, kSegmentLengths.size()> m_levels;
    std::vector<std::int32_t> m_histogram;
    std::vector<std::int32_t> m_last; ///< [E] time of the last access, −1: never
    std::int32_t m_now = 0;
};

/// Mean Jaccard index over pairs of experts of the sets of members (tokens or token types) of one sequence.
/// `experts` [n,slots], `member` [n] in [0, members). `coActivation`: mean over experts of the largest P(j | i).
[[nodiscard]] double overlapInSequence(const std::vector<std::uint16_t> &experts, int slots, int expertCount,
                                       const std::vector<std::uint32_t> &member, std::size_t members,
                                       double &coActivation);

} // namespace spectra::detail
