// SPDX-License-Identifier: GPL-3.0-or-later
// The kernels against engine/rule. Needs a GPU; without one every test says so and is skipped.
#include "engine/core/random.h"
#include "engine/cuda/cudarule.h"
#include "engine/rule/loads.h"
#include "engine/rule/selection.h"
#include "tests/engine/cuda/quotacases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>

namespace spectra {
namespace {

class Gpu : public testing::Test {
protected:
    void SetUp() override
    {
        auto opened = CudaRule::open();
        if (!opened.ok())
            GTEST_SKIP() << "no GPU: not tested (" << opened.error().what << ")";
        m_rule.emplace(std::move(*opened));
    }
    std::optional<CudaRule> m_rule;
};

std::vector<float> scores(std::int64_t n, std::int64_t e)
{
    Random random(1);
    std::vector<float> s(static_cast<std::size_t>(n * e));
    for (std::size_t i = 0; i < s.size(); ++i)
        s[i] = static_cast<float>(0.5 * random.normal() + 0.1 * static_cast<double>(i % static_cast<std::size_t>(e)));
    return s;
}

TEST_F(Gpu, SinkhornEqualsTheCpuForm)
{
    for (const std::int64_t e : {3, 8, 64, 200}) {
        const auto s = scores(5000, e);
        for (const double tolerance : {0.0, 1e-5}) {
            rule::SinkhornOptions options;
            options.epsilon = 0.2;
            options.tolerance = tolerance;
            std::vector<float> gpu(s.size()), cpu(s.size());
            const auto a = m_rule->sinkhorn(s, e, options, gpu);
            auto b = rule::sinkhorn(s, e, options, cpu);
            ASSERT_TRUE(a.ok() && b.ok());
            EXPECT_TRUE(a->converged);
            rule::centre(b->potential);
            for (std::size_t i = 0; i < a->potential.size(); ++i)
                EXPECT_NEAR(a->potential[i], b->potential[i], 1e-4);
            double worst = 0;
            for (std::size_t i = 0; i < gpu.size(); ++i)
                worst = std::max(worst, std::abs(static_cast<double>(gpu[i]) - static_cast<double>(cpu[i])));
            EXPECT_LT(worst, 1e-5);
        }
    }
}

TEST_F(Gpu, TopKAndLoadsEqualTheCpuForm)
{
    auto q = scores(4000, 24);
    for (std::size_t i = 0; i < q.size(); i += 5)
        q[i] = 0.25f; // many ties
    const std::int64_t k = 4;
    std::vector<std::int64_t> a(4000 * 4), b(a.size()), load(24), expected(24, 0);
    std::vector<float> wa(a.size()), wb(a.size());
    ASSERT_TRUE(m_rule->topK(q, 24, k, true, a, wa, load).ok());
    rule::topK(q, 24, k, true, b, wb);
    rule::addLoads(b, k, {}, expected);
    EXPECT_EQ(a, b);
    EXPECT_EQ(load, expected);
    for (std::size_t i = 0; i < wa.size(); ++i)
        EXPECT_NEAR(wa[i], wb[i], 1e-6f);
}

TEST_F(Gpu, QuotaEqualsTheCpuForm)
{
    for (const test::QuotaCase &c : test::quotaCases()) {
        SCOPED_TRACE(c.name);
        const auto a = m_rule->assignQuota(c.q, c.experts, c.k, c.factor, c.counted);
        ASSERT_TRUE(a.ok()) << a.error().what;
        test::expectSame(*a, rule::assignQuota(c.q, c.experts, c.k, c.factor, c.counted));
    }
    const auto q = scores(20000, 64); // negative values too
    const auto a = m_rule->assignQuota(q, 64, 4, 1.25);
    ASSERT_TRUE(a.ok());
    test::expectSame(*a, rule::assignQuota(q, 64, 4, 1.25));
    const auto none = m_rule->assignQuota({}, 8, 2, 1);
    ASSERT_TRUE(none.ok());
    EXPECT_TRUE(none->experts.empty());
    EXPECT_FALSE(m_rule->assignQuota(scores(4, 128), 128, 100, 1).ok()) << "k above 64 is refused, not cut";
}

} // namespace
} // namespace spectra
