// SPDX-License-Identifier: GPL-3.0-or-later
// Every operation of a training pass against a composition of torch's own, values and gradients.
#include "engine/train/trainexperts.h"
#include "engine/train/trainops.h"
#include "engine/train/traintasks.h"
#include "tests/engine/train/trainmodelsupport.h"

#include <ATen/CPUGeneratorImpl.h>

#include <functional>

namespace spectra::train {
namespace {

using torch::Tensor;

torch::Generator generator(std::uint64_t seed = 3)
{
    return at::detail::createCPUGenerator(seed);
}

Tensor leaf(std::vector<std::int64_t> shape, torch::Generator &random, double scale = 1)
{
    return (torch::randn(shape, random) * scale).set_requires_grad(true);
}

/// Runs both with a random gradient of the result, compares results and the gradients of every leaf; then once more, since ours add
/// to what is there.
void expectSame(const std::vector<Tensor> &leaves, const std::function<Tensor()> &ours, const std::function<Tensor()> &plain, double tolerance = 1e-4)
{
    torch::Generator random = generator(11);
    const auto clear = [&] {
        for (const Tensor &t : leaves)
            t.mutable_grad() = Tensor();
    };
    const Tensor wanted = plain();
    const Tensor seed = torch::randn(wanted.sizes(), random);
    clear();
    wanted.backward(seed);
    std::vector<Tensor> gradients;
    for (const Tensor &t : leaves)
        gradients.push_back(t.grad().clone());
    clear();
    const Tensor got = ours();
    EXPECT_LE(test::maxDifference(got, wanted), tolerance);
    got.backward(seed);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        ASSERT_TRUE(leaves[i].grad().defined()) << "leaf " << i;
        const double size = std::max(1.0, gradients[i].abs().max().item<double>());
        EXPECT_LE(test::maxDifference(leaves[i].grad(), gradients[i]), tolerance * size) << "leaf " << i;
    }
    ours().backward(seed);
    for (std::size_t i = 0; i < leaves.size(); ++i) {
        const double size = std::max(1.0, gradients[i].abs().max().item<double>());
        EXPECT_LE(test::maxDifference(leaves[i].grad(), 2 * gradients[i]), 2 * tolerance * size) << "leaf " << i << ", second pass";
    }
}

TEST(TrainOps, Embedding)
{
    auto random = generator();
    const Tensor table = leaf({7, 5}, random), ids = torch::tensor({3, 0, 3, 6, 3, 1}, torch::kInt64);
    expectSame({table}, [&] { return embed(table, ids); }, [&] { return torch::embedding(table, ids); });
}

TEST(TrainOps, RmsNorm)
{
    auto random = generator();
    for (const std::int64_t width : {5, 32, 77}) {
        const Tensor x = leaf({150, width}, random), w = leaf({width}, random);
        expectSame({x, w}, [&] { return rmsNorm(x, w, 1e-5); },
                   [&] { return x * torch::rsqrt(x.square().mean(-1, true) + 1e-5) * w; });
    }
}

TEST(TrainOps, Linear)
{
    auto random = generator();
    const Tensor x = leaf({300, 24}, random), w = leaf({70, 24}, random, 0.3), b = leaf({70}, random), r = leaf({300, 70}, random);
    expectSame({x, w}, [&] { return linear({}, x, w, {}, false); }, [&] { return torch::linear(x, w); });
    expectSame({x, w, b, r}, [&] { return linear(r, x, w, b, false); }, [&] { return r + torch::linear(x, w, b); });
    // What is not trained gets no gradient, and the others theirs.
    w.set_requires_grad(false);
    w.mutable_grad() = Tensor();
    expectSame({x, b}, [&] { return linear({}, x, w, b, false); }, [&] { return torch::linear(x, w, b); });
    EXPECT_FALSE(w.grad().defined());
}

Tensor plainRotated(const Tensor &t, const Tensor &cos, const Tensor &sin)
{
    const std::int64_t half = cos.size(1), rest = t.size(3) - 2 * half;
    const Tensor a = t.narrow(3, 0, half), b = t.narrow(3, half, half);
    return torch::cat({a * cos - b * sin, b * cos + a * sin, t.narrow(3, 2 * half, rest)}, 3);
}

Tensor plainScores(const Tensor &qkv, const Tensor &cos, const Tensor &sin, const AttentionSizes &s, Tensor &values)
{
    const Tensor rows = qkv.view({s.sequences, s.length, s.heads + 2 * s.kvHeads, s.headDim}).transpose(1, 2);
    const std::int64_t group = s.heads / s.kvHeads;
    const Tensor q = plainRotated(rows.narrow(1, 0, s.heads), cos, sin);
    const Tensor k = plainRotated(rows.narrow(1, s.heads, s.kvHeads), cos, sin).repeat_interleave(group, 1);
    values = rows.narrow(1, s.heads + s.kvHeads, s.kvHeads).repeat_interleave(group, 1);
    Tensor seen = torch::ones({s.length, s.length}, torch::kBool).tril();
    if (s.window > 0)
        seen = seen.logical_and(torch::ones({s.length, s.length}, torch::kBool).triu(1 - s.window));
    return (q.matmul(k.transpose(2, 3)) / std::sqrt(static_cast<double>(s.headDim))).masked_fill(seen.logical_not(), -INFINITY);
}

TEST(TrainOps, Attention)
{
    auto random = generator();
    for (const AttentionSizes &s : {AttentionSizes{2, 37, 4, 4, 8, 0}, AttentionSizes{3, 20, 6, 2, 10, 0}, AttentionSizes{1, 90, 2, 1, 16, 7},
                                    AttentionSizes{2, 1, 2, 2, 4, 0}}) {
        const std::int64_t half = s.headDim == 10 ? 3 : s.headDim / 2; // with entries that do not turn
        const Tensor angle = torch::randn({s.length, half}, random), cos = angle.cos() * 1.1, sin = angle.sin() * 1.1;
        const Tensor qkv = leaf({s.sequences * s.length, (s.heads + 2 * s.kvHeads) * s.headDim}, random);
        expectSame({qkv}, [&] { return attention(qkv, cos, sin, s, false); },
                   [&] {
                       Tensor values;
                       const Tensor p = torch::softmax(plainScores(qkv, cos, sin, s, values), -1);
                       return p.matmul(values).transpose(1, 2).reshape({s.sequences * s.length, s.heads * s.headDim});
                   });
        Tensor values;
        EXPECT_LE(test::maxDifference(largestLogits(qkv, cos, sin, s), plainScores(qkv.detach(), cos, sin, s, values).amax({0, 2, 3})), 1e-4);
    }
}

TEST(TrainOps, CrossEntropyWithTheHead)
{
    auto random = generator();
    for (const std::int64_t vocabulary : {40, 1100}) {
        const Tensor x = leaf({300, 12}, random), w = leaf({vocabulary, 12}, random);
        Tensor targets = torch::randint(0, vocabulary, {300}, random, torch::kInt64);
        targets[5] = targets[290] = -1;
        const auto plain = [&](const Tensor &h) { return torch::cross_entropy_loss(torch::linear(h, w), targets, {}, at::Reduction::Mean, -1); };
        expectSame({x, w}, [&] { return headLoss(x, w, targets, false).loss; }, [&] { return plain(x); }, 1e-5);
        const Tensor nll = headLoss(x, w, targets, false).nll;
        EXPECT_FALSE(nll.requires_grad());
        EXPECT_TRUE(std::isnan(nll[5].item<float>()) && std::isnan(nll[290].item<float>()));
        const Tensor each = torch::cross_entropy_loss(torch::linear(x, w), targets, {}, at::Reduction::None, -1);
        EXPECT_LE(test::maxDifference(nll.nan_to_num(), each), 1e-4);
        const torch::NoGradGuard noGrad;
        EXPECT_LE(test::maxDifference(headLoss(x, w, targets, false).nll.nan_to_num(), each), 1e-4);
    }
    const Tensor x = leaf({3, 4}, random), w = leaf({6, 4}, random);
    const HeadLoss none = headLoss(x, w, torch::full({3}, -1, torch::kInt64), false);
    none.loss.backward();
    EXPECT_EQ(none.loss.item<float>(), 0);
    EXPECT_EQ(x.grad().abs().max().item<float>(), 0);
}

/// The layer's experts, one token and slot after the other.
Tensor plainExperts(const Tensor &residual, const Tensor &x, const Tensor &weights, const Tensor &experts, const BankWeights &bank, double scale, bool onInput)
{
    std::vector<Tensor> rows;
    const std::int64_t intermediate = bank.down.size(2);
    for (std::int64_t t = 0; t < x.size(0); ++t) {
        Tensor y = residual[t];
        for (std::int64_t s = 0; s < experts.size(1); ++s) {
            const std::int64_t e = experts[t][s].item<std::int64_t>();
            if (e < 0)
                continue;
            const Tensor in = onInput ? x[t] * weights[t][s] : x[t];
            Tensor h = bank.gateUp[e].mv(in);
            if (bank.gateUpBias.defined())
                h = h + bank.gateUpBias[e];
            Tensor out = bank.down[e].mv(torch::silu(h.narrow(0, 0, intermediate)) * h.narrow(0, intermediate, intermediate));
            if (bank.downBias.defined())
                out = out + bank.downBias[e];
            y = y + (onInput ? out : out * weights[t][s]) * scale;
        }
        rows.push_back(y);
    }
    return torch::stack(rows);
}

TEST(TrainOps, Experts)
{
    auto random = generator();
    const std::int64_t n = 40, h = 12, i = 9, e = 5;
    const Tensor x = leaf({n, h}, random), residual = leaf({n, h}, random), weights = leaf({n, 3}, random);
    // Expert 2 gets nobody, some slots are empty.
    Tensor experts = torch::randint(0, 2, {n, 3}, random, torch::kInt64);
    experts.select(1, 1).fill_(3);
    experts.select(1, 2).fill_(4);
    experts[0][0] = experts[7][1] = experts[8][2] = experts[9][0] = experts[9][1] = experts[9][2] = -1;
    const Assignments a = assign(experts, e);
    EXPECT_EQ(a.rows(), 3 * n - 6);
    const BankWeights plain{leaf({e, 2 * i, h}, random, 0.4), leaf({e, h, i}, random, 0.4), {}, {}};
    BankWeights biased = plain;
    biased.gateUpBias = leaf({e, 2 * i}, random);
    biased.downBias = leaf({e, h}, random);
    for (const bool onInput : {false, true}) {
        const auto ours = [&](const BankWeights &bank) {
            const Tensor rows = expertRows(x, onInput ? weights : Tensor(), a, bank, false);
            return combine(residual, rows, onInput ? Tensor() : weights, a, 1.7);
        };
        expectSame({x, residual, weights, plain.gateUp, plain.down}, [&] { return ours(plain); },
                   [&] { return plainExperts(residual, x, weights, experts, plain, 1.7, onInput); });
        expectSame({x, residual, weights, plain.gateUp, plain.down, biased.gateUpBias, biased.downBias}, [&] { return ours(biased); },
                   [&] { return plainExperts(residual, x, weights, experts, biased, 1.7, onInput); });
    }
    // Only the weights are trained, as when all but the router is frozen.
    for (const Tensor &t : {x, residual, plain.gateUp, plain.down})
        t.set_requires_grad(false);
    expectSame({weights}, [&] { return combine(residual, expertRows(x, {}, a, plain, false), weights, a, 1); },
               [&] { return plainExperts(residual, x, weights, experts, plain, 1, false); });
}

TEST(TrainOps, OutputsAtTheirSlots)
{
    auto random = generator();
    const Tensor experts = torch::tensor({{1, 0}, {-1, 1}, {0, -1}}, torch::kInt64);
    const Assignments a = assign(experts, 2);
    const Tensor rows = leaf({4, 3}, random);
    const Tensor at = torch::tensor({2, 0, 4, 3, 1, 4}, torch::kInt64); // expert 0: tokens 0, 2; expert 1: tokens 0, 1
    expectSame({rows}, [&] { return slotOutputs(rows, a); },
               [&] { return torch::cat({rows, torch::zeros({1, 3})}).index_select(0, at).view({3, 2, 3}); });
}

TEST(TrainOps, DenseFfnIsOneExpert)
{
    auto random = generator();
    const Tensor x = leaf({30, 8}, random), r = leaf({30, 8}, random), w1 = leaf({12, 8}, random), w2 = leaf({8, 6}, random), b1 = leaf({12}, random),
                 b2 = leaf({8}, random);
    const Assignments all = assignAll(30);
    expectSame({x, r, w1, w2, b1, b2}, [&] { return combine(r, expertRows(x, {}, all, {w1, w2, b1, b2}, false), {}, all, 1); },
               [&] {
                   const Tensor h = torch::linear(x, w1, b1);
                   return r + torch::linear(torch::silu(h.narrow(1, 0, 6)) * h.narrow(1, 6, 6), w2, b2);
               });
}

TEST(TrainOps, GradientsAgreeWithFiniteDifferences)
{
    // Independent of torch's backward formulas: central differences of a scalar in one random direction per leaf.
    auto random = generator(5);
    const Tensor x = leaf({20, 8}, random), norm = leaf({8}, random), w1 = leaf({3, 10, 8}, random, 0.5), w2 = leaf({3, 8, 5}, random, 0.5),
                 qkv = leaf({24, 8}, random, 0.5), head = leaf({11, 8}, random), weights = leaf({20, 2}, random);
    const Tensor experts = torch::randint(0, 3, {20, 2}, random, torch::kInt64), targets = torch::randint(0, 11, {20}, random, torch::kInt64);
    const Tensor angle = torch::randn({10, 2}, random), cos = angle.cos(), sin = angle.sin();
    const Assignments a = assign(experts, 3);
    const AttentionSizes sizes{2, 10, 2, 2, 4, 0};
    const auto loss = [&] {
        const Tensor normed = rmsNorm(x, norm, 1e-5);
        const Tensor mixed = attention(linear({}, normed, qkv, {}, false), cos, sin, sizes, false);
        const Tensor out = combine(mixed, expertRows(normed, {}, a, {w1, w2, {}, {}}, false), weights, a, 1);
        return headLoss(out, head, targets, false).loss;
    };
    loss().backward();
    const torch::NoGradGuard noGrad;
    for (const Tensor &t : {x, norm, w1, w2, qkv, head, weights}) {
        const Tensor direction = torch::randn(t.sizes(), random);
        const double slope = (t.grad() * direction).sum().item<double>(), step = 2e-3;
        t.add_(direction, step);
        const double above = loss().item<double>();
        t.add_(direction, -2 * step);
        const double below = loss().item<double>();
        t.add_(direction, step);
        EXPECT_NEAR((above - below) / (2 * step), slope, 0.01 * std::abs(slope) + 2e-3);
    }
}

TEST(TrainOps, Bf16IsNearF32)
{
    if (!cpuHasFastBf16())
        GTEST_SKIP() << "this CPU has no fast bf16";
    auto random = generator();
    const Tensor x = leaf({100, 32}, random), w = leaf({48, 32}, random, 0.2);
    const Tensor exact = linear({}, x, w, {}, false).detach(), rounded = linear({}, x, w, {}, true);
    EXPECT_LE(test::maxDifference(exact, rounded), 0.1);
    EXPECT_GT(test::maxDifference(exact, rounded), 1e-4);
    rounded.sum().backward();
    EXPECT_LE(test::maxDifference(w.grad(), x.detach().sum(0).expand_as(w)), 1.0);
}

} // namespace
} // namespace spectra::train
