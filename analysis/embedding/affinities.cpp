// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/affinities.h"

#include "analysis/embedding/kernels.h"
#include "engine/core/parallel.h"

#include <algorithm>
#include <cmath>

namespace spectra {

Result<Affinities> tsneAffinities(const NeighborTable &neighbors, double perplexity, std::stop_token stop)
{
    const std::int64_t n = neighbors.points, k = neighbors.k;
    Affinities result;
    result.points = n;
    result.row.assign(static_cast<std::size_t>(n) + 1, 0);
    if (n == 0 || k == 0)
        return result;
    const double logPerplexity = std::log(std::max(1.0, perplexity));
    std::vector<float> p(static_cast<std::size_t>(n * k));
    const int parts = static_cast<int>(std::clamp<std::int64_t>(n / 256, 1, 256));
    parallelFor(n, parts, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end && !stop.stop_requested(); ++i)
            detail::conditionalRow(neighbors.distance.data() + i * k, static_cast<int>(k), logPerplexity,
                                   p.data() + i * k);
    });
    if (stop.stop_requested())
        return cancelledError();

    // The transpose by counting sort: who has i among its neighbours, in ascending order.
    std::vector<std::int64_t> start(static_cast<std::size_t>(n) + 1, 0);
    for (const std::int32_t j : neighbors.index)
        ++start[static_cast<std::size_t>(j) + 1];
    for (std::size_t i = 1; i < start.size(); ++i)
        start[i] += start[i - 1];
    struct Entry {
        std::uint32_t column;
        float value;
    };
    std::vector<Entry> back(static_cast<std::size_t>(n * k));
    std::vector<std::int64_t> next(start.begin(), start.end() - 1);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = i * k; j < (i + 1) * k; ++j)
            back[static_cast<std::size_t>(
                next[static_cast<std::size_t>(neighbors.index[static_cast<std::size_t>(j)])]++)] = {
                static_cast<std::uint32_t>(i), p[static_cast<std::size_t>(j)]};
    if (stop.stop_requested())
        return cancelledError();

    // Row i is the union of its own neighbours and of those that have it.
    const float scale = static_cast<float>(1 / (2.0 * static_cast<double>(n)));
    const auto visit = [&](std::int64_t i, std::vector<Entry> &own, const auto &take) {
        own.clear();
        for (std::int64_t j = i * k; j < (i + 1) * k; ++j)
            own.push_back({static_cast<std::uint32_t>(neighbors.index[static_cast<std::size_t>(j)]),
                           p[static_cast<std::size_t>(j)]});
        std::sort(own.begin(), own.end(), [](const Entry &a, const Entry &b) { return a.column < b.column; });
        const Entry *b = back.data() + start[static_cast<std::size_t>(i)],
                    *bEnd = back.data() + start[static_cast<std::size_t>(i) + 1];
        for (const Entry &a : own) {
            for (; b < bEnd && b->column < a.column; ++b)
                take(b->column, b->value * scale);
            const bool both = b < bEnd && b->column == a.column;
            take(a.column, (a.value + (both ? b->value : 0.0f)) * scale);
            b += both;
        }
        for (; b < bEnd; ++b)
            take(b->column, b->value * scale);
    };
    parallelFor(n, parts, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<Entry> own;
        for (std::int64_t i = begin; i < end && !stop.stop_requested(); ++i)
            visit(i, own, [&](std::uint32_t, float) { ++result.row[static_cast<std::size_t>(i) + 1]; });
    });
    for (std::size_t i = 1; i < result.row.size(); ++i)
        result.row[i] += result.row[i - 1];
    result.column.resize(static_cast<std::size_t>(result.row.back()));
    result.value.resize(result.column.size());
    parallelFor(n, parts, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<Entry> own;
        for (std::int64_t i = begin; i < end && !stop.stop_requested(); ++i) {
            auto at = static_cast<std::size_t>(result.row[static_cast<std::size_t>(i)]);
            visit(i, own, [&](std::uint32_t column, float value) {
                result.column[at] = column;
                result.value[at++] = value;
            });
        }
    });
    if (stop.stop_requested())
        return cancelledError();
    return result;
}

} // namespace spectra
