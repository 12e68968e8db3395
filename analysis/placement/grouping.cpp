// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/placement/grouping.h"

#include "analysis/placement/spectral.h"

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

/// Takes the expert of least affinity inside its group out of it, the higher number of equals.
int takeWeakest(std::span<const double> affinity, std::int64_t experts, std::vector<int> &group)
{
    std::size_t weakest = 0;
    double least = 0;
    for (std::size_t i = 0; i < group.size(); ++i)
        if (const double inside = affinityTo(affinity, experts, group[i], group); i == 0 || inside <= least) {
            least = inside;
            weakest = i;
        }
    const int expert = group[weakest];
    group.erase(group.begin() + static_cast<std::ptrdiff_t>(weakest));
    return expert;
}

/// Moves weakest experts of the largest groups to those below `low`.
void feedSmall(std::span<const double> affinity, std::int64_t experts, ExpertGroups &groups, std::int64_t low)
{
    const auto size = [](const std::vector<int> &g) { return static_cast<std::int64_t>(g.size()); };
    for (auto &needy : groups)
        while (size(needy) < low) {
            const auto big = std::max_element(groups.begin(), groups.end(), [](const auto &a, const auto &b) { return a.size() < b.size(); });
            if (size(*big) <= low)
                return;
            needy.push_back(takeWeakest(affinity, experts, *big));
            std::sort(needy.begin(), needy.end());
        }
}

} // namespace

GroupBounds groupBounds(std::int64_t members, std::int64_t groups, double ratio)
{
    const std::int64_t mean = members / groups;
    const std::int64_t play = std::max<std::int64_t>(1, std::llround(static_cast<double>(mean) * ratio));
    return {mean, std::max<std::int64_t>(1, mean - play), mean + play};
}

double affinityTo(std::span<const double> affinity, std::int64_t experts, int expert, const std::vector<int> &group)
{
    double sum = 0;
    for (const int other : group)
        if (other != expert)
            sum += affinity[static_cast<std::size_t>(expert * experts + other)];
    return sum;
}

ExpertGroups freeGroups(std::span<const double> affinity, std::int64_t experts, const std::vector<int> &members, int groups, std::int64_t least, std::uint64_t seed)
{
    const std::size_t n = members.size();
    std::vector<double> part(n * n);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < n; ++j)
            part[i * n + j] = affinity[static_cast<std::size_t>(members[i] * experts + members[j])];
    const std::vector<int> label = spectralGroups(part, static_cast<std::int64_t>(n), groups, seed);
    ExpertGroups found(static_cast<std::size_t>(groups));
    for (std::size_t i = 0; i < n; ++i)
        found[static_cast<std::size_t>(label[i])].push_back(members[i]);
    for (auto &group : found)
        std::sort(group.begin(), group.end());
    feedSmall(affinity, experts, found, least);
    return found;
}

ExpertGroups boundedGroups(std::span<const double> affinity, std::int64_t experts, ExpertGroups groups, const GroupBounds &bounds)
{
    const auto high = static_cast<std::size_t>(bounds.high);
    std::vector<int> spilt;
    for (auto &group : groups) {
        if (group.size() <= high)
            continue;
        std::vector<std::pair<double, int>> order; // most affinity inside first, the lower number of equals
        for (const int expert : group)
            order.emplace_back(-affinityTo(affinity, experts, expert, group), expert);
        std::sort(order.begin(), order.end());
        group.clear();
        for (std::size_t i = 0; i < order.size(); ++i)
            (i < high ? group : spilt).push_back(order[i].second);
        std::sort(group.begin(), group.end());
    }
    for (const int expert : spilt) {
        std::vector<int> *to = nullptr;
        double most = -1;
        for (auto &group : groups)
            if (const double value = affinityTo(affinity, experts, expert, group); group.size() < high && value > most) {
                most = value;
                to = &group;
            }
        to->push_back(expert);
        std::sort(to->begin(), to->end());
    }
    feedSmall(affinity, experts, groups, bounds.low);
    return groups;
}

double insideAffinity(std::span<const double> affinity, std::int64_t experts, const ExpertGroups &groups)
{
    double inside = 0, all = 0;
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t j = 0; j < experts; ++j)
            all += i == j ? 0 : affinity[static_cast<std::size_t>(i * experts + j)];
    for (const auto &group : groups)
        for (const int expert : group)
            inside += affinityTo(affinity, experts, expert, group);
    return all > 0 ? inside / all : 1;
}

std::size_t kneeOf(std::span<const RatioPoint> points)
{
    double low[2] = {INFINITY, INFINITY}, high[2] = {-INFINITY, -INFINITY};
    for (const RatioPoint &p : points) {
        low[0] = std::min(low[0], p.spread);
        high[0] = std::max(high[0], p.spread);
        low[1] = std::min(low[1], p.inside);
        high[1] = std::max(high[1], p.inside);
    }
    if (points.empty() || !(high[0] - low[0] > 0) || !(high[1] - low[1] > 0))
        return 0;
    std::size_t best = 0;
    double most = -INFINITY;
    for (std::size_t i = 0; i < points.size(); ++i)
        if (const double above = (points[i].inside - low[1]) / (high[1] - low[1]) - (points[i].spread - low[0]) / (high[0] - low[0]); above > most + 1e-12) {
            most = above;
            best = i;
        }
    return best;
}

} // namespace spectra
