// SPDX-License-Identifier: GPL-3.0-or-later
// The shuffled control of the overlap of token types: the closed form against shuffles, and what it must be where it can be told.
#include "analysis/metrics/setmetrics.h"
#include "engine/core/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace spectra::detail {
namespace {

struct Tokens {
    int experts = 6, slots = 2;
    std::vector<std::uint32_t> type;                ///< [N]
    std::vector<std::array<int, 2>> chosen;         ///< [N]

    [[nodiscard]] std::vector<std::uint32_t> counts(std::uint32_t types) const
    {
        std::vector<std::uint32_t> c(static_cast<std::size_t>(types) * static_cast<std::size_t>(experts), 0);
        for (std::size_t t = 0; t < type.size(); ++t)
            for (int s = 0; s < slots; ++s)
                ++c[type[t] * static_cast<std::size_t>(experts) + static_cast<std::size_t>(chosen[t][static_cast<std::size_t>(s)])];
        return c;
    }
};

/// Few frequent and many rare types; experts of unequal load that prefer types.
Tokens sample(int slots)
{
    Tokens tokens;
    tokens.slots = slots;
    Random random(5);
    for (int i = 0; i < 3000; ++i) {
        const auto type = static_cast<std::uint32_t>(std::min(399.0, std::floor(std::exp(random.uniform() * std::log(400.0)) - 1)));
        tokens.type.push_back(type);
        const int first = random.uniform() < 0.7 ? static_cast<int>(type % 6) : static_cast<int>(random.below(3));
        tokens.chosen.push_back({first, (first + 1 + static_cast<int>(random.below(random.uniform() < 0.5 ? 1 : 5))) % 6});
    }
    return tokens;
}

TEST(OverlapControl, EqualsTheMeanOfShuffles)
{
    for (const int slots : {1, 2}) {
        Tokens tokens = sample(slots);
        std::vector<std::uint32_t> both(36, 0), load(6, 0);
        for (const auto &c : tokens.chosen) {
            for (int s = 0; s < slots; ++s)
                ++load[static_cast<std::size_t>(c[static_cast<std::size_t>(s)])];
            if (slots == 2)
                ++both[static_cast<std::size_t>(std::min(c[0], c[1]) * 6 + std::max(c[0], c[1]))];
        }
        const auto real = tokens.counts(400);
        const double control = shuffledOverlapOfTypes(real, both, load, 3000, slots);
        EXPECT_LT(overlapOfTypes(real, 6, false).mean, control - 0.05) << "these experts do prefer types";
        Random random(9);
        double sum = 0, square = 0;
        constexpr int kShuffles = 200;
        for (int round = 0; round < kShuffles; ++round) {
            for (std::size_t i = tokens.type.size(); i > 1; --i)
                std::swap(tokens.type[i - 1], tokens.type[random.below(i)]);
            const double v = overlapOfTypes(tokens.counts(400), 6, false).mean;
            sum += v / kShuffles;
            square += v * v / kShuffles;
        }
        const double spread = std::sqrt(std::max(0.0, square - sum * sum));
        EXPECT_NEAR(control, sum, 5 * spread / std::sqrt(kShuffles) + 5e-4) << slots << " slots; one shuffle varies by " << spread;
    }
}

TEST(OverlapControl, KnownCases)
{
    // Every token of a type of its own, one expert each: nothing is shared, shuffled or not.
    const std::vector<std::uint32_t> single = {1, 0, 0, 1, 1, 0, 0, 1}, none(4, 0), load = {2, 2};
    EXPECT_NEAR(shuffledOverlapOfTypes(single, none, load, 4, 1), 0, 1e-12);
    // One type, seen by both whatever the order.
    EXPECT_NEAR(shuffledOverlapOfTypes(std::vector<std::uint32_t>{2, 2}, none, load, 4, 1), 1, 1e-12);
    // Two types of two tokens each: of six deals of the four tokens two keep types apart; in the other four each expert has both.
    // By sums over types: P(both) = 2/3 of the types, P(either) = 1.
    EXPECT_NEAR(shuffledOverlapOfTypes(std::vector<std::uint32_t>{2, 0, 0, 2}, none, load, 4, 1), 2.0 / 3, 1e-12);
    EXPECT_TRUE(std::isnan(shuffledOverlapOfTypes(std::vector<std::uint32_t>{1}, std::vector<std::uint32_t>{0}, std::vector<std::uint32_t>{1}, 1, 1)));
}

} // namespace
} // namespace spectra::detail
