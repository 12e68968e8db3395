// SPDX-License-Identifier: GPL-3.0-or-later
// The CPU kernels against torch in double precision, at sizes that leave remainders of every vector width.
#include "engine/core/parallel.h"
#include "engine/model/attention.h"
#include "engine/model/kernels.h"
#include "engine/model/rope.h"
#include "tests/engine/model/support.h"

namespace spectra {
namespace {

torch::Tensor normal(std::vector<std::int64_t> shape, std::uint64_t seed)
{
    Random random(seed);
    torch::Tensor t = torch::empty(shape, torch::kFloat32);
    for (std::int64_t i = 0; i < t.numel(); ++i)
        t.data_ptr<float>()[i] = static_cast<float>(random.normal());
    return t;
}

TEST(Kernels, GemvEqualsMatrixProduct)
{
    for (const auto &[out, in] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 17}, {5, 576}, {130, 63}, {513, 1536}})
        for (std::int64_t rows = 1; rows <= kernels::kGemvRows; ++rows) {
            const torch::Tensor w = normal({out, in}, 1), x = normal({rows, in}, 2), b = normal({out}, 3);
            const torch::Tensor expected = at::linear(x.to(torch::kFloat64), w.to(torch::kFloat64), b.to(torch::kFloat64));
            torch::Tensor y = torch::full({rows, out}, 2.0f);
            kernels::gemv(y.data_ptr<float>(), w.data_ptr<float>(), x.data_ptr<float>(), b.data_ptr<float>(), rows, out, in, false);
            EXPECT_LE(test::maxDifference(y, expected), 1e-5 * std::sqrt(static_cast<double>(in)) + 1e-6) << out << "x" << in << " rows " << rows;
            kernels::gemv(y.data_ptr<float>(), w.data_ptr<float>(), x.data_ptr<float>(), b.data_ptr<float>(), rows, out, in, true);
            EXPECT_LE(test::maxDifference(y, expected * 2), 2e-5 * std::sqrt(static_cast<double>(in)) + 1e-6);
            const torch::Tensor half = w.to(torch::kBFloat16);
            const torch::Tensor rounded = at::linear(x.to(torch::kFloat64), half.to(torch::kFloat64), b.to(torch::kFloat64));
            kernels::gemv(y.data_ptr<float>(), static_cast<const kernels::bfloat *>(half.data_ptr()), x.data_ptr<float>(), b.data_ptr<float>(), rows,
                          out, in, false);
            EXPECT_LE(test::maxDifference(y, rounded), 1e-5 * std::sqrt(static_cast<double>(in)) + 1e-6);
        }
}

TEST(Kernels, ResultsDoNotDependOnTheNumberOfThreads)
{
    const torch::Tensor w = normal({1537, 640}, 1), x = normal({2, 640}, 2), v = normal({1537, 640}, 5);
    const auto run = [&] {
        torch::Tensor y = torch::empty({2, 1537}), many = torch::empty({3, 1537});
        kernels::gemv(y.data_ptr<float>(), w.data_ptr<float>(), x.data_ptr<float>(), nullptr, 2, 1537, 640, false);
        std::vector<kernels::GemvJob> jobs;
        for (int j = 0; j < 3; ++j)
            jobs.push_back({many.data_ptr<float>() + j * 1537, j == 1 ? v.data_ptr() : w.data_ptr(), x.data_ptr<float>() + (j % 2) * 640});
        kernels::gemvMany(jobs.data(), 3, 1537, 640, false);
        EXPECT_LE(test::maxDifference(many.narrow(0, 1, 1), at::mm(x.narrow(0, 1, 1), v.t())), 1e-3);
        EXPECT_LE(test::maxDifference(many.narrow(0, 2, 1), at::mm(x.narrow(0, 0, 1), w.t())), 1e-3);
        return torch::cat({y, many}, 0);
    };
    setThreadCount(1);
    const torch::Tensor one = run();
    setThreadCount(3);
    const torch::Tensor three = run();
    setThreadCount(0);
    EXPECT_TRUE(torch::equal(one, three));
}

TEST(Kernels, NormActivationAndLogSumExpEqualTheirFormulas)
{
    const torch::Tensor x = normal({7, 334}, 4) * 3, w = normal({334}, 5);
    torch::Tensor y = torch::empty_like(x);
    kernels::rmsNorm(y.data_ptr<float>(), x.data_ptr<float>(), w.data_ptr<float>(), 1e-5, 7, 334);
    const torch::Tensor d = x.to(torch::kFloat64);
    EXPECT_LE(test::maxDifference(y, d * (d.square().mean(1, true) + 1e-5).rsqrt() * w), 1e-5);

    torch::Tensor active = torch::empty({7, 167});
    const torch::Tensor wide = x * 20; // far into both tails of the sigmoid
    kernels::siluMultiply(active.data_ptr<float>(), wide.data_ptr<float>(), 7, 167);
    const torch::Tensor gate = wide.narrow(1, 0, 167).to(torch::kFloat64), up = wide.narrow(1, 167, 167).to(torch::kFloat64);
    const torch::Tensor silu = gate * gate.sigmoid() * up;
    EXPECT_LE(((active - silu).abs() / (silu.abs() + 1e-3)).max().item<double>(), 2e-6);

    std::vector<float> lse(7);
    std::vector<std::int32_t> top(7);
    const torch::Tensor ties = x.clone();
    ties[2][9] = ties[2][300] = 50;
    kernels::logSumExp(ties.data_ptr<float>(), 7, 334, lse.data(), top.data());
    for (int r = 0; r < 7; ++r) {
        EXPECT_NEAR(lse[static_cast<std::size_t>(r)], ties[r].to(torch::kFloat64).logsumexp(0).item<double>(), 1e-5);
        if (r != 2) {
            EXPECT_EQ(top[static_cast<std::size_t>(r)], ties[r].argmax().item<std::int64_t>());
        }
    }
    EXPECT_EQ(top[2], 9);

    // What is not a number stays so and names a token that exists.
    const torch::Tensor broken = torch::full({1, 334}, std::numeric_limits<float>::quiet_NaN());
    kernels::logSumExp(broken.data_ptr<float>(), 1, 334, lse.data(), top.data());
    EXPECT_TRUE(std::isnan(lse[0]));
    EXPECT_EQ(top[0], 0);
    kernels::siluMultiply(active.data_ptr<float>(), broken.data_ptr<float>(), 1, 167);
    EXPECT_TRUE(active[0].isnan().all().item<bool>());
}

/// Attention written as the formula says, in double precision.
torch::Tensor attentionByFormula(const torch::Tensor &qkv, const AttentionShape &s)
{
    const std::int64_t n = qkv.size(0);
    const torch::Tensor d = qkv.to(torch::kFloat64);
    torch::Tensor out = torch::zeros({n, s.queryWidth()}, torch::kFloat64);
    for (std::int64_t h = 0; h < s.heads; ++h) {
        const std::int64_t kv = h / (s.heads / s.kvHeads);
        const torch::Tensor q = d.narrow(1, h * s.headDim, s.headDim), k = d.narrow(1, s.queryWidth() + kv * s.headDim, s.headDim);
        const torch::Tensor v = d.narrow(1, s.queryWidth() + s.keyWidth() + kv * s.headDim, s.headDim);
        torch::Tensor scores = at::mm(q, k.t()) / std::sqrt(static_cast<double>(s.headDim));
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t j = 0; j < n; ++j)
                if (j > i || (s.window > 0 && j <= i - s.window))
                    scores[i][j] = -INFINITY;
        out.narrow(1, h * s.headDim, s.headDim).copy_(at::mm(scores.softmax(1), v));
    }
    return out;
}

TEST(Attention, EveryWayOfCuttingEqualsTheFormula)
{
    for (const AttentionShape s : {AttentionShape{4, 2, 8, 0}, AttentionShape{6, 2, 20, 0}, AttentionShape{3, 3, 16, 5}, AttentionShape{4, 1, 16, 9}}) {
        const std::int64_t n = 24;
        const torch::Tensor qkv = normal({n, s.width()}, 7);
        const torch::Tensor expected = attentionByFormula(qkv, s);
        for (const std::vector<std::int64_t> &cuts : {std::vector<std::int64_t>{24}, {10, 14}, {1, 1, 6, 16}, {8, 1, 1, 2, 12}, {20, 1, 1, 1, 1}}) {
            torch::Tensor keys = torch::full({s.kvHeads, 40, s.headDim}, NAN), values = torch::full({s.kvHeads, 40, s.headDim}, NAN);
            torch::Tensor out = torch::full({n, s.queryWidth()}, NAN);
            std::int64_t at = 0;
            for (const std::int64_t c : cuts) {
                attend(out, qkv, at, c, keys, values, at, s, false);
                at += c;
            }
            EXPECT_LE(test::maxDifference(out, expected), 2e-6) << s.heads << " heads, window " << s.window << ", " << cuts.size() << " cuts";
        }
    }
}

TEST(Rope, DynamicScalingStretchesTheBaseBeyondTheContext)
{
    ModelConfig c;
    c.headDim = 8;
    c.context = 64;
    c.rope.theta = 10000;
    c.rope.scaling = "dynamic";
    c.rope.factor = 2;
    const auto rope = Rope::make(c);
    ASSERT_TRUE(rope.ok());
    EXPECT_EQ(rope->frequencies(64), rope->frequencies(1));
    // base·(factor·length/context − (factor − 1))^(d/(d−2)) at length 128: base·3^(4/3).
    const double base = 10000 * std::pow(3.0, 8.0 / 6.0);
    const auto f = rope->frequencies(128);
    for (std::size_t j = 0; j < 4; ++j)
        EXPECT_NEAR(f[j] * std::pow(base, 2.0 * static_cast<double>(j) / 8), 1, 1e-5);
    c.rope.scaling = "unheard-of";
    EXPECT_EQ(Rope::make(c).error().kind, ErrorKind::input);
}

TEST(Attention, LongSequencesInBlocksEqualTheFormula)
{
    for (const AttentionShape s : {AttentionShape{4, 2, 16, 0}, AttentionShape{2, 1, 16, 37}, AttentionShape{2, 2, 16, 200}}) {
        const std::int64_t n = 300;
        const torch::Tensor qkv = normal({n, s.width()}, 8) * 2;
        torch::Tensor expected = torch::zeros({n, s.queryWidth()}, torch::kFloat64);
        for (std::int64_t h = 0; h < s.heads; ++h) {
            const torch::Tensor d = qkv.to(torch::kFloat64);
            const std::int64_t kv = h / (s.heads / s.kvHeads);
            torch::Tensor scores = at::mm(d.narrow(1, h * 16, 16), d.narrow(1, s.queryWidth() + kv * 16, 16).t()) / 4;
            const torch::Tensor i = torch::arange(n).unsqueeze(1), j = torch::arange(n).unsqueeze(0);
            torch::Tensor hidden = j > i;
            if (s.window > 0)
                hidden = hidden.logical_or(j <= i - s.window);
            expected.narrow(1, h * 16, 16).copy_(
                at::mm(scores.masked_fill(hidden, -INFINITY).softmax(1), d.narrow(1, s.queryWidth() + s.keyWidth() + kv * 16, 16)));
        }
        for (const std::vector<std::int64_t> &cuts : {std::vector<std::int64_t>{300}, {150, 150}, {3, 130, 167}}) {
            torch::Tensor keys = torch::full({s.kvHeads, 320, s.headDim}, NAN), values = torch::full({s.kvHeads, 320, s.headDim}, NAN);
            torch::Tensor out = torch::full({n, s.queryWidth()}, NAN);
            std::int64_t at = 0;
            for (const std::int64_t c : cuts) {
                attend(out, qkv, at, c, keys, values, at, s, false);
                at += c;
            }
            // Scores reach 50, whose f32 rounding alone moves a weight by 6e-6.
            EXPECT_LE(test::maxDifference(out, expected), 2e-5) << s.window << ", " << cuts.size() << " cuts";
        }
    }
}

} // namespace
} // namespace spectra
