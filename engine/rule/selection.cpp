// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/selection.h"

#include "engine/core/parallel.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

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

std::vector<std::int64_t> demandCapacities(double factor, std::int64_t rows, std::int64_t k, std::span<const double> demand)
{
    const std::size_t e = demand.size();
    const std::int64_t slots = quotaCapacity(factor, rows, 1, k);
    std::vector<double> share(e);
    double sum = 0;
    for (std::size_t i = 0; i < e; ++i) {
        share[i] = std::max(std::isfinite(demand[i]) ? demand[i] : 0.0, 0.5 / static_cast<double>(e));
        sum += share[i];
    }
    std::vector<std::int64_t> capacities(e), order(e);
    std::int64_t left = slots;
    for (std::size_t i = 0; i < e; ++i) {
        share[i] *= static_cast<double>(slots) / sum;
        capacities[i] = std::min(left, static_cast<std::int64_t>(share[i]));
        left -= capacities[i];
        share[i] -= static_cast<double>(capacities[i]);
    }
    std::iota(order.begin(), order.end(), std::int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return share[static_cast<std::size_t>(a)] > share[static_cast<std::size_t>(b)]; });
    for (std::size_t i = 0; left > 0; i = (i + 1) % e, --left)
        ++capacities[static_cast<std::size_t>(order[i])];
    return capacities;
}

namespace {

struct Pair {
    std::uint32_t key;   ///< rises as q falls
    float q;
    std::int64_t index;
};

/// By key, equal keys in the order they stand in: three passes of eleven bits.
void sortPairs(std::vector<Pair> &pairs)
{
    std::vector<Pair> other(pairs.size());
    for (const int shift : {0, 11, 22}) {
        std::array<std::size_t, 2048> at{};
        for (const Pair &pair : pairs)
            ++at[pair.key >> shift & 2047u];
        std::size_t sum = 0;
        for (std::size_t &count : at)
            sum += std::exchange(count, sum);
        for (const Pair &pair : pairs)
            other[at[pair.key >> shift & 2047u]++] = pair;
        pairs.swap(other);
    }
}

std::int64_t countedRows(std::int64_t rows, std::span<const std::uint8_t> counted)
{
    return counted.empty() ? rows : std::count_if(counted.begin(), counted.begin() + rows, [](std::uint8_t c) { return c != 0; });
}

} // namespace

QuotaResult assignQuota(std::span<const float> q, std::int64_t experts, std::int64_t k, double factor, std::span<const std::uint8_t> counted)
{
    const std::int64_t rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    const std::vector<std::int64_t> capacities(static_cast<std::size_t>(experts), quotaCapacity(factor, countedRows(rows, counted), experts, k));
    return assignQuota(q, k, capacities, counted);
}

QuotaResult assignQuota(std::span<const float> q, std::int64_t k, std::span<const std::int64_t> capacities, std::span<const std::uint8_t> counted)
{
    const auto experts = static_cast<std::int64_t>(capacities.size());
    const std::int64_t rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    QuotaResult result;
    result.experts.assign(static_cast<std::size_t>(rows * k), -1);
    result.weights.assign(static_cast<std::size_t>(rows * k), 0.0f);
    result.dropped.assign(static_cast<std::size_t>(rows), 0);
    for (const std::int64_t capacity : capacities)
        result.capacity = std::max(result.capacity, capacity);
    std::vector<std::int64_t> own(static_cast<std::size_t>(rows * k));
    std::vector<float> ownWeights(own.size());
    topK(q, experts, k, true, own, ownWeights);

    const auto counts = [&](std::int64_t t) { return counted.empty() || counted[static_cast<std::size_t>(t)] != 0; };
    const std::int64_t n = countedRows(rows, counted);
    std::vector<Pair> pairs;
    pairs.reserve(static_cast<std::size_t>(n * experts));
    for (std::int64_t t = 0; t < rows; ++t)
        if (counts(t))
            for (std::int64_t e = 0; e < experts; ++e) {
                const float given = q[static_cast<std::size_t>(t * experts + e)], value = std::isnan(given) ? 0.0f : given + 0.0f; // -0 is 0
                const auto bits = std::bit_cast<std::uint32_t>(value);
                pairs.push_back({(bits >> 31) != 0 ? bits : 0x7fffffffu - bits, value, t * experts + e});
            }
    sortPairs(pairs);

    std::vector<std::int64_t> taken(static_cast<std::size_t>(experts), 0), held(static_cast<std::size_t>(rows), 0);
    for (const Pair &pair : pairs) {
        const std::int64_t t = pair.index / experts, e = pair.index % experts;
        auto &slots = taken[static_cast<std::size_t>(e)];
        auto &have = held[static_cast<std::size_t>(t)];
        if (slots >= capacities[static_cast<std::size_t>(e)] || have >= k)
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
