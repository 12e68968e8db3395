// SPDX-License-Identifier: GPL-3.0-or-later
// Inference over seeds against SciPy.
#include "analysis/statistics/inference.h"
#include "analysis/statistics/powerlaw.h"
#include "engine/core/random.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <fstream>

namespace spectra {
namespace {

using nlohmann::json;

const json &fixture()
{
    static const json f = [] {
        std::ifstream file(std::string(SPECTRA_TEST_DIR) + "/fixtures/study/statistics.json");
        return json::parse(file);
    }();
    return f;
}

std::vector<double> numbers(const json &array)
{
    return array.get<std::vector<double>>();
}

TEST(Inference, samplesEqualSciPy)
{
    ASSERT_GE(fixture()["samples"].size(), 6u);
    for (const json &c : fixture()["samples"]) {
        const auto a = numbers(c["a"]), b = numbers(c["b"]);
        const auto interval = meanInterval(a);
        ASSERT_TRUE(interval && interval->half);
        EXPECT_NEAR(interval->mean, c["interval"]["mean"], 1e-12);
        EXPECT_NEAR(*interval->half, c["interval"]["half"], 1e-9);
        EXPECT_NEAR(*interval->deviation, c["interval"]["deviation"], 1e-12);
        const auto one = oneSampleT(a, c["one_sample"]["value"]);
        EXPECT_NEAR(one->statistic, c["one_sample"]["t"], 1e-9);
        EXPECT_NEAR(one->p, c["one_sample"]["p"], 1e-10);
        const auto welch = welchT(a, b);
        EXPECT_NEAR(welch->statistic, c["welch"]["t"], 1e-9);
        EXPECT_NEAR(welch->freedom, c["welch"]["df"], 1e-9);
        EXPECT_NEAR(welch->p, c["welch"]["p"], 1e-10);
        EXPECT_NEAR(*welch->half, c["welch"]["half"], 1e-8);
        EXPECT_NEAR(*cohensD(a, b), c["cohens_d"], 1e-10);
        EXPECT_NEAR(*cliffsDelta(a, b), c["cliffs_delta"], 1e-12);
        if (!c.contains("paired"))
            continue;
        EXPECT_NEAR(pairedT(a, b)->statistic, c["paired"]["t"], 1e-9);
        EXPECT_NEAR(pairedT(a, b)->p, c["paired"]["p"], 1e-10);
        EXPECT_NEAR(pairedPermutation(a, b)->p, c["permutation"]["p"], 1e-12);
        EXPECT_NEAR(pairedPermutation(a, b)->p, c["permutation"]["scipy"], 1e-12);
    }
}

TEST(Inference, familiesEqualSciPy)
{
    for (const json &c : fixture()["families"]) {
        const auto p = numbers(c["p"]);
        const auto h = holm(p), bh = benjaminiHochberg(p);
        for (std::size_t i = 0; i < p.size(); ++i) {
            EXPECT_NEAR(h[i], c["holm"][i], 1e-12);
            EXPECT_NEAR(bh[i], c["bh"][i], 1e-12);
        }
    }
    EXPECT_TRUE(holm({}).empty());
    EXPECT_TRUE(benjaminiHochberg({}).empty());
}

TEST(Inference, whatTheDataCannotGiveIsAbsent)
{
    const std::vector<double> none, one{1.5}, two{1.0, 2.0}, same{0.1, 0.1, 0.1};
    EXPECT_FALSE(meanInterval(none));
    EXPECT_FALSE(meanInterval(one)->half);
    EXPECT_EQ(meanInterval(one)->mean, 1.5);
    EXPECT_FALSE(oneSampleT(one, 0));
    EXPECT_FALSE(pairedT(one, one));
    EXPECT_FALSE(pairedT(two, same));
    EXPECT_FALSE(welchT(one, two));
    EXPECT_FALSE(pairedPermutation(none, none));
    EXPECT_FALSE(cohensD(same, same));
    EXPECT_FALSE(cliffsDelta(none, two));
    EXPECT_EQ(pairedT(same, same)->p, 1);
    EXPECT_EQ(oneSampleT(same, 0.2)->p, 0) << "no spread, another mean";
    EXPECT_EQ(oneSampleT(same, 0.1)->p, 1);
}

TEST(Inference, aRandomPermutationTestAgreesWithTheExactOne)
{
    // 17 pairs are drawn at random, 16 of nearly the same kind exactly.
    Random random(3);
    std::vector<double> a, b;
    for (int i = 0; i < 17; ++i) {
        b.push_back(random.normal());
        a.push_back(b.back() + 0.35 + random.normal());
    }
    const double t = pairedT(a, b)->p, drawn = pairedPermutation(a, b, 20000, 1)->p;
    EXPECT_NEAR(drawn, t, 0.03);
    EXPECT_EQ(drawn, pairedPermutation(a, b, 20000, 1)->p) << "one seed, one value";
}

TEST(PowerLaw, equalsCurveFit)
{
    ASSERT_GE(fixture()["laws"].size(), 5u);
    for (const json &c : fixture()["laws"]) {
        const auto law = fitPowerLaw(numbers(c["x"]), numbers(c["y"]), c["offset"]);
        ASSERT_TRUE(law);
        EXPECT_LE(law->squares, c["squares"].get<double>() * (1 + 1e-6) + 1e-9);
        EXPECT_NEAR(law->b, c["b"], 2e-4 * std::abs(c["b"].get<double>()));
        EXPECT_NEAR(law->a, c["a"], 2e-3 * std::abs(c["a"].get<double>()));
        EXPECT_NEAR(law->c, c["c"], 2e-3 * (1 + std::abs(c["c"].get<double>())));
    }
}

TEST(PowerLaw, intervalsCoverTheTruthAndNeedSeeds)
{
    std::vector<double> x, y;
    std::vector<int> seed;
    Random random(9);
    for (int s = 0; s < 5; ++s)
        for (const double n : {1e3, 4e3, 16e3, 64e3, 256e3}) {
            x.push_back(n);
            y.push_back(20 * std::pow(n, -0.3) + 2 + 0.005 * random.normal());
            seed.push_back(s);
        }
    const std::vector<double> at{1e3, 1e6};
    const auto fit = bootstrapPowerLaw(x, y, seed, at, true, 300, 1);
    ASSERT_TRUE(fit && fit->b && fit->c);
    EXPECT_LT(fit->b->first, 0.3);
    EXPECT_GT(fit->b->second, 0.3);
    EXPECT_LT(fit->low[1], 20 * std::pow(1e6, -0.3) + 2);
    EXPECT_GT(fit->high[1], 20 * std::pow(1e6, -0.3) + 2);
    const auto alone = bootstrapPowerLaw(std::span(x).first(5), std::span(y).first(5), std::span(seed).first(5), at, true);
    ASSERT_TRUE(alone);
    EXPECT_FALSE(alone->b) << "one seed has no interval";
    EXPECT_TRUE(alone->low.empty());
}

TEST(PowerLaw, refusesWhatHasNoFit)
{
    const std::vector<double> two{1, 2}, zero{0, 1, 2}, y2{3, 2}, y3{3, 2, 1}, bad{3, NAN, 1}, x3{1, 2, 3};
    EXPECT_FALSE(fitPowerLaw(two, y2, true));
    EXPECT_TRUE(fitPowerLaw(two, y2, false));
    EXPECT_FALSE(fitPowerLaw(zero, y3, false));
    EXPECT_FALSE(fitPowerLaw(x3, bad, false));
    EXPECT_FALSE(fitLine(std::vector<double>{1, 1}, y2));
    EXPECT_DOUBLE_EQ(fitLine(x3, y3)->first, -1);
    EXPECT_DOUBLE_EQ(fitLine(x3, y3)->second, 4);
}

} // namespace
} // namespace spectra
