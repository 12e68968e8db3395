// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/rule/loads.h"
#include "engine/rule/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace spectra::rule {
namespace {

using testing::ElementsAre;
using Ids = std::vector<std::int64_t>;

TEST(TopK, TiesGoToTheLowerIndex)
{
    const std::vector<float> q = {0.2f, 0.3f, 0.3f, 0.2f, /**/ 0.25f, 0.25f, 0.25f, 0.25f, /**/ 0.f, 0.f, 1.f, 0.f};
    Ids ids(6);
    std::vector<float> w(6);
    topK(q, 4, 2, true, ids, w);
    EXPECT_THAT(ids, ElementsAre(1, 2, 0, 1, 2, 0));
    EXPECT_THAT(w, ElementsAre(0.5f, 0.5f, 0.5f, 0.5f, 1.f, 0.f));
}

TEST(TopK, EqualsAStableSortOnManyTies)
{
    Random random(4);
    const std::int64_t n = 3000, e = 24, k = 5;
    std::vector<float> q(static_cast<std::size_t>(n * e));
    for (float &v : q)
        v = static_cast<float>(random.below(6)) / 6;
    Ids ids(static_cast<std::size_t>(n * k));
    std::vector<float> w(ids.size());
    topK(q, e, k, false, ids, w);
    for (std::int64_t t = 0; t < n; ++t) {
        Ids order(static_cast<std::size_t>(e));
        for (std::int64_t i = 0; i < e; ++i)
            order[static_cast<std::size_t>(i)] = i;
        const float *row = q.data() + t * e;
        std::stable_sort(order.begin(), order.end(), [row](std::int64_t a, std::int64_t b) { return row[a] > row[b]; });
        ASSERT_TRUE(std::equal(order.begin(), order.begin() + k, ids.begin() + t * k)) << "row " << t;
        for (std::int64_t j = 0; j < k; ++j)
            ASSERT_EQ(w[static_cast<std::size_t>(t * k + j)], row[order[static_cast<std::size_t>(j)]]);
    }
}

TEST(TopK, RowsWithoutMassGetEqualWeights)
{
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> q = {0.f, 0.f, 0.f, nan, nan, nan};
    Ids ids(4);
    std::vector<float> w(4);
    topK(q, 3, 2, true, ids, w);
    EXPECT_THAT(ids, ElementsAre(0, 1, 0, 1));
    EXPECT_THAT(w, ElementsAre(0.5f, 0.5f, 0.5f, 0.5f));
}

TEST(Quota, CapacityIsTheCeilingInExactArithmetic)
{
    EXPECT_EQ(quotaCapacity(1.25, 8, 4, 1), 3);     // 2.5
    EXPECT_EQ(quotaCapacity(1.25, 16, 4, 1), 5);    // exactly 5
    EXPECT_EQ(quotaCapacity(1.1, 100, 10, 1), 11);  // 11.000000000000002 in binary
    EXPECT_EQ(quotaCapacity(1.0, 7, 4, 2), 4);      // 3.5
    EXPECT_EQ(quotaCapacity(0.5, 0, 4, 2), 0);
}

TEST(Quota, FullExpertsPassTokensToTheirNextBest)
{
    // three tokens all like expert 0; capacity ⌈1·3·1/3⌉ = 1
    const std::vector<float> q = {0.6f, 0.3f, 0.1f, /**/ 0.8f, 0.1f, 0.1f, /**/ 0.7f, 0.2f, 0.1f};
    const auto r = assignQuota(q, 3, 1, 1.0);
    EXPECT_EQ(r.capacity, 1);
    EXPECT_THAT(r.experts, ElementsAre(1, 0, 2)); // 0.8 takes expert 0; 0.3 takes 1 before token 2's 0.2; token 2 is left expert 2
    EXPECT_THAT(r.weights, ElementsAre(1.f, 1.f, 1.f));
    EXPECT_THAT(r.dropped, ElementsAre(0, 0, 0));
    EXPECT_NEAR(r.fellBack, 2.0 / 3, 1e-12);
}

TEST(Quota, TiesGoByTokenThenExpert)
{
    const std::vector<float> q = {0.5f, 0.5f, /**/ 0.5f, 0.5f};
    const auto r = assignQuota(q, 2, 1, 1.0);
    EXPECT_THAT(r.experts, ElementsAre(0, 1)); // token 0 takes expert 0 and is content; token 1 finds it full
}

TEST(Quota, ATokenLeftWithFewerKeepsFewer)
{
    // k = 2 of 2 experts, capacity ⌈0.5·2·2/2⌉ = 1: each expert has one slot
    const std::vector<float> q = {0.9f, 0.1f, /**/ 0.6f, 0.4f};
    const auto r = assignQuota(q, 2, 2, 0.5);
    EXPECT_EQ(r.capacity, 1);
    EXPECT_THAT(r.experts, ElementsAre(0, -1, 1, -1));
    EXPECT_THAT(r.weights, ElementsAre(1.f, 0.f, 1.f, 0.f));
    EXPECT_THAT(r.dropped, ElementsAre(1, 1));
    EXPECT_EQ(r.fellBack, 1.0);
}

TEST(Quota, MaskedRowsTakeNoSlots)
{
    const std::vector<float> q = {0.9f, 0.1f, /**/ 0.95f, 0.05f, /**/ 0.8f, 0.2f};
    const std::vector<std::uint8_t> counted = {1, 0, 1};
    const auto r = assignQuota(q, 2, 1, 1.0, counted);
    EXPECT_EQ(r.capacity, 1); // of two counted tokens
    EXPECT_THAT(r.experts, ElementsAre(0, 0, 1));
    EXPECT_EQ(r.fellBack, 0.5);
}

TEST(Quota, NeverExceedsCapacityAndWastesNoSlot)
{
    Random random(9);
    for (const double factor : {0.5, 1.0, 1.25, 2.0}) {
        const std::int64_t n = 333, e = 7, k = 3;
        std::vector<float> q(static_cast<std::size_t>(n * e));
        for (std::int64_t t = 0; t < n; ++t)
            for (std::int64_t i = 0; i < e; ++i)
                q[static_cast<std::size_t>(t * e + i)] = static_cast<float>(random.uniform() * (i == 0 ? 3 : 1));
        const auto r = assignQuota(q, e, k, factor);
        Ids load(static_cast<std::size_t>(e), 0);
        addLoads(r.experts, k, {}, load);
        for (std::int64_t t = 0; t < n; ++t) {
            double sum = 0;
            for (std::int64_t j = 0; j < k; ++j) {
                const auto id = r.experts[static_cast<std::size_t>(t * k + j)];
                sum += static_cast<double>(r.weights[static_cast<std::size_t>(t * k + j)]);
                // a slot stays empty only because every expert that the token does not have is full
                for (std::int64_t other = 0; id < 0 && other < e; ++other)
                    EXPECT_TRUE(load[static_cast<std::size_t>(other)] == r.capacity
                                || std::count(r.experts.begin() + t * k, r.experts.begin() + (t + 1) * k, other) == 1);
            }
            EXPECT_TRUE(std::abs(sum - 1) < 1e-5 || r.experts[static_cast<std::size_t>(t * k)] < 0);
        }
        for (const auto l : load)
            EXPECT_LE(l, r.capacity);
    }
}

/// The rule as it is worded: every pair in order, compared one with another.
Ids worded(const std::vector<float> &q, std::int64_t e, std::int64_t k, const Ids &capacities)
{
    const std::int64_t n = static_cast<std::int64_t>(q.size()) / e;
    Ids chosen(static_cast<std::size_t>(n * k), -1), held(static_cast<std::size_t>(n), 0), taken(static_cast<std::size_t>(e), 0);
    std::vector<bool> seen(q.size(), false);
    for (std::size_t step = 0; step < q.size(); ++step) {
        std::size_t best = q.size();
        for (std::size_t i = 0; i < q.size(); ++i)
            if (!seen[i] && (best == q.size() || q[i] > q[best]))
                best = i;
        seen[best] = true;
        const std::size_t t = best / static_cast<std::size_t>(e), i = best % static_cast<std::size_t>(e);
        if (taken[i] < capacities[i] && held[t] < k) {
            chosen[t * static_cast<std::size_t>(k) + static_cast<std::size_t>(held[t]++)] = static_cast<std::int64_t>(i);
            ++taken[i];
        }
    }
    return chosen;
}

TEST(Quota, OwnCapacitiesEqualTheRuleAsWorded)
{
    Random random(21);
    for (int round = 0; round < 60; ++round) {
        const std::int64_t n = 1 + static_cast<std::int64_t>(random.uniform() * 20), e = 2 + round % 5, k = 1 + round % 2;
        std::vector<float> q(static_cast<std::size_t>(n * e));
        for (float &v : q) // ties, zeros of both signs and negative values among them
            v = round % 3 == 0 ? std::round(static_cast<float>(random.uniform()) * 4 - 1) / 4 : static_cast<float>(random.uniform() * 2 - 0.5);
        q[0] = -0.0f;
        Ids capacities(static_cast<std::size_t>(e));
        for (auto &c : capacities)
            c = static_cast<std::int64_t>(random.uniform() * static_cast<double>(n));
        const auto r = assignQuota(q, k, capacities);
        EXPECT_EQ(r.experts, worded(q, e, k, capacities)) << "round " << round;
        std::int64_t empty = 0;
        for (const auto dropped : r.dropped)
            empty += dropped;
        EXPECT_EQ(empty, std::count(r.experts.begin(), r.experts.end(), -1));
    }
}

TEST(Quota, OneCapacityForAllIsTheSameAsAFactor)
{
    Random random(22);
    std::vector<float> q(300 * 6);
    for (float &v : q)
        v = static_cast<float>(random.uniform());
    const Ids capacities(6, quotaCapacity(1.1, 300, 6, 2));
    const auto a = assignQuota(q, 6, 2, 1.1), b = assignQuota(q, 2, capacities);
    EXPECT_EQ(a.experts, b.experts);
    EXPECT_EQ(a.weights, b.weights);
    EXPECT_EQ(a.capacity, b.capacity);
    EXPECT_EQ(a.fellBack, b.fellBack);
}

TEST(Quota, CapacitiesByDemandSumToAllSlotsAndStarveNobody)
{
    const std::vector<double> even(4, 0.25);
    EXPECT_THAT(demandCapacities(1.25, 16, 2, even), ElementsAre(10, 10, 10, 10));
    EXPECT_THAT(demandCapacities(1.0, 5, 1, even), ElementsAre(2, 1, 1, 1)) << "whole slots by largest remainder, ties to the lower index";
    // floor 1/8: shares 0.7, 0.2, 0.125, 0.125 of 1.15, of 46 slots
    const std::vector<double> skewed = {0.7, 0.2, 0.1, 0.0};
    EXPECT_THAT(demandCapacities(1.0, 23, 2, skewed), ElementsAre(28, 8, 5, 5));
    const std::vector<double> odd = {std::nan(""), -1, std::numeric_limits<double>::infinity(), 1};
    const auto c = demandCapacities(1.0, 10, 1, odd);
    EXPECT_EQ(std::accumulate(c.begin(), c.end(), std::int64_t{0}), 10);
    EXPECT_EQ(c[0], c[1]);

    Random random(23);
    for (int round = 0; round < 200; ++round) {
        const std::int64_t e = 1 + static_cast<std::int64_t>(random.uniform() * 20), n = static_cast<std::int64_t>(random.uniform() * 500);
        std::vector<double> demand(static_cast<std::size_t>(e));
        double sum = 0;
        for (double &d : demand)
            sum += d = std::pow(random.uniform(), 6);
        for (double &d : demand)
            d /= sum;
        const auto capacities = demandCapacities(1.25, n, 2, demand);
        const std::int64_t slots = quotaCapacity(1.25, n, 1, 2);
        EXPECT_EQ(std::accumulate(capacities.begin(), capacities.end(), std::int64_t{0}), slots);
        EXPECT_GE(*std::min_element(capacities.begin(), capacities.end()), slots / (3 * e));
    }
}

TEST(Loads, StatisticsOfHandCases)
{
    Ids load(4, 0);
    const Ids experts = {0, 1, 2, -1, 0, 1};
    const std::vector<std::uint8_t> counted = {1, 1, 0};
    EXPECT_EQ(addLoads(experts, 2, counted, load), 2);
    EXPECT_THAT(load, ElementsAre(1, 1, 1, 0));
    const auto s = loadStatistics(load);
    EXPECT_EQ(s.assignments, 3);
    EXPECT_EQ(s.unused, 1);
    EXPECT_NEAR(s.cv, std::sqrt(3 * 0.0625 + 0.5625) / 2 / 0.75, 1e-12);
    EXPECT_NEAR(s.entropyBits, std::log2(3), 1e-12);
    EXPECT_NEAR(s.maxOverMean, 4.0 / 3, 1e-12);
    EXPECT_EQ(loadStatistics(Ids{5, 5, 5}).cv, 0);
    EXPECT_EQ(loadStatistics(Ids{0, 0}).cv, 0);
    const std::vector<float> q = {0.5f, 0.5f, 1.f, 0.f};
    EXPECT_NEAR(meanEntropy(q, 2), std::log(2) / 2, 1e-7);
}

TEST(Calibration, StepsFallGeometricallyAndBalanceARule)
{
    const CalibrationSchedule schedule;
    EXPECT_DOUBLE_EQ(schedule.step(0), 0.5);
    EXPECT_NEAR(schedule.step(79), 0.01, 1e-12);
    EXPECT_NEAR(schedule.step(40) / schedule.step(39), schedule.step(11) / schedule.step(10), 1e-12);

    std::vector<float> g = {0.f, 0.f};
    calibrationStep(g, Ids{3, 1}, 4, 1, 0.5);
    EXPECT_THAT(g, ElementsAre(-0.25f, 0.25f));

    // top-2 of skewed logits + g: dual ascent on the loads must even them out
    Random random(2);
    const std::int64_t n = 4096, e = 8, k = 2;
    std::vector<float> potential(static_cast<std::size_t>(e), 0.f), q(static_cast<std::size_t>(n * e)), w(static_cast<std::size_t>(n * k));
    Ids ids(static_cast<std::size_t>(n * k));
    double before = 0, after = 0;
    for (int batch = 0; batch < schedule.batches; ++batch) {
        for (std::int64_t t = 0; t < n; ++t)
            for (std::int64_t i = 0; i < e; ++i)
                q[static_cast<std::size_t>(t * e + i)] =
                    static_cast<float>(random.normal() + 0.3 * static_cast<double>(i) + static_cast<double>(potential[static_cast<std::size_t>(i)]));
        topK(q, e, k, false, ids, w);
        Ids load(static_cast<std::size_t>(e), 0);
        addLoads(ids, k, {}, load);
        (batch == 0 ? before : after) = loadStatistics(load).cv;
        calibrationStep(potential, load, n, k, schedule.step(batch));
    }
    EXPECT_GT(before, 0.4);
    EXPECT_LT(after, 0.05);
}

} // namespace
} // namespace spectra::rule
