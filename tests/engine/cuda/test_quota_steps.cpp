// SPDX-License-Identifier: GPL-3.0-or-later
// The rounds by which the GPU fills a quota, run on the host: the same answer as rule::assignQuota(), which goes pair by pair.
#include "engine/core/random.h"
#include "engine/cuda/quotasteps.h"
#include "engine/rule/selection.h"
#include "tests/engine/cuda/quotacases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace spectra {
namespace {

/// As spectra_cuda_quota() does it, with a sort in the place of the radix selection. Counts the rounds.
rule::QuotaResult inRounds(const test::QuotaCase &c, int &rounds)
{
    const std::int64_t n = static_cast<std::int64_t>(c.q.size()) / c.experts, k = c.k;
    const auto counts = [&](std::int64_t t) { return c.counted.empty() || c.counted[static_cast<std::size_t>(t)] != 0; };
    rule::QuotaResult result;
    result.experts.assign(static_cast<std::size_t>(n * k), -1);
    result.weights.assign(static_cast<std::size_t>(n * k), 0.0f);
    result.dropped.assign(static_cast<std::size_t>(n), 0);
    std::int64_t counted = 0, fell = 0;
    for (std::int64_t t = 0; t < n; ++t)
        counted += counts(t);
    result.capacity = rule::quotaCapacity(c.factor, counted, c.experts, k);
    std::vector<std::uint64_t> threshold(static_cast<std::size_t>(c.experts), 0);
    std::vector<int> index(static_cast<std::size_t>(k));
    std::vector<float> weight(index.size());
    for (bool again = true; again; ++rounds) {
        again = false;
        std::vector<std::vector<std::uint64_t>> askers(threshold.size());
        for (std::int64_t t = 0; t < n; ++t) {
            const float *row = c.q.data() + t * c.experts;
            const int held = counts(t) ? quota::ask(row, static_cast<std::uint32_t>(t), static_cast<int>(c.experts), static_cast<int>(k), threshold.data(), index.data(), weight.data()) : 0;
            for (int i = 0; i < held; ++i)
                askers[static_cast<std::size_t>(index[static_cast<std::size_t>(i)])].push_back(quota::key(row[index[static_cast<std::size_t>(i)]], static_cast<std::uint32_t>(t)));
        }
        for (std::size_t e = 0; e < askers.size(); ++e) {
            if (static_cast<std::int64_t>(askers[e].size()) <= result.capacity)
                continue;
            std::sort(askers[e].begin(), askers[e].end(), std::greater<>());
            const std::uint64_t next = result.capacity == 0 ? ~std::uint64_t(0) : askers[e][static_cast<std::size_t>(result.capacity - 1)];
            EXPECT_GT(next, threshold[e]);
            threshold[e] = next;
            again = true;
        }
    }
    std::vector<std::int64_t> own(result.experts.size());
    std::vector<float> ownWeights(own.size());
    rule::topK(c.q, c.experts, k, true, own, ownWeights);
    for (std::int64_t t = 0; t < n; ++t) {
        const auto at = static_cast<std::size_t>(t * k);
        if (!counts(t)) {
            std::copy_n(own.data() + at, k, result.experts.data() + at);
            std::copy_n(ownWeights.data() + at, k, result.weights.data() + at);
            continue;
        }
        const int held = quota::ask(c.q.data() + t * c.experts, static_cast<std::uint32_t>(t), static_cast<int>(c.experts), static_cast<int>(k), threshold.data(), index.data(), weight.data());
        quota::normalise(weight.data(), held);
        std::copy_n(index.data(), held, result.experts.data() + at);
        std::copy_n(weight.data(), held, result.weights.data() + at);
        result.dropped[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(k - held);
        fell += !std::equal(own.data() + at, own.data() + at + k, result.experts.data() + at);
    }
    result.fellBack = counted > 0 ? static_cast<double>(fell) / static_cast<double>(counted) : 0;
    return result;
}

TEST(QuotaInRounds, IsTheGreedyFilling)
{
    int most = 0, dropped = 0, count = 0;
    for (const test::QuotaCase &c : test::quotaCases()) {
        SCOPED_TRACE(c.name);
        int rounds = 0;
        const auto a = inRounds(c, rounds);
        test::expectSame(a, rule::assignQuota(c.q, c.experts, c.k, c.factor, c.counted));
        most = std::max(most, rounds);
        dropped += std::count_if(a.dropped.begin(), a.dropped.end(), [](std::uint8_t d) { return d > 0; }) > 0;
        ++count;
    }
    EXPECT_GE(count, 100);
    EXPECT_GE(most, 5) << "rows that are refused ask again";
    EXPECT_GE(dropped, 10);
}

TEST(QuotaInRounds, KeysAreInTheOrderOfPairs)
{
    const std::vector<float> rising = {-INFINITY, -2, -1, -1e-30f, 0, 1e-40f, 1e-30f, 0.5f, 1, INFINITY};
    for (std::size_t i = 0; i < rising.size(); ++i)
        for (std::size_t j = 0; j < rising.size(); ++j)
            EXPECT_EQ(quota::key(rising[i], 5) < quota::key(rising[j], 5), rising[i] < rising[j]) << rising[i] << " " << rising[j];
    EXPECT_GT(quota::key(1, 3), quota::key(1, 4)) << "the earlier row is the better one";
    EXPECT_GT(quota::key(1, 0xFFFFFFFEu), quota::key(0.9999f, 0));
    EXPECT_EQ(quota::key(-0.0f, 1), quota::key(0.0f, 1));
    EXPECT_EQ(quota::key(NAN, 1), quota::key(0.0f, 1));
}

} // namespace
} // namespace spectra
