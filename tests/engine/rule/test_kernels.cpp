// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/rule/gru.h"
#include "engine/rule/osr.h"
#include "engine/rule/vectormath.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace spectra::rule {
namespace {

std::vector<float> normals(std::int64_t n, double scale, std::uint64_t seed)
{
    Random random(seed);
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float &x : v)
        x = static_cast<float>(scale * random.normal());
    return v;
}

class EveryLevel : public testing::TestWithParam<int> {
protected:
    void SetUp() override
    {
        setLevel(static_cast<Level>(GetParam()));
        if (static_cast<int>(level()) != GetParam())
            std::printf("this processor lacks level %d: the best it has is tested again\n", GetParam());
    }
    void TearDown() override { setLevel(Level::v4); }
};
INSTANTIATE_TEST_SUITE_P(Levels, EveryLevel, testing::Values(1, 3, 4));

TEST(VectorMath, IsAccurateOverItsRange)
{
    double exponent = 0, sigmoid = 0, tangent = 0;
    for (double x = -87; x <= 88; x += 0.00137) {
        const auto f = static_cast<float>(x);
        exponent = std::max(exponent, std::abs(static_cast<double>(vexp(f)) / std::exp(static_cast<double>(f)) - 1));
        sigmoid = std::max(sigmoid, std::abs(static_cast<double>(vsigmoid(f)) - 1 / (1 + std::exp(-static_cast<double>(f)))));
        tangent = std::max(tangent, std::abs(static_cast<double>(vtanh(f)) - std::tanh(static_cast<double>(f))));
    }
    EXPECT_LT(exponent, 3e-7);
    EXPECT_LT(sigmoid, 2e-7);
    EXPECT_LT(tangent, 2e-7);
    EXPECT_EQ(vexp(-1000.f), 0.f);
    EXPECT_EQ(vexp(0.f), 1.f);
    EXPECT_TRUE(std::isfinite(vexp(1000.f)));
    EXPECT_TRUE(std::isnan(vexp(std::numeric_limits<float>::quiet_NaN())));
    EXPECT_EQ(vtanh(100.f), 1.f);
    EXPECT_EQ(vtanh(-100.f), -1.f);
    EXPECT_LT(vsigmoid(-200.f), 1e-37f);
}

TEST_P(EveryLevel, ProductsAreRightAndDoNotDependOnTheOtherRows)
{
    for (const auto &[outputs, depth, blocks] : std::vector<std::tuple<int, int, int>>{{96, 64, 3}, {21, 7, 3}, {40, 33, 1}, {1, 1, 1}, {256, 1500, 1}, {64, 9000, 1}}) {
        const auto w = normals(outputs * depth, 1, 1), b = normals(outputs, 1, 2);
        const PackedMatrix packed(w, b, outputs, depth, blocks);
        const std::int64_t n = 131, width = packed.paddedOutputs(), per = outputs / blocks;
        const auto x = normals(n * depth, 1, 3);
        std::vector<float> all(static_cast<std::size_t>(n * width)), some(all.size());
        packed.project(x.data(), depth, n, all.data(), width);
        for (std::int64_t t = 0; t < n; t += 13)
            for (std::int64_t o = 0; o < outputs; ++o) {
                double sum = static_cast<double>(b[static_cast<std::size_t>(o)]);
                for (std::int64_t k = 0; k < depth; ++k)
                    sum += static_cast<double>(w[static_cast<std::size_t>(o * depth + k)]) * static_cast<double>(x[static_cast<std::size_t>(t * depth + k)]);
                const std::int64_t at = o / per * packed.blockWidth() + o % per;
                ASSERT_NEAR(static_cast<double>(all[static_cast<std::size_t>(t * width + at)]), sum, 2e-6 * depth + 1e-5) << outputs << "x" << depth;
            }
        for (const std::int64_t group : {1, 2, 3, 5, 12, 50}) {
            for (std::int64_t t = 0; t < n; t += group)
                packed.project(x.data() + t * depth, depth, std::min(group, n - t), some.data() + t * width, width);
            EXPECT_EQ(all, some) << "rows in groups of " << group;
        }
        std::fill(some.begin(), some.end(), 0.f);
        for (std::int64_t p = 0; p < packed.panels(); ++p)
            packed.project(x.data(), depth, n, some.data(), width, p, p + 1);
        EXPECT_EQ(all, some) << "panel by panel";
    }
}

/// One job in double, straight from the formulas.
std::vector<double> gruReference(const VectorJob &job, std::int64_t d, const std::vector<float> &wi, const std::vector<float> &wh, const std::vector<float> &bi,
                                 const std::vector<float> &bh)
{
    const std::int64_t h = job.width;
    std::vector<double> out(static_cast<std::size_t>(job.n * h));
    const auto at = [](const std::vector<float> &v, std::int64_t i) { return static_cast<double>(v[static_cast<std::size_t>(i)]); };
    for (std::size_t s = 0; s + 1 < job.offsets.size(); ++s) {
        std::vector<double> state(static_cast<std::size_t>(h), 0.0);
        for (std::int64_t i = 0; job.start && i < h; ++i)
            state[static_cast<std::size_t>(i)] = static_cast<double>(job.start[static_cast<std::int64_t>(s) * job.startStride + i]);
        for (std::int64_t t = job.offsets[s]; t < job.offsets[s + 1]; ++t) {
            std::vector<double> enter = state;
            for (std::int64_t i = 0; i < h; ++i) {
                const double below = job.below ? static_cast<double>(job.below[t * h + i]) : 0;
                auto &e = enter[static_cast<std::size_t>(i)];
                e = job.axis == VectorJob::Axis::depth ? below : job.axis == VectorJob::Axis::grid ? 0.5 * (e + below) : e;
            }
            const auto gate = [&](std::int64_t row, double &in, double &rec) {
                in = at(bi, row);
                rec = at(bh, row);
                for (std::int64_t k = 0; k < d; ++k)
                    in += at(wi, row * d + k) * static_cast<double>(job.x[t * d + k]);
                for (std::int64_t k = 0; k < h; ++k)
                    rec += at(wh, row * h + k) * enter[static_cast<std::size_t>(k)];
            };
            for (std::int64_t i = 0; i < h; ++i) {
                double ir, hr, iz, hz, in, hn;
                gate(i, ir, hr);
                gate(h + i, iz, hz);
                gate(2 * h + i, in, hn);
                const double r = 1 / (1 + std::exp(-ir - hr)), z = 1 / (1 + std::exp(-iz - hz)), m = std::tanh(in + r * hn);
                state[static_cast<std::size_t>(i)] = (1 - z) * m + z * enter[static_cast<std::size_t>(i)];
            }
            std::copy(state.begin(), state.end(), out.begin() + t * h);
        }
    }
    return out;
}

TEST_P(EveryLevel, TheGruEqualsItsFormulasOnEveryAxis)
{
    const std::int64_t d = 13, h = 30; // not a multiple of any vector
    const auto wi = normals(3 * h * d, 0.4, 1), wh = normals(3 * h * h, 0.3, 2), bi = normals(3 * h, 0.2, 3), bh = normals(3 * h, 0.2, 4), wp = normals(h * d, 1, 5);
    const PackedMatrix input(wi, bi, 3 * h, d, 3), recurrent(wh, bh, 3 * h, h, 3), projector(wp, {}, h, d);
    for (const auto &offsets : std::vector<std::vector<std::int64_t>>{{0, 130}, {0, 20, 20, 21, 70, 101, 111, 112, 113, 130}})
        for (const auto axis : {VectorJob::Axis::sequence, VectorJob::Axis::depth, VectorJob::Axis::grid})
            for (const bool started : {false, true}) {
                const std::int64_t n = offsets.back(), sequences = static_cast<std::int64_t>(offsets.size()) - 1;
                const auto x = normals(n * d, 1, 6), below = normals(n * h, 0.5, 7), start = normals(sequences * h, 0.5, 8);
                std::vector<float> r(static_cast<std::size_t>(n * h)), e(r.size()), end(start.size()), scratch;
                VectorJob job;
                job.axis = axis;
                job.input = &input;
                job.recurrent = &recurrent;
                job.projector = &projector;
                job.x = x.data();
                job.n = n;
                job.width = h;
                job.offsets = offsets;
                job.start = started ? start.data() : nullptr;
                job.end = end.data();
                job.startStride = job.endStride = h;
                job.below = started ? below.data() : nullptr;
                job.routing = r.data();
                job.expression = e.data();
                computeVectors(job, scratch, Executor::serial());
                const auto expected = gruReference(job, d, wi, wh, bi, bh);
                for (std::size_t i = 0; i < r.size(); ++i)
                    ASSERT_NEAR(static_cast<double>(r[i]), expected[i], 3e-6) << i;
                double sum = 0;
                for (std::int64_t k = 0; k < d; ++k)
                    sum += static_cast<double>(wp[static_cast<std::size_t>(3 * d + k)]) * static_cast<double>(x[static_cast<std::size_t>(9 * d + k)]);
                EXPECT_NEAR(static_cast<double>(e[static_cast<std::size_t>(9 * h + 3)]), sum, 1e-5);
                if (axis != VectorJob::Axis::depth)
                    for (std::int64_t s = 0; s < sequences; ++s)
                        for (std::int64_t i = 0; i < h; ++i) {
                            const std::int64_t last = offsets[static_cast<std::size_t>(s) + 1] - 1;
                            const bool none = offsets[static_cast<std::size_t>(s)] > last;
                            const float expectedEnd = none ? (started ? start[static_cast<std::size_t>(s * h + i)] : 0.f) : r[static_cast<std::size_t>(last * h + i)];
                            ASSERT_EQ(end[static_cast<std::size_t>(s * h + i)], expectedEnd);
                        }
                const auto kept = r, keptExpression = e;
                for (const int threads : {2, 5}) {
                    setThreadCount(threads);
                    std::fill(r.begin(), r.end(), 0.f);
                    computeVectors(job, scratch, Executor::pool());
                    EXPECT_EQ(r, kept) << threads << " threads";
                    EXPECT_EQ(e, keptExpression) << threads << " threads";
                }
                setThreadCount(0);
            }
}

TEST_P(EveryLevel, CosinesAreFlooredAndRight)
{
    for (const std::int64_t dim : {1, 3, 16, 31, 128}) {
        const std::int64_t experts = 5;
        auto r = normals(experts * dim, 1, 1), x = normals(experts * dim, 1, 2);
        std::fill_n(r.begin(), dim, 0.f);
        std::vector<float> s(5);
        similarity(r, x, 1, experts, dim, s);
        EXPECT_EQ(s[0], 0.f) << "a zero vector has similarity 0";
        for (std::int64_t e = 1; e < experts; ++e) {
            double rx = 0, rr = 0, xx = 0;
            for (std::int64_t i = e * dim; i < (e + 1) * dim; ++i) {
                const auto a = static_cast<double>(r[static_cast<std::size_t>(i)]), b = static_cast<double>(x[static_cast<std::size_t>(i)]);
                rx += a * b;
                rr += a * a;
                xx += b * b;
            }
            EXPECT_NEAR(static_cast<double>(s[static_cast<std::size_t>(e)]), rx / std::sqrt(rr * xx), 1e-6);
        }
    }
}

TEST(Osr, TheFusedRuleEqualsItsParts)
{
    const std::int64_t n = 300, e = 9;
    auto s = normals(n * e, 0.4, 1);
    for (float &v : s)
        v = std::clamp(v, -1.f, 1.f);
    const auto mean = normals(e * 5, 1, 2), g = normals(e, 0.5, 3);
    std::vector<float> gramMatrix(81), r(81), cost(s.size()), q(s.size()), c2(s.size()), q2(s.size()), q3(s.size());
    gram(mean, e, 5, gramMatrix);
    repulsionMatrix(gramMatrix, e, r);
    const OsrOptions options;
    causalRule(s, r, g, n, e, options, cost, q);
    osrCost(s, r, n, e, options, c2);
    softmaxRows(c2, g, n, e, -1 / options.epsilon, false, q2);
    causalRule(s, r, g, n, e, options, {}, q3);
    EXPECT_EQ(cost, c2);
    EXPECT_EQ(q, q2);
    EXPECT_EQ(q, q3);
    for (std::int64_t i = 0; i < e; ++i)
        EXPECT_EQ(r[static_cast<std::size_t>(i * e + i)], 0.f);
    // row by row gives the same bits as all at once
    for (std::int64_t t = 0; t < n; ++t) {
        std::vector<float> one(static_cast<std::size_t>(e));
        causalRule(std::span<const float>(s).subspan(static_cast<std::size_t>(t * e), static_cast<std::size_t>(e)), r, g, 1, e, options, {}, one);
        for (std::int64_t i = 0; i < e; ++i)
            ASSERT_EQ(one[static_cast<std::size_t>(i)], q[static_cast<std::size_t>(t * e + i)]);
    }
}

TEST(Osr, FreshBuffersMeanNoRepulsion)
{
    const std::vector<float> mean(12, 0.f), s = {0.5f, -0.2f, 0.9f};
    std::vector<float> g(9), r(9), cost(3);
    gram(mean, 3, 4, g);
    repulsionMatrix(g, 3, r);
    for (const float v : r)
        EXPECT_EQ(v, 0.f);
    osrCost(s, r, 1, 3, {}, cost);
    EXPECT_FLOAT_EQ(cost[0], -0.5f);
    EXPECT_FLOAT_EQ(cost[1], 0.2f);
    EXPECT_FLOAT_EQ(cost[2], -0.9f + 0.5f * 0.04f);
}

TEST(Osr, OptionsSayWhatIsWrong)
{
    std::string why;
    OsrOptions o;
    EXPECT_TRUE(o.isValid());
    o.epsilon = -1;
    EXPECT_FALSE(o.isValid(&why));
    EXPECT_NE(why.find("sinkhorn_epsilon"), std::string::npos);
    o = {};
    o.confidenceThreshold = 2;
    EXPECT_FALSE(o.isValid(&why));
    EXPECT_NE(why.find("osr_confidence_threshold"), std::string::npos);
}

} // namespace
} // namespace spectra::rule
