// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/engine/train/optimizersupport.h"

#include <ATen/CPUGeneratorImpl.h>

namespace spectra::test {
namespace {

TEST(Muon, EqualsTorchOverTwentySteps)
{
    const auto &expected = optimizerFixture();
    const auto parameters = fixtureParameters();
    const auto optimizer = optimizerOf(parameters, {.type = "muon"});
    fixtureSteps(*optimizer, parameters, 0, 1);
    for (const TrainParameter &p : parameters)
        EXPECT_LT(relativeDifference(p.value, expected.at("muon1." + p.name)), 1e-6) << p.name;
    fixtureSteps(*optimizer, parameters, 1, kFixtureSteps);
    for (const TrainParameter &p : parameters) {
        EXPECT_LT(relativeDifference(p.value, expected.at("muon20." + p.name)), 5e-6) << p.name;
        // torch as it comes, with its iteration rounded to bfloat16.
        EXPECT_LT(relativeDifference(p.value, expected.at("muonbf16_20." + p.name)), 5e-3) << p.name;
    }
}

TEST(Muon, StepHasNearlyEqualSingularValues)
{
    const auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    for (const auto &shape : {std::vector<std::int64_t>{40, 24}, {24, 40}, {3, 16, 32}}) {
        const auto parameters = std::vector{parameter("w", torch::zeros(shape), ParameterGroup::experts, true, true)};
        torch::Tensor(parameters[0].value).mutable_grad() = torch::randn(shape, generator) * 1e-3;
        const auto optimizer = optimizerOf(parameters, {.type = "muon"});
        optimizer->step({9, 1, 9}, 1);
        const double rms = parameters[0].value.detach().square().mean().sqrt().item<double>();
        EXPECT_NEAR(rms, 0.2, 0.04) << "AdamW's usual rms, whatever the gradient's size";
        const auto singular = torch::linalg_svdvals(parameters[0].value.detach());
        const double unit = 0.2 * std::sqrt(static_cast<double>(std::max(shape[shape.size() - 2], shape.back())));
        EXPECT_GT(singular.min().item<double>(), 0.3 * unit);
        EXPECT_LT(singular.max().item<double>(), 1.3 * unit);
    }
}

TEST(Muon, ExpertsOfABankDoNotMix)
{
    const auto bank = std::vector{parameter("w", torch::zeros({2, 6, 5}), ParameterGroup::experts, true, true)};
    const auto generator = at::make_generator<at::CPUGeneratorImpl>(7);
    const auto gradient = torch::randn({2, 6, 5}, generator);
    torch::Tensor(bank[0].value).mutable_grad() = gradient * torch::tensor({1000.0f, 0.001f}).view({2, 1, 1});
    optimizerOf(bank, {.type = "muon"})->step({1, 1, 1}, 1);
    for (int e = 0; e < 2; ++e) {
        const auto one = std::vector{parameter("w", torch::zeros({6, 5}), ParameterGroup::experts, true, true)};
        torch::Tensor(one[0].value).mutable_grad() = gradient[e].clone();
        optimizerOf(one, {.type = "muon"})->step({1, 1, 1}, 1);
        EXPECT_LT(relativeDifference(bank[0].value[e], one[0].value), 1e-5);
    }
}

TEST(Muon, ZeroGradientGivesNoStep)
{
    const auto parameters = std::vector{parameter("w", torch::ones({4, 4}), ParameterGroup::other, false, true)};
    torch::Tensor(parameters[0].value).mutable_grad() = torch::zeros({4, 4});
    optimizerOf(parameters, {.type = "muon"})->step({1, 1, 1}, 1);
    EXPECT_TRUE(torch::equal(parameters[0].value.detach(), torch::ones({4, 4})));
}

TEST(Muon, ResultDoesNotDependOnThreads)
{
    std::vector<torch::Tensor> values;
    for (const int threads : {1, 2, 3}) {
        const Threads guard(threads);
        const auto generator = at::make_generator<at::CPUGeneratorImpl>(1);
        const auto parameters = std::vector{parameter("bank", torch::randn({4, 192, 128}, generator), ParameterGroup::experts, true, true),
                                            parameter("w", torch::randn({384, 257}, generator), ParameterGroup::other, true, true)};
        const auto optimizer = optimizerOf(parameters, {.type = "muon"});
        for (int step = 0; step < 2; ++step) {
            for (const TrainParameter &p : parameters)
                torch::Tensor(p.value).mutable_grad() = torch::randn(p.value.sizes(), generator);
            optimizer->step({1e-2, 1e-2, 1e-2}, 1);
        }
        for (const TrainParameter &p : parameters)
            values.push_back(p.value.detach());
    }
    for (std::size_t i = 2; i < values.size(); ++i)
        EXPECT_TRUE(torch::equal(values[i], values[i % 2])) << i;
}

} // namespace
} // namespace spectra::test
