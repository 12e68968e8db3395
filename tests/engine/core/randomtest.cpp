// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <vector>

namespace spectra::test {
namespace {

/// xoshiro256** and splitmix64 written down once more from the published description (Blackman and Vigna, 2018).
struct Reference {
    std::array<std::uint64_t, 4> s;
    explicit Reference(std::uint64_t seed)
    {
        for (auto &word : s) {
            seed += 0x9e3779b97f4a7c15;
            std::uint64_t z = seed;
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
            z = (z ^ z >> 27) * 0x94d049bb133111eb;
            word = z ^ z >> 31;
        }
    }
    std::uint64_t next()
    {
        const auto rotl = [](std::uint64_t x, int k) { return x << k | x >> (64 - k); };
        const std::uint64_t out = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = rotl(s[3], 45);
        return out;
    }
};

TEST(Random, IsXoshiroSeededBySplitmix)
{
    // The first output of splitmix64 for seed 0, known from its author's page.
    EXPECT_EQ(Reference(0).s[0], 0xe220a8397b1dcdafu);
    for (const std::uint64_t seed : {0ull, 1ull, 12345ull, ~0ull}) {
        Random random(seed);
        Reference reference(seed);
        for (int i = 0; i < 1000; ++i)
            ASSERT_EQ(random(), reference.next()) << "seed " << seed << " draw " << i;
    }
}

TEST(Random, StreamsOfOneSeedDiffer)
{
    Random a(7, 0), b(7, 1), c(7, 2), again(7, 1);
    const std::uint64_t x = a(), y = b(), z = c();
    EXPECT_NE(x, y);
    EXPECT_NE(y, z);
    EXPECT_EQ(again(), y);
}

TEST(Random, UniformNumbersAreSpreadEvenly)
{
    Random random(1);
    std::array<int, 10> bins{};
    double sum = 0;
    constexpr int n = 100000;
    for (int i = 0; i < n; ++i) {
        const double u = random.uniform();
        ASSERT_TRUE(u >= 0 && u < 1);
        ++bins[static_cast<std::size_t>(u * 10)];
        sum += u;
    }
    EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
    double chi2 = 0;
    for (const int b : bins)
        chi2 += (b - n / 10.0) * (b - n / 10.0) / (n / 10.0);
    EXPECT_LT(chi2, 27.9) << "99.9 % point of chi-square with 9 degrees of freedom";
    EXPECT_GE(random.uniform(-3, -2), -3);
}

TEST(Random, BelowIsUnbiasedAndInRange)
{
    Random random(2);
    std::array<int, 3> counts{};
    for (int i = 0; i < 30000; ++i)
        ++counts[random.below(3)];
    for (const int c : counts)
        EXPECT_NEAR(c, 10000, 5 * std::sqrt(30000 * 2.0 / 9));
    EXPECT_EQ(random.below(1), 0u);
    EXPECT_EQ(random.below(0), 0u);
    // Three quarters of 2^64: a plain modulo would draw the lower third twice as often.
    const std::uint64_t n = std::uint64_t(3) << 62;
    int low = 0;
    for (int i = 0; i < 30000; ++i) {
        const std::uint64_t x = random.below(n);
        ASSERT_LT(x, n);
        low += x < n / 3;
    }
    EXPECT_NEAR(low, 10000, 5 * std::sqrt(30000 * 2.0 / 9));
}

TEST(Random, NormalNumbersHaveTheirMoments)
{
    Random random(3);
    constexpr int n = 200000;
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    for (int i = 0; i < n; ++i) {
        const double x = random.normal();
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    EXPECT_NEAR(m1 / n, 0, 5 / std::sqrt(n));
    EXPECT_NEAR(m2 / n, 1, 5 * std::sqrt(2.0 / n));
    EXPECT_NEAR(m3 / n, 0, 5 * std::sqrt(15.0 / n));
    EXPECT_NEAR(m4 / n, 3, 5 * std::sqrt(96.0 / n));
}

TEST(Random, ShufflesReachEveryOrderEquallyOften)
{
    Random random(4);
    std::array<int, 24> seen{};
    for (int i = 0; i < 24000; ++i) {
        std::vector<int> v = {0, 1, 2, 3};
        random.shuffle(v);
        int rank = 0;
        for (int a = 0; a < 4; ++a) {
            int smaller = 0;
            for (int b = a + 1; b < 4; ++b)
                smaller += v[static_cast<std::size_t>(b)] < v[static_cast<std::size_t>(a)];
            rank = rank * (4 - a) + smaller;
        }
        ++seen[static_cast<std::size_t>(rank)];
    }
    double chi2 = 0;
    for (const int s : seen)
        chi2 += (s - 1000) * (s - 1000) / 1000.0;
    EXPECT_LT(chi2, 49.7) << "99.9 % point of chi-square with 23 degrees of freedom";
}

} // namespace
} // namespace spectra::test
