// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/qkclip.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace spectra::test {
namespace {

constexpr std::int64_t kHeads = 6, kDim = 4, kHidden = 10;

struct Projection {
    std::int64_t kvHeads;
    torch::Tensor weight, bias, x;

    explicit Projection(std::int64_t kv) : kvHeads(kv)
    {
        const auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
        weight = torch::randn({(kHeads + 2 * kv) * kDim, kHidden}, generator).requires_grad_();
        bias = torch::randn({(kHeads + 2 * kv) * kDim}, generator);
        x = torch::randn({20, kHidden}, generator) * 2;
    }
    /// q·k/√d of all pairs of tokens, [heads, T, T]: without rotation, which keeps lengths.
    torch::Tensor logits() const
    {
        const torch::NoGradGuard noGrad;
        const auto y = torch::matmul(x, weight.t()) + bias;
        const auto q = y.narrow(1, 0, kHeads * kDim).view({20, kHeads, kDim}).transpose(0, 1);
        const auto k = y.narrow(1, kHeads * kDim, kvHeads * kDim).view({20, kvHeads, kDim}).transpose(0, 1).repeat_interleave(kHeads / kvHeads, 0);
        return torch::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(kDim));
    }
    torch::Tensor largest() const { return logits().flatten(1).amax(1); }
};

TEST(QkClip, BringsEveryHeadToTheBoundAndNoLower)
{
    for (const std::int64_t kv : {6, 3, 2, 1}) {
        Projection p(kv);
        const auto before = p.largest(), values = p.weight.detach().narrow(0, (kHeads + kv) * kDim, kv * kDim).clone();
        const double tau = before.median().item<double>();
        const auto expected = torch::clamp_max(tau / before, 1).view({kHeads, 1, 1}) * p.logits();
        EXPECT_EQ(qkClip(p.weight, p.bias, kHeads, kv, kDim, before, tau), (before > tau).sum().item<std::int64_t>());
        EXPECT_LE(p.largest().max().item<double>(), tau * (1 + 1e-5)) << kv;
        EXPECT_TRUE(torch::allclose(p.logits(), expected, 1e-4, 1e-4)) << "each head by its own factor, " << kv;
        EXPECT_TRUE(torch::equal(values, p.weight.detach().narrow(0, (kHeads + kv) * kDim, kv * kDim))) << "values stay";
    }
}

TEST(QkClip, SplitsEvenlyWithoutSharedKeys)
{
    Projection p(kHeads);
    const auto before = p.weight.detach().clone();
    const auto largest = torch::tensor({8.0f, 1.0f, 32.0f, 2.0f, 0.0f, -5.0f});
    EXPECT_EQ(qkClip(p.weight, {}, kHeads, kHeads, kDim, largest, 2), 2);
    const std::vector<float> factors = {0.5f, 1, 0.25f, 1, 1, 1};
    for (int part = 0; part < 2; ++part)
        for (int h = 0; h < kHeads; ++h) {
            const int row = (part * static_cast<int>(kHeads) + h) * static_cast<int>(kDim);
            EXPECT_TRUE(torch::equal(p.weight.detach().narrow(0, row, kDim), before.narrow(0, row, kDim) * factors[static_cast<std::size_t>(h)])) << part << h;
        }
}

TEST(QkClip, LeavesQuietHeadsAlone)
{
    const float nan = std::numeric_limits<float>::quiet_NaN(), infinite = std::numeric_limits<float>::infinity();
    Projection p(2);
    const auto before = p.weight.detach().clone();
    EXPECT_EQ(qkClip(p.weight, p.bias, kHeads, 2, kDim, torch::tensor({1.0f, nan, infinite, -infinite, 100.0f, 0.0f}), 100), 0);
    EXPECT_TRUE(torch::equal(p.weight.detach(), before));
}

} // namespace
} // namespace spectra::test
