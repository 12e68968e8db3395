// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace spectra {
namespace {

std::map<int, int> draws(const SamplingOptions &options, const std::vector<float> &logits, int n)
{
    Sampler sampler(options);
    std::map<int, int> counts;
    for (int i = 0; i < n; ++i)
        ++counts[sampler.next(logits)];
    return counts;
}

TEST(Sampler, GreedyTakesTheLowestOfEquals)
{
    EXPECT_EQ(draws({}, {1, 4, 2, 4}, 5), (std::map<int, int>{{1, 5}}));
    EXPECT_EQ(draws({1.0, 1, 1, 3}, {1, 4, 2, 4}, 5), (std::map<int, int>{{1, 5}}));
}

TEST(Sampler, TemperatureGivesTheSoftmaxFrequencies)
{
    const std::vector<float> logits = {0, 1, 2, -std::numeric_limits<float>::infinity()};
    for (const double temperature : {0.5, 1.0, 2.0}) {
        const int n = 40'000;
        const auto counts = draws({temperature, 1, 0, 11}, logits, n);
        double total = 0;
        for (int i = 0; i < 3; ++i)
            total += std::exp(i / temperature);
        for (int i = 0; i < 3; ++i) {
            const double p = std::exp(i / temperature) / total;
            EXPECT_NEAR(counts.at(i) / static_cast<double>(n), p, 5 * std::sqrt(p * (1 - p) / n)) << temperature;
        }
        EXPECT_FALSE(counts.contains(3));
    }
}

TEST(Sampler, TopKAndTopPCutTheTail)
{
    const std::vector<float> logits = {0, 3, 2, 1, 2};
    const auto k = draws({1, 1, 2, 5}, logits, 4000);
    EXPECT_EQ(k.size(), 2u);
    EXPECT_TRUE(k.contains(1) && k.contains(2)) << "of equals the lower id stays";
    const auto p = draws({1, 0.7, 0, 5}, logits, 4000);
    EXPECT_EQ(p.size(), 2u);
    const auto one = draws({1, 1e-9, 0, 5}, logits, 100);
    EXPECT_EQ(one, (std::map<int, int>{{1, 100}}));
}

TEST(Sampler, SameSeedSameTokens)
{
    const std::vector<float> logits(50, 0.0f);
    Sampler a({1, 0.9, 40, 77}), b({1, 0.9, 40, 77}), c({1, 0.9, 40, 78});
    int differ = 0;
    for (int i = 0; i < 50; ++i) {
        const auto x = a.next(logits);
        EXPECT_EQ(x, b.next(logits));
        differ += x != c.next(logits);
    }
    EXPECT_GT(differ, 10);
}

} // namespace
} // namespace spectra
