// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/data/support.h"

#include <cmath>
#include <map>
#include <set>

namespace spectra::testing {
namespace {

/// A corpus in memory: token i of domain d is i, so that a window's first token tells where it lies.
class FakeCorpus final : public Corpus {
public:
    FakeCorpus(std::vector<double> weights, std::vector<std::size_t> sizes)
    {
        for (std::size_t i = 0; i < weights.size(); ++i) {
            m_domains.push_back({"d" + std::to_string(i), {}, weights[i]});
            m_tokens.emplace_back(sizes[i]);
            for (std::size_t k = 0; k < sizes[i]; ++k)
                m_tokens.back()[k] = std::int32_t(k);
        }
    }
    [[nodiscard]] const std::vector<DomainSource> &domains() const override { return m_domains; }
    [[nodiscard]] std::span<const std::int32_t> training(std::size_t domain) const override { return m_tokens.at(domain); }
    [[nodiscard]] std::span<const std::int32_t> heldOut(std::size_t) const override { return {}; }
    [[nodiscard]] std::int64_t heldOutBytes(std::size_t) const override { return 0; }
    [[nodiscard]] std::string manifest() const override { return "{}"; }

private:
    std::vector<DomainSource> m_domains;
    std::vector<std::vector<std::int32_t>> m_tokens;
};

std::shared_ptr<const Corpus> fake(std::vector<double> weights, std::vector<std::size_t> sizes)
{
    return std::make_shared<FakeCorpus>(std::move(weights), std::move(sizes));
}

struct Place {
    std::size_t domain;
    std::int32_t begin;
    bool operator==(const Place &) const = default;
};

Place placeOf(const BatchSampler &sampler, std::int64_t index)
{
    const auto sequence = sampler.at(index);
    return {sequence.domain, sequence.tokens.front()};
}

TEST(BatchSampler, sameSeedSameOrderWhateverWasAskedBefore)
{
    const auto corpus = fake({1, 2, 3}, {5000, 6000, 9000});
    const BatchSampler first(corpus, 64, 7), second(corpus, 64, 7);
    std::vector<Place> forwards;
    for (std::int64_t i = 0; i < 1000; ++i)
        forwards.push_back(placeOf(first, i));
    for (std::int64_t i = 999; i >= 0; i -= 1)
        ASSERT_EQ(placeOf(second, i), forwards[std::size_t(i)]) << i;
    EXPECT_EQ(placeOf(BatchSampler(corpus, 64, 7), 777), forwards[777]);
}

TEST(BatchSampler, seedsGiveOtherOrders)
{
    const auto corpus = fake({1}, {64 * 1000 + 1});
    const BatchSampler first(corpus, 64, 0), second(corpus, 64, 1);
    int equal = 0;
    for (std::int64_t i = 0; i < 900; ++i)
        equal += placeOf(first, i).begin / 64 == placeOf(second, i).begin / 64;
    EXPECT_LT(equal, 12); // one is expected
}

TEST(BatchSampler, windowsAreWhole)
{
    const auto corpus = fake({1, 1}, {65, 4000});
    const BatchSampler sampler(corpus, 64, 3);
    for (std::int64_t i = 0; i < 500; ++i) {
        const auto sequence = sampler.at(i);
        ASSERT_EQ(sequence.tokens.size(), 65u);
        ASSERT_EQ(sequence.tokens.back(), sequence.tokens.front() + 64);
        ASSERT_LE(std::size_t(sequence.tokens.back()), corpus->training(sequence.domain).size() - 1);
    }
}

TEST(BatchSampler, sharesHoldToWithinOneFromTheStart)
{
    const std::vector<std::vector<double>> cases = {{1}, {1, 1}, {1, 1, 1, 1}, {0.5, 0.3, 0.2}, {7, 1}, {1, 2, 3, 5, 8}, {0.97, 0.01, 0.02}, {M_PI, M_E, 1}, {1, 0, 3}, {1e-7, 1}};
    for (const auto &weights : cases) {
        double sum = 0;
        for (const double w : weights)
            sum += w;
        const BatchSampler sampler(fake(weights, std::vector<std::size_t>(weights.size(), 1000)), 10, 1);
        std::vector<double> given(weights.size(), 0);
        for (std::int64_t n = 1; n <= 20000; ++n) {
            ++given[sampler.at(n - 1).domain];
            for (std::size_t d = 0; d < weights.size(); ++d)
                ASSERT_LE(std::abs(given[d] - weights[d] / sum * double(n)), 1 + 1e-6) << "domain " << d << " after " << n;
        }
        for (std::size_t d = 0; d < weights.size(); ++d)
            EXPECT_EQ(given[d] > 0, weights[d] > 1e-6) << d;
    }
}

TEST(BatchSampler, everyWindowOfAnEpochOnceAndEpochsDiffer)
{
    for (const std::int64_t count : {1, 2, 3, 5, 17, 31, 33, 100, 1025}) { // windows that fit
        const std::int64_t length = 16, windows = count >= 32 ? count - 1 : count;
        const BatchSampler sampler(fake({1}, {std::size_t(count * length + 1 + 5)}), length, 11);
        std::set<std::vector<std::int32_t>> orders;
        std::set<std::int32_t> offsets;
        for (std::int64_t epoch = 0; epoch < 20; ++epoch) {
            std::set<std::int32_t> begins;
            std::vector<std::int32_t> order;
            for (std::int64_t i = 0; i < windows; ++i) {
                const std::int32_t begin = placeOf(sampler, epoch * windows + i).begin;
                begins.insert(begin);
                order.push_back(begin / std::int32_t(length));
            }
            ASSERT_EQ(begins.size(), std::size_t(windows)) << count << " epoch " << epoch;
            for (const std::int32_t begin : begins)
                ASSERT_EQ((begin - *begins.begin()) % length, 0);
            ASSERT_LT(*begins.begin(), 5 + length + 1);
            orders.insert(order);
            offsets.insert(*begins.begin());
        }
        EXPECT_GT(offsets.size(), 3u) << count;
        EXPECT_EQ(orders.size(), count >= 17 ? 20u : orders.size()) << count;
    }
}

/// Every window comes equally often at every place of an epoch (chi-squared over 3000 epochs of 12 windows).
TEST(BatchSampler, shuffleIsUniform)
{
    const std::int64_t windows = 12, epochs = 3000;
    const BatchSampler sampler(fake({1}, {std::size_t(windows * 8 + 1)}), 8, 5);
    std::map<std::pair<std::int64_t, std::int32_t>, double> counts;
    for (std::int64_t i = 0; i < windows * epochs; ++i)
        counts[{i % windows, placeOf(sampler, i).begin / 8}] += 1;
    const double expected = double(epochs) / double(windows);
    double chi = 0;
    for (std::int64_t place = 0; place < windows; ++place) {
        for (std::int32_t w = 0; w < windows; ++w) {
            const double d = counts[{place, w}] - expected;
            chi += d * d / expected;
        }
    }
    EXPECT_LT(chi, 121 + 4 * std::sqrt(2 * 121.0)); // 11 × 11 degrees of freedom
}

/// As several processes take them: each step's sequences are divided, none is taken twice, and together they are the epoch.
TEST(BatchSampler, processesHaveDisjointSlices)
{
    const BatchSampler sampler(fake({1, 1}, {16 * 20 + 1, 16 * 20 + 1}), 16, 2);
    std::set<std::pair<std::size_t, std::int32_t>> seen;
    for (int process = 0; process < 4; ++process) {
        for (std::int64_t step = 0; step < 5; ++step) {
            for (std::int64_t k = 0; k < 2; ++k) {
                const Place place = placeOf(sampler, step * 8 + process * 2 + k);
                EXPECT_TRUE(seen.insert({place.domain, place.begin}).second);
            }
        }
    }
    EXPECT_EQ(seen.size(), 40u);
}

/// What a bank of windows needs: the same ones every epoch, all that fit, each to be found again by its number.
TEST(BatchSampler, aFixedCutRepeatsEveryWindow)
{
    for (const std::int64_t count : {1, 2, 40}) {
        const std::int64_t length = 16;
        const auto corpus = fake({1, 2}, {std::size_t(count * length + 1 + 5), std::size_t(2 * count * length + 1)});
        const BatchSampler sampler(corpus, length, 3, BatchSampler::Cut::fixed);
        ASSERT_EQ(sampler.windows(0), count);
        ASSERT_EQ(sampler.windows(1), 2 * count);
        std::vector<std::vector<std::int64_t>> orders;
        for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
            std::set<std::pair<std::size_t, std::int64_t>> seen;
            std::vector<std::int64_t> order;
            for (std::int64_t i = 0; i < 3 * count; ++i) {
                const auto sequence = sampler.at(epoch * 3 * count + i);
                ASSERT_EQ(sequence.tokens.size(), std::size_t(length) + 1);
                ASSERT_EQ(sequence.tokens.front(), sequence.begin);
                ASSERT_EQ(sequence.begin % length, 0);
                const auto again = sampler.window(sequence.domain, sequence.begin / length);
                ASSERT_EQ(again.tokens.data(), sequence.tokens.data());
                ASSERT_EQ(again.tokens.size(), sequence.tokens.size());
                seen.insert({sequence.domain, sequence.begin});
                order.push_back(sequence.begin);
            }
            EXPECT_EQ(seen.size(), std::size_t(3 * count));
            orders.push_back(order);
        }
        if (count == 40) {
            EXPECT_NE(orders[0], orders[1]);
        }
    }
    const BatchSampler shifted(fake({1}, {16 * 40 + 1}), 16, 3);
    bool off = false;
    for (std::int64_t i = 0; i < 400; ++i) {
        const auto sequence = shifted.at(i);
        EXPECT_EQ(sequence.tokens.front(), sequence.begin);
        off = off || sequence.begin % 16 != 0;
    }
    EXPECT_TRUE(off) << "the usual cut moves";
}

TEST(BatchSampler, epochsAreCounted)
{
    const BatchSampler sampler(fake({1, 3}, {16 * 10 + 1, 16 * 20 + 1}), 16, 2);
    EXPECT_DOUBLE_EQ(sampler.epochs(0, 0), 0);
    EXPECT_DOUBLE_EQ(sampler.epochs(0, 40), 1);
    EXPECT_DOUBLE_EQ(sampler.epochs(1, 40), 1.5);
    EXPECT_DOUBLE_EQ(sampler.epochs(0, 4 * 1000), 100);
}

} // namespace
} // namespace spectra::testing
