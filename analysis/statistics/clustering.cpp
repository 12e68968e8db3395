// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/clustering.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

namespace spectra {
namespace {

struct RawMerge {
    int a, b;
    double height;
};

/// Nearest-neighbour chain: every reciprocal pair of nearest neighbours may be merged at once, average linkage has no
/// inversions.
std::vector<RawMerge> chain(std::vector<double> d, std::size_t n)
{
    std::vector<int> size(n, 1);
    std::vector<bool> alive(n, true);
    std::vector<std::size_t> stack;
    std::vector<RawMerge> merges;
    for (std::size_t step = 0; step + 1 < n; ++step) {
        if (stack.empty())
            stack.push_back(static_cast<std::size_t>(std::find(alive.begin(), alive.end(), true) - alive.begin()));
        for (;;) {
            const std::size_t x = stack.back();
            // The previous element wins ties, else the chain could run in circles.
            std::size_t best = stack.size() > 1 ? stack[stack.size() - 2] : n;
            double lowest = best < n ? d[x * n + best] : std::numeric_limits<double>::infinity();
            for (std::size_t y = 0; y < n; ++y)
                if (alive[y] && y != x && d[x * n + y] < lowest) {
                    lowest = d[x * n + y];
                    best = y;
                }
            if (stack.size() > 1 && best == stack[stack.size() - 2]) {
                stack.resize(stack.size() - 2);
                const std::size_t a = std::min(x, best), b = std::max(x, best);
                merges.push_back({static_cast<int>(a), static_cast<int>(b), lowest});
                for (std::size_t y = 0; y < n; ++y)
                    if (alive[y] && y != a && y != b)
                        d[b * n + y] = d[y * n + b] =
                            (size[a] * d[a * n + y] + size[b] * d[b * n + y]) / (size[a] + size[b]);
                size[b] += size[a];
                alive[a] = false;
                break;
            }
            stack.push_back(best);
        }
    }
    return merges;
}

} // namespace

Dendrogram averageLinkage(std::span<const double> distance, std::int64_t count)
{
    Dendrogram result;
    const auto n = static_cast<std::size_t>(std::max<std::int64_t>(count, 0));
    if (n == 0 || distance.size() < n * n)
        return result;
    std::vector<double> d(distance.begin(), distance.begin() + static_cast<std::ptrdiff_t>(n * n));
    for (double &x : d)
        if (!std::isfinite(x))
            x = std::numeric_limits<double>::max() / 4;
    std::vector<RawMerge> merges = chain(std::move(d), n);
    std::stable_sort(merges.begin(), merges.end(),
                     [](const RawMerge &x, const RawMerge &y) { return x.height < y.height; });

    // Clusters get their numbers in the order of height, as SciPy's linkage has them.
    std::vector<int> parent(2 * n - 1), sizes(2 * n - 1, 1);
    std::iota(parent.begin(), parent.end(), 0);
    const auto root = [&](int x) {
        while (parent[static_cast<std::size_t>(x)] != x)
            x = parent[static_cast<std::size_t>(x)] =
                parent[static_cast<std::size_t>(parent[static_cast<std::size_t>(x)])];
        return x;
    };
    for (std::size_t i = 0; i < merges.size(); ++i) {
        int a = root(merges[i].a), b = root(merges[i].b);
        if (a > b)
            std::swap(a, b);
        const std::size_t node = n + i;
        parent[static_cast<std::size_t>(a)] = parent[static_cast<std::size_t>(b)] = static_cast<int>(node);
        sizes[node] = sizes[static_cast<std::size_t>(a)] + sizes[static_cast<std::size_t>(b)];
        result.merges.push_back({a, b, merges[i].height, sizes[node]});
    }
    std::vector<int> open{static_cast<int>(2 * n - 2)};
    while (!open.empty()) {
        const int node = open.back();
        open.pop_back();
        if (node < static_cast<int>(n)) {
            result.order.push_back(node);
            continue;
        }
        const ClusterMerge &merge = result.merges[static_cast<std::size_t>(node) - n];
        open.push_back(merge.second);
        open.push_back(merge.first);
    }
    return result;
}

Dendrogram averageLinkageOfSimilarity(std::span<const double> similarity, std::int64_t n)
{
    std::vector<double> distance(similarity.begin(), similarity.end());
    for (double &x : distance)
        x = 1 - x;
    for (std::int64_t i = 0; i < n && static_cast<std::size_t>(i * n + i) < distance.size(); ++i)
        distance[static_cast<std::size_t>(i * n + i)] = 0;
    return averageLinkage(distance, n);
}

} // namespace spectra
