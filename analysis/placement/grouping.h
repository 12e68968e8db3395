// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra {

/// Experts of each group.
using ExpertGroups = std::vector<std::vector<int>>;

/// Allowed sizes of the groups of one node: mean ⌊n/groups⌋ ± max(1, round(mean·ratio)), at least 1.
struct GroupBounds {
    std::int64_t mean = 0, low = 0, high = 0;
};
[[nodiscard]] GroupBounds groupBounds(std::int64_t members, std::int64_t groups, double ratio);

/// Σ A_ij over j in `group`, j ≠ expert. `affinity` is [experts, experts].
[[nodiscard]] double affinityTo(std::span<const double> affinity, std::int64_t experts, int expert, const std::vector<int> &group);

/// Fully non-uniform groups: spectral clustering of `members`, sizes free but at least `least` each (members.size() >= groups·least):
/// a smaller group is given the weakest experts of the largest ones. Groups are sorted and never empty.
[[nodiscard]] ExpertGroups freeGroups(std::span<const double> affinity, std::int64_t experts, const std::vector<int> &members, int groups, std::int64_t least,
                                      std::uint64_t seed);

/// Brings groups into bounds: one that is too large keeps the experts with the most affinity inside it, each other one goes to the group
/// with room that it has most affinity to; then groups that are too small get the weakest experts of the largest. The bounds must
/// leave room: low·groups <= members <= high·groups.
[[nodiscard]] ExpertGroups boundedGroups(std::span<const double> affinity, std::int64_t experts, ExpertGroups groups, const GroupBounds &bounds);

/// U: affinity inside groups over all affinity; 1 when there is none at all.
[[nodiscard]] double insideAffinity(std::span<const double> affinity, std::int64_t experts, const ExpertGroups &groups);

/// One ratio tried, with S = √mean (|C_d| − ⌊N_e/D⌋)² and U of the groups it gives.
struct RatioPoint {
    double ratio = 0, spread = 0, inside = 0;
};
/// Index of the knee of U over S: after both are scaled to [0,1], the largest U − S (Satopää et al. 2011), the first of equals; 0 where
/// S or U does not vary.
[[nodiscard]] std::size_t kneeOf(std::span<const RatioPoint> points);

} // namespace spectra
