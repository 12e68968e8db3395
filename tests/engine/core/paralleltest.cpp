// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/parallel.h"
#include "engine/core/random.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace spectra::test {
namespace {

class Parallel : public testing::Test {
protected:
    void TearDown() override { setThreadCount(0); }
};

TEST_F(Parallel, EveryIndexIsVisitedOnceAndTheSplitDoesNotDependOnThreads)
{
    std::set<std::vector<std::int64_t>> splits;
    for (const int threads : {1, 2, 5}) {
        setThreadCount(threads);
        std::vector<std::atomic<int>> seen(1003);
        std::vector<std::int64_t> borders(14, -1);
        parallelFor(1003, 7, [&](std::int64_t begin, std::int64_t end, int part) {
            borders[static_cast<std::size_t>(2 * part)] = begin;
            borders[static_cast<std::size_t>(2 * part + 1)] = end;
            for (std::int64_t i = begin; i < end; ++i)
                ++seen[static_cast<std::size_t>(i)];
        });
        for (const auto &n : seen)
            ASSERT_EQ(n, 1);
        splits.insert(borders);
    }
    EXPECT_EQ(splits.size(), 1u);
}

TEST_F(Parallel, SumsKeptPerPartAreBitIdenticalAtAnyThreadCount)
{
    Random random(1);
    std::vector<float> values(100000);
    for (float &v : values)
        v = static_cast<float>(random.normal() * std::exp(5 * random.normal()));
    std::set<float> sums;
    for (const int threads : {1, 2, 3, 8})
        for (int repeat = 0; repeat < 3; ++repeat) {
            setThreadCount(threads);
            std::vector<float> parts(16);
            parallelFor(static_cast<std::int64_t>(values.size()), 16, [&](std::int64_t begin, std::int64_t end, int part) {
                float sum = 0;
                for (std::int64_t i = begin; i < end; ++i)
                    sum += values[static_cast<std::size_t>(i)];
                parts[static_cast<std::size_t>(part)] = sum;
            });
            float total = 0;
            for (const float p : parts)
                total += p;
            sums.insert(total);
        }
    EXPECT_EQ(sums.size(), 1u);
}

TEST_F(Parallel, FewerItemsThanPartsAndNothingAtAll)
{
    setThreadCount(4);
    std::atomic<int> calls{0}, items{0};
    parallelFor(3, 100, [&](std::int64_t begin, std::int64_t end, int) {
        ++calls;
        items += static_cast<int>(end - begin);
    });
    EXPECT_EQ(calls, 3);
    EXPECT_EQ(items, 3);
    parallelFor(0, 4, [&](std::int64_t, std::int64_t, int) { ++calls; });
    parallelFor(-5, 4, [&](std::int64_t, std::int64_t, int) { ++calls; });
    EXPECT_EQ(calls, 3);
}

TEST_F(Parallel, AnExceptionOfABodyReachesTheCallerAndThePoolGoesOn)
{
    for (const int threads : {1, 4}) {
        setThreadCount(threads);
        EXPECT_THROW(parallelFor(100, 10, [](std::int64_t, std::int64_t, int part) {
                         if (part == 6)
                             throw std::runtime_error("part six");
                     }),
                     std::runtime_error);
        std::atomic<int> done{0};
        parallelFor(100, 10, [&](std::int64_t, std::int64_t, int) { ++done; });
        EXPECT_EQ(done, 10);
    }
}

TEST_F(Parallel, NestedCallsRunInTheirOwnThread)
{
    setThreadCount(4);
    std::atomic<int> items{0}, foreign{0};
    parallelFor(8, 8, [&](std::int64_t, std::int64_t, int) {
        const auto here = std::this_thread::get_id();
        parallelFor(10, 5, [&](std::int64_t begin, std::int64_t end, int) {
            foreign += std::this_thread::get_id() != here;
            items += static_cast<int>(end - begin);
        });
    });
    EXPECT_EQ(items, 80);
    EXPECT_EQ(foreign, 0);
}

TEST_F(Parallel, SeveralThreadsMayCallAtOnce)
{
    setThreadCount(3);
    std::atomic<std::int64_t> total{0};
    std::vector<std::jthread> callers;
    for (int t = 0; t < 4; ++t)
        callers.emplace_back([&] {
            for (int i = 0; i < 200; ++i)
                parallelFor(50, 5, [&](std::int64_t begin, std::int64_t end, int) { total += end - begin; });
        });
    callers.clear();
    EXPECT_EQ(total, 4 * 200 * 50);
}

} // namespace
} // namespace spectra::test
