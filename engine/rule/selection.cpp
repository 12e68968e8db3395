// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/selection.h"

#include "engine/core/parallel.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>

namespace spectra::rule {
namespace {

/// Insertion into a short sorted list: for k of a few tens no heap is quicker, and ties keep the lower index by themselves.
void topKRow(const float *q, std::int64_t experts, std::int64_t k, bool renormalise, std::int64_t *chosen, float *weights)
{
    std::int64_t held = 0;
    for (std::int64_t e = 0; e < experts; ++e) {
        const float value = std::isnan(q[e]) ? -std::numeric_limits<float>::infinity() : q[e];
        if (held == k && !(value > weights[k - 1]))
            continue;
        std::int64_t at = held < k ? held++ : k - 1;
        for (; at > 0 && value > weights[at - 1]; --at) {
            weights[at] = weights[at - 1];
            chosen[at] = chosen[at - 1];
        }
        weights[at] = value;
        chosen[at] = e;
    }
    if (!renormalise)
        return;
    float sum = 0;
    for (std::int64_t i = 0; i < k; ++i)
        sum += weights[i];
    if (sum > 0 && std::isfinite(sum))
        for (std::int64_t i = 0; i < k; ++i)
            weights[i] /= sum;
    else
        std::fill(weights, weights + k, 1.0f / static_cast<float>(k));
}

} // namespace

void topK(std::span<const float> q, std::int64_t experts, std::int64_t k, bool renormalise, std::span<std::int64_t> chosen,
          std::span<float> weights)
{
    assert(k >= 1 && k <= experts);
    const std::int64_t rows = static_cast<std::int64_t>(q.size()) / experts;
    assert(static_cast<std::int64_t>(chosen.size()) >= rows * k && static_cast<std::int64_t>(weights.size()) >= rows * k);
    const auto body = [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t)
            topKRow(q.data() + t * experts, experts, k, renormalise, chosen.data() + t * k, weights.data() + t * k);
    };
    if (rows * experts < 65536)
        body(0, rows, 0);
    else
        parallelFor(rows, 0, body);
}

std::int64_t quotaCapacity(double factor, std::int64_t rows, std::int64_t experts, std::int64_t k)
{
    // 1.25·N·k/E is often a whole number in exact arithmetic and a hair above it in binary.
    const double slots = factor * static_cast<double>(rows) * static_cast<double>(k) / static_cast<double>(experts);
    return static_cast<std::int64_t>(std::ceil(slots - 1e-9 * std::max(1.0, slots)));
}

QuotaResult assignQuota(std::span<const float> q, std::int64_t experts, std::int64_t k, double factor, std::span<const std::uint8_t> counted)
{
    const std::int64_t rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    QuotaResult result;
    result.experts.assign(static_cast<std::size_t>(rows * k), -1);
    result.weights.assign(static_cast<std::size_t>(rows * k), 0.0f);
    result.dropped.assign(static_cast<std::size_t>(rows), 0);
    std::vector<std::int64_t> own(static_cast<std::size_t>(rows * k));
    std::vector<float> ownWeights(own.size());
    topK(q, experts, k, true, own, ownWeights);

    const auto counts = [&](std::int64_t t) { return counted.empty() || counted[static_cast<std::size_t>(t)] != 0; };
    std::int64_t n = 0;
    for (std::int64_t t = 0; t < rows; ++t)
        n += counts(t);
    result.capacity = quotaCapacity(factor, n, experts, k);

    struct Pair {
        float q;
        std::int64_t index;
    };
    std::vector<Pair> pairs;
    pairs.reserve(static_cast<std::size_t>(n * experts));
    for (std::int64_t t = 0; t < rows; ++t)
        if (counts(t))
            for (std::int64_t e = 0; e < experts; ++e)
                {
                const float value = q[static_cast<std::size_t>(t * experts + e)];
                pairs.push_back({std::isnan(value) ? 0.0f : value, t * experts + e});
            }
    std::sort(pairs.begin(), pairs.end(), [](const Pair &a, const Pair &b) { return a.q > b.q || (a.q == b.q && a.index < b.index); });

    std::vector<std::int64_t> taken(static_cast<std::size_t>(experts), 0), held(static_cast<std::size_t>(rows), 0);
    for (const Pair &pair : pairs) {
        const std::int64_t t = pair.index / experts, e = pair.index % experts;
        auto &slots = taken[static_cast<std::size_t>(e)];
        auto &have = held[static_cast<std::size_t>(t)];
        if (slots >= result.capacity || have >= k)
            continue;
        result.experts[static_cast<std::size_t>(t * k + have)] = e;
        result.weights[static_cast<std::size_t>(t * k + have)] = pair.q;
        ++slots;
        ++have;
    }
    std::int64_t fell = 0;
    for (std::int64_t t = 0; t < rows; ++t) {
        auto *e = result.experts.data() + t * k;
        auto *w = result.weights.data() + t * k;
        if (!counts(t)) {
            std::copy_n(own.data() + t * k, k, e);
            std::copy_n(ownWeights.data() + t * k, k, w);
            continue;
        }
        const std::int64_t have = held[static_cast<std::size_t>(t)];
        result.dropped[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(std::min<std::int64_t>(255, k - have));
        fell += !std::equal(e, e + k, own.data() + t * k);
        const float sum = std::accumulate(w, w + have, 0.0f);
        for (std::int64_t i = 0; i < have; ++i)
            w[i] = sum > 0 ? w[i] / sum : 1.0f / static_cast<float>(have);
    }
    result.fellBack = n > 0 ? static_cast<double>(fell) / static_cast<double>(n) : 0;
    return result;
}

} // namespace spectra::rule
