// SPDX-License-Identifier: GPL-3.0-or-later
// The fused GRU: states and every gradient equal the composition of torch's operations, whatever the shapes, threads and split.
#include "engine/core/parallel.h"
#include "engine/router/grufunction.h"
#include "engine/router/spectratensors.h"
#include "engine/rule/grutraining.h"
#include "engine/rule/kernels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace spectra {
namespace {

namespace ts = tensors;

struct Case {
    std::vector<std::int64_t> lengths;
    std::int64_t width = 16;
    bool grid = false;
};

struct Leaves {
    torch::Tensor gi, start, depth, weight, bias;
    std::vector<torch::Tensor> all() const
    {
        std::vector<torch::Tensor> list{gi, start, weight, bias};
        if (depth.defined())
            list.push_back(depth);
        return list;
    }
};

std::vector<std::int64_t> offsetsOf(const Case &c)
{
    std::vector<std::int64_t> offsets{0};
    for (const std::int64_t n : c.lengths)
        offsets.push_back(offsets.back() + n);
    return offsets;
}

Leaves leaves(const Case &c, torch::Dtype type = torch::kFloat32)
{
    torch::manual_seed(3);
    const auto offsets = offsetsOf(c);
    const auto s = static_cast<std::int64_t>(c.lengths.size());
    const auto leaf = [&](std::vector<std::int64_t> shape, double scale) {
        return (torch::randn(shape, torch::kFloat64) * scale).to(type).requires_grad_(true);
    };
    Leaves l;
    l.gi = leaf({offsets.back(), 3 * c.width}, 1);
    l.start = leaf({s, c.width}, 0.5);
    l.weight = leaf({3 * c.width, c.width}, 1.0 / std::sqrt(static_cast<double>(c.width)));
    l.bias = leaf({3 * c.width}, 0.3);
    if (c.grid)
        l.depth = leaf({offsets.back(), c.width}, 0.5);
    return l;
}

struct Outcome {
    torch::Tensor h, last;
    std::vector<torch::Tensor> gradients;
};

template <typename F> Outcome differentiate(const Case &c, const Leaves &l, bool useH, bool useLast, const F &gru)
{
    Outcome out;
    out.h = gru(l.gi, offsetsOf(c), l.start, l.depth, l.weight, l.bias, out.last);
    torch::manual_seed(4); // the same weighting for every form and precision
    const auto a = torch::randn(out.h.sizes(), torch::kFloat64).to(out.h.dtype()), b = torch::randn(out.last.sizes(), torch::kFloat64).to(out.h.dtype());
    auto loss = l.gi.sum() * 0; // a graph even where there are no rows
    if (useH)
        loss = loss + (out.h * a).sum();
    if (useLast)
        loss = loss + (out.last * b).sum();
    out.gradients = torch::autograd::grad({loss}, l.all(), {}, false, false, true);
    for (std::size_t i = 0; i < out.gradients.size(); ++i)
        if (!out.gradients[i].defined())
            out.gradients[i] = torch::zeros_like(l.all()[i]);
    return out;
}

double distance(const torch::Tensor &a, const torch::Tensor &b)
{
    if (a.numel() == 0)
        return 0;
    const auto x = a.to(torch::kFloat64), y = b.to(torch::kFloat64);
    return ((x - y).abs().max() / (y.abs().max() + 1e-6)).item<double>();
}

const std::vector<Case> kCases = {
    {{5, 5, 5, 5, 5, 5, 5, 5}, 64},
    {{7, 3, 9, 1, 12}, 32},
    {{7, 3, 9, 1, 12}, 20, true},
    {{13}, 96},
    {{13}, 48, true},
    {{1, 1, 1}, 33},
    {{0, 4, 0, 6, 0}, 24},
    {{0, 4, 0, 6, 0}, 24, true},
    {{0, 0}, 16},
    {{40, 300, 20}, 40, true}, // more rows than one block of the weight's gradient
};

std::string name(const Case &c)
{
    std::string text = "width " + std::to_string(c.width) + (c.grid ? " grid" : "") + " lengths";
    for (const std::int64_t n : c.lengths)
        text += " " + std::to_string(n);
    return text;
}

TEST(SpectraGru, StatesAndGradientsEqualTheComposition)
{
    const char *const names[] = {"gi", "start", "weight", "bias", "depth"};
    for (const Case &c : kCases)
        for (const auto &[useH, useLast] : std::vector<std::pair<bool, bool>>{{true, true}, {true, false}, {false, true}}) {
            const auto fused = differentiate(c, leaves(c), useH, useLast, ts::fusedGruOverTokens);
            const auto exact = differentiate(c, leaves(c, torch::kFloat64), useH, useLast, ts::composed::gruOverTokens);
            EXPECT_LT(distance(fused.h, exact.h), 2e-6) << name(c);
            EXPECT_LT(distance(fused.last, exact.last), 2e-6) << name(c);
            for (std::size_t i = 0; i < fused.gradients.size(); ++i)
                EXPECT_LT(distance(fused.gradients[i], exact.gradients[i]), 1e-5) << name(c) << ": " << names[i] << (useH ? " h" : "") << (useLast ? " last" : "");
        }
}

TEST(SpectraGru, EveryProcessorLevelGivesTheSameGradients)
{
    for (const rule::Level level : {rule::Level::baseline, rule::Level::v3, rule::Level::v4}) {
        if (level > rule::bestLevel())
            continue;
        rule::setLevel(level);
        for (const Case &c : {Case{{9, 9, 9, 9, 9, 9, 9, 9, 9}, 72, true}, Case{{300}, 40}}) {
            const auto fused = differentiate(c, leaves(c), true, true, ts::fusedGruOverTokens);
            const auto exact = differentiate(c, leaves(c, torch::kFloat64), true, true, ts::composed::gruOverTokens);
            for (std::size_t i = 0; i < fused.gradients.size(); ++i)
                EXPECT_LT(distance(fused.gradients[i], exact.gradients[i]), 1e-5) << name(c) << " level " << static_cast<int>(level) << " gradient " << i;
        }
    }
    rule::setLevel(rule::bestLevel());
}

TEST(SpectraGru, OneStepEqualsTheComposition)
{
    for (const std::int64_t width : {12, 64, 96}) {
        torch::manual_seed(6);
        std::vector<torch::Tensor> exact{torch::randn({37, 3 * width}, torch::kFloat64), torch::randn({37, width}, torch::kFloat64),
                                         torch::randn({3 * width, width}, torch::kFloat64) / std::sqrt(static_cast<double>(width)),
                                         torch::randn({3 * width}, torch::kFloat64)};
        std::vector<torch::Tensor> single;
        for (auto &t : exact) {
            single.push_back(t.to(torch::kFloat32).requires_grad_(true));
            t.requires_grad_(true);
        }
        const auto a = torch::randn({37, width}, torch::kFloat64);
        const auto h = ts::gruStep(single[0], single[1], single[2], single[3]), e = ts::composed::gruStep(exact[0], exact[1], exact[2], exact[3]);
        EXPECT_LT(distance(h, e), 2e-6);
        const auto got = torch::autograd::grad({(h * a.to(torch::kFloat32)).sum()}, single), want = torch::autograd::grad({(e * a).sum()}, exact);
        for (std::size_t i = 0; i < got.size(); ++i)
            EXPECT_LT(distance(got[i], want[i]), 1e-5) << "width " << width << " gradient " << i;
    }
}

TEST(SpectraGru, FrozenWeightsTakeNoGradientAndNothingIsKeptWithoutOne)
{
    const Case c{{6, 6}, 32};
    Leaves l = leaves(c);
    l.weight = l.weight.detach();
    l.bias = l.bias.detach();
    torch::Tensor last;
    const auto h = ts::gruOverTokens(l.gi, offsetsOf(c), l.start, {}, l.weight, l.bias, last);
    h.sum().backward();
    EXPECT_TRUE(l.gi.grad().defined());
    EXPECT_FALSE(l.weight.grad().defined());
    const torch::NoGradGuard noGrad;
    const auto again = ts::gruOverTokens(l.gi, offsetsOf(c), l.start, {}, l.weight, l.bias, last);
    EXPECT_FALSE(again.requires_grad());
    EXPECT_TRUE(torch::equal(h, again));
}

TEST(SpectraGru, EveryBitIsTheSameForAnyThreadsAndSplit)
{
    for (const Case &c : {Case{{30, 30, 30, 30, 30}, 96, true}, Case{{50, 7, 0, 21}, 72}, Case{{40}, 160}}) {
        const Leaves l = leaves(c);
        const auto offsets = offsetsOf(c);
        const std::int64_t n = offsets.back(), w = c.width, s = l.start.size(0);
        std::vector<torch::Tensor> first;
        for (const int threads : {1, 2, 3, 5}) {
            setThreadCount(threads);
            for (const auto split : {rule::GruSplit::automatic, rule::GruSplit::sequences, rule::GruSplit::columns}) {
                std::vector<torch::Tensor> out;
                for (const auto &shape : std::vector<std::vector<std::int64_t>>{{n, w}, {s, w}, {n, w}, {n, 4 * w}, {n, 3 * w}, {s, w}, {n, w}, {3 * w, w}, {3 * w}})
                    out.push_back(torch::full(shape, 7.0f));
                const auto p = [&](std::size_t i) { return out[i].data_ptr<float>(); };
                const rule::GruSequences gru{w, offsets, l.weight.const_data_ptr<float>(), l.bias.const_data_ptr<float>()};
                rule::gruForward(gru, {l.gi.const_data_ptr<float>(), l.start.const_data_ptr<float>(), c.grid ? l.depth.const_data_ptr<float>() : nullptr, p(0),
                                       p(1), p(2), p(3)},
                                 rule::Executor::pool(), split);
                rule::gruBackward(gru, {p(2), p(3), p(0), p(1), p(4), p(5), c.grid ? p(6) : nullptr, p(7), p(8)}, rule::Executor::pool(), split);
                if (first.empty())
                    first = out;
                for (std::size_t i = 0; i < out.size(); ++i)
                    EXPECT_TRUE(torch::equal(out[i], first[i])) << name(c) << " threads " << threads << " split " << static_cast<int>(split) << " output " << i;
            }
        }
    }
    setThreadCount(0);
}

} // namespace
} // namespace spectra
