// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/rule/kernels.h"
#include "engine/rule/osr.h"
#include "engine/rule/sinkhorn.h"

#include <nlohmann/json.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

namespace spectra::rule {
namespace {

std::vector<float> scores(std::int64_t n, std::int64_t e, double spread, double tilt, std::uint64_t seed = 1)
{
    Random random(seed);
    std::vector<float> s(static_cast<std::size_t>(n * e));
    for (std::int64_t t = 0; t < n; ++t)
        for (std::int64_t i = 0; i < e; ++i)
            s[static_cast<std::size_t>(t * e + i)] = static_cast<float>(spread * random.normal() + tilt * static_cast<double>(i) / static_cast<double>(e));
    return s;
}

/// Log-domain alternation in double: what every other form must equal.
std::vector<double> plainPlan(const std::vector<float> &s, std::int64_t e, double epsilon, int iterations)
{
    const auto n = static_cast<std::int64_t>(s.size()) / e;
    std::vector<double> f(static_cast<std::size_t>(n), 0.0), g(static_cast<std::size_t>(e), 0.0), q(s.size());
    const auto z = [&](std::int64_t t, std::int64_t i) { return static_cast<double>(s[static_cast<std::size_t>(t * e + i)]) / epsilon; };
    const auto rows = [&] {
        for (std::int64_t t = 0; t < n; ++t) {
            double top = -1e300, sum = 0;
            for (std::int64_t i = 0; i < e; ++i)
                top = std::max(top, z(t, i) + g[static_cast<std::size_t>(i)]);
            for (std::int64_t i = 0; i < e; ++i)
                sum += std::exp(z(t, i) + g[static_cast<std::size_t>(i)] - top);
            f[static_cast<std::size_t>(t)] = -top - std::log(sum);
        }
    };
    for (int k = 0; k < iterations; ++k) {
        rows();
        for (std::int64_t i = 0; i < e; ++i) {
            double top = -1e300, sum = 0;
            for (std::int64_t t = 0; t < n; ++t)
                top = std::max(top, z(t, i) + f[static_cast<std::size_t>(t)]);
            for (std::int64_t t = 0; t < n; ++t)
                sum += std::exp(z(t, i) + f[static_cast<std::size_t>(t)] - top);
            g[static_cast<std::size_t>(i)] = std::log(static_cast<double>(n) / static_cast<double>(e)) - top - std::log(sum);
        }
    }
    rows();
    for (std::int64_t t = 0; t < n; ++t)
        for (std::int64_t i = 0; i < e; ++i)
            q[static_cast<std::size_t>(t * e + i)] = std::exp(z(t, i) + f[static_cast<std::size_t>(t)] + g[static_cast<std::size_t>(i)]);
    return q;
}

double distance(const std::vector<float> &a, const std::vector<double> &b)
{
    double worst = 0;
    for (std::size_t i = 0; i < a.size(); ++i)
        worst = std::max(worst, std::abs(static_cast<double>(a[i]) - b[i]));
    return worst;
}

struct Marginals {
    double rows = 0, columns = 0;
};
Marginals marginals(const std::vector<float> &q, std::int64_t e)
{
    const auto n = static_cast<std::int64_t>(q.size()) / e;
    Marginals m;
    std::vector<double> columns(static_cast<std::size_t>(e), 0.0);
    for (std::int64_t t = 0; t < n; ++t) {
        double row = 0;
        for (std::int64_t i = 0; i < e; ++i) {
            const auto v = static_cast<double>(q[static_cast<std::size_t>(t * e + i)]);
            row += v;
            columns[static_cast<std::size_t>(i)] += v;
        }
        m.rows = std::max(m.rows, std::abs(row - 1));
    }
    for (const double c : columns)
        m.columns = std::max(m.columns, std::abs(c * static_cast<double>(e) / static_cast<double>(n) - 1));
    return m;
}

TEST(Sinkhorn, EqualsAnIndependentPlainIteration)
{
    const std::string folder = std::string(SPECTRA_TEST_DIR) + "/fixtures/spectra/";
    std::ifstream text(folder + "reference.json");
    const auto json = nlohmann::json::parse(text);
    std::ifstream bin(folder + "reference.bin", std::ios::binary);
    const auto read = [&](const nlohmann::json &at) {
        std::size_t size = 1;
        for (const std::size_t d : at["shape"])
            size *= d;
        std::vector<float> values(size);
        bin.seekg(static_cast<std::streamoff>(at["at"].get<std::size_t>() * sizeof(float)));
        bin.read(reinterpret_cast<char *>(values.data()), static_cast<std::streamsize>(size * sizeof(float)));
        return values;
    };
    for (const auto &c : json["transports"]) {
        const auto s = read(c["scores"]), plan = read(c["plan"]), potential = read(c["potential"]);
        const std::int64_t e = c["experts"];
        SinkhornOptions options;
        options.epsilon = c["epsilon"];
        options.iterations = c["iterations"];
        std::vector<float> q(s.size());
        auto result = sinkhorn(s, e, options, q);
        ASSERT_TRUE(result.ok());
        EXPECT_LE(distance(q, {plan.begin(), plan.end()}), 1e-5);
        centre(result->potential);
        for (std::size_t i = 0; i < potential.size(); ++i)
            EXPECT_NEAR(result->potential[i], static_cast<double>(potential[i]), 1e-5);
        EXPECT_NEAR(result->violation, c["violation"].get<double>(), 1e-5);
        if (options.iterations < 100)
            continue;
        options.tolerance = 1e-6; // converged: the accelerated form must end at the same plan
        const auto fast = sinkhorn(s, e, options, q);
        ASSERT_TRUE(fast.ok());
        EXPECT_TRUE(fast->converged);
        EXPECT_LT(fast->iterations, options.iterations);
        EXPECT_LE(distance(q, {plan.begin(), plan.end()}), 1e-5);
    }
}

TEST(Sinkhorn, EqualsThePlainFormOnEveryInstructionSet)
{
    for (const Level wanted : {Level::v4, Level::v3, Level::baseline}) {
        setLevel(wanted);
        for (const std::int64_t e : {1, 2, 8, 16, 17, 33, 64, 130})
            for (const double epsilon : {1.0, 0.1, 0.02}) {
                const auto s = scores(97, e, 0.3, 0.4, static_cast<std::uint64_t>(e));
                SinkhornOptions options;
                options.epsilon = epsilon;
                options.iterations = 4;
                std::vector<float> q(s.size());
                ASSERT_TRUE(sinkhorn(s, e, options, q).ok());
                EXPECT_LE(distance(q, plainPlan(s, e, epsilon, 4)), 2e-5) << e << " experts, epsilon " << epsilon;
            }
    }
    setLevel(Level::v4);
}

TEST(Sinkhorn, MeetsItsToleranceWithTrueMarginals)
{
    for (const double epsilon : {2.0, 0.5, 0.1, 0.03, 0.01})
        for (const double tilt : {0.0, 2.0}) {
            const auto s = scores(3000, 12, 0.5, tilt, 7);
            SinkhornOptions options;
            options.epsilon = epsilon;
            options.tolerance = 1e-5;
            std::vector<float> q(s.size());
            const auto result = sinkhorn(s, 12, options, q);
            ASSERT_TRUE(result.ok());
            EXPECT_TRUE(result->converged) << epsilon << " " << tilt;
            const auto m = marginals(q, 12);
            EXPECT_LT(m.rows, 1e-5) << epsilon << " " << tilt;
            EXPECT_LT(m.columns, 2e-5) << epsilon << " " << tilt;
            EXPECT_LE(result->violation, 1e-5);
        }
}

TEST(Sinkhorn, SaysWhenAToleranceWasNotMet)
{
    const auto s = scores(400, 8, 1.0, 3.0);
    SinkhornOptions options;
    options.epsilon = 0.02;
    options.tolerance = 1e-9;
    options.maxIterations = 3;
    std::vector<float> q(s.size());
    const auto result = sinkhorn(s, 8, options, q);
    ASSERT_TRUE(result.ok());
    EXPECT_FALSE(result->converged);
    EXPECT_LE(result->iterations, 3);
    EXPECT_NEAR(result->violation, marginals(q, 8).columns, 1e-3 * (1 + result->violation));
    EXPECT_LT(marginals(q, 8).rows, 1e-5) << "rows sum to 1 whatever happens";
}

TEST(Sinkhorn, SurvivesScoresThatUnderflowAnyKernel)
{
    // one column lies 200 ε below the others: exp() of it is 0 in float
    auto s = scores(500, 4, 0.05, 0.0);
    for (std::size_t i = 3; i < s.size(); i += 4)
        s[i] -= 10.0f;
    SinkhornOptions options;
    options.epsilon = 0.05;
    options.iterations = 6;
    std::vector<float> q(s.size());
    auto result = sinkhorn(s, 4, options, q);
    ASSERT_TRUE(result.ok());
    EXPECT_LE(distance(q, plainPlan(s, 4, 0.05, 6)), 1e-4);
    options.tolerance = 1e-5;
    result = sinkhorn(s, 4, options, q);
    ASSERT_TRUE(result.ok());
    EXPECT_TRUE(result->converged);
    EXPECT_LT(marginals(q, 4).columns, 2e-5);

    for (const float scale : {1e3f, 1e6f}) { // far outside anything a router gives
        const auto wild = scores(64, 5, static_cast<double>(scale), 0.0);
        options.tolerance = 0;
        std::vector<float> p(wild.size());
        ASSERT_TRUE(sinkhorn(wild, 5, options, p).ok());
        for (const float v : p)
            EXPECT_TRUE(std::isfinite(v) && v >= 0 && v <= 1.0001f);
        EXPECT_LT(marginals(p, 5).rows, 1e-5);
    }
}

TEST(Sinkhorn, MaskedRowsTakeNoPartButAreRouted)
{
    const auto s = scores(60, 6, 0.4, 0.5);
    std::vector<std::uint8_t> counted(60, 1);
    std::vector<float> kept;
    for (std::int64_t t = 0; t < 60; ++t) {
        counted[static_cast<std::size_t>(t)] = t % 3 != 1;
        if (t % 3 != 1)
            kept.insert(kept.end(), s.begin() + t * 6, s.begin() + (t + 1) * 6);
    }
    SinkhornOptions options;
    options.epsilon = 0.2;
    std::vector<float> q(s.size()), alone(kept.size());
    const auto masked = sinkhorn(s, 6, options, q, counted), plain = sinkhorn(kept, 6, options, alone);
    ASSERT_TRUE(masked.ok() && plain.ok());
    EXPECT_EQ(masked->potential, plain->potential);
    EXPECT_EQ(masked->violation, plain->violation);
    std::size_t at = 0;
    std::vector<float> g(masked->potential.begin(), masked->potential.end());
    for (std::int64_t t = 0; t < 60; ++t)
        if (counted[static_cast<std::size_t>(t)]) {
            for (int i = 0; i < 6; ++i)
                EXPECT_EQ(q[static_cast<std::size_t>(t * 6 + i)], alone[at++]);
        } else {
            std::vector<float> expected(6);
            softmaxRows(std::span<const float>(s).subspan(static_cast<std::size_t>(t * 6), 6), g, 1, 6, 1 / 0.2, false, expected);
            for (int i = 0; i < 6; ++i)
                EXPECT_NEAR(q[static_cast<std::size_t>(t * 6 + i)], expected[static_cast<std::size_t>(i)], 1e-6);
        }
    const std::vector<std::uint8_t> none(60, 0);
    EXPECT_TRUE(sinkhorn(s, 6, options, q, none).ok()) << "nothing to transport is no error";
}

TEST(Sinkhorn, ThreadsDoNotChangeABit)
{
    const auto s = scores(20000, 24, 0.4, 0.6);
    SinkhornOptions options;
    options.epsilon = 0.1;
    options.tolerance = 1e-6;
    std::vector<float> one(s.size()), many(s.size());
    const auto a = sinkhorn(s, 24, options, one, {}, Executor::serial());
    ASSERT_TRUE(a.ok());
    for (const int threads : {2, 3, 7}) {
        setThreadCount(threads);
        const auto b = sinkhorn(s, 24, options, many, {}, Executor::pool());
        ASSERT_TRUE(b.ok());
        EXPECT_EQ(a->iterations, b->iterations);
        EXPECT_EQ(a->potential, b->potential);
        EXPECT_EQ(one, many);
    }
    setThreadCount(0);
}

TEST(Sinkhorn, TheClampedFormClampsAndACostIsANegativeScore)
{
    const std::vector<float> s = {10.f, 0.f, -10.f, 0.f, 0.f, 0.f};
    SinkhornOptions options;
    options.epsilon = 0.1; // logits ±100 are held to ±50
    options.clampLogits = true;
    std::vector<float> q(6), expected(6);
    ASSERT_TRUE(sinkhorn(s, 3, options, q).ok());
    std::vector<float> clamped = {5.f, 0.f, -5.f, 0.f, 0.f, 0.f};
    options.clampLogits = false;
    ASSERT_TRUE(sinkhorn(clamped, 3, options, expected).ok());
    for (int i = 0; i < 6; ++i)
        EXPECT_FLOAT_EQ(q[static_cast<std::size_t>(i)], expected[static_cast<std::size_t>(i)]);
    auto cost = clamped;
    for (float &c : cost)
        c = -c;
    options.inputIsCost = true;
    ASSERT_TRUE(sinkhorn(cost, 3, options, q).ok());
    EXPECT_EQ(q, expected);
}

TEST(Sinkhorn, RefusesBadOptionsAndScores)
{
    const auto good = scores(4, 3, 1, 0);
    SinkhornOptions options;
    options.epsilon = 0;
    EXPECT_EQ(sinkhorn(good, 3, options, {}).error().kind, ErrorKind::usage);
    options = {};
    options.iterations = 0;
    EXPECT_EQ(sinkhorn(good, 3, options, {}).error().kind, ErrorKind::usage);
    options = {};
    options.tolerance = std::nan("");
    EXPECT_EQ(sinkhorn(good, 3, options, {}).error().kind, ErrorKind::usage);
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        auto s = good;
        s[7] = bad;
        const auto result = sinkhorn(s, 3, {}, {});
        ASSERT_FALSE(result.ok());
        EXPECT_EQ(result.error().kind, ErrorKind::input);
        EXPECT_EQ(result.error().where, "row 2, column 1");
    }
}

} // namespace
} // namespace spectra::rule
