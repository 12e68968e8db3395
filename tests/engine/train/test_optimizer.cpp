// SPDX-License-Identifier: GPL-3.0-or-later
// AdamW, gradient norms, the schedule, and what a checkpoint keeps of an optimiser.
#include "tests/engine/train/optimizersupport.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <limits>
#include <numbers>

namespace spectra::test {
namespace {

TEST(AdamW, EqualsTorchOverTwentySteps)
{
    const auto &expected = optimizerFixture();
    const auto parameters = fixtureParameters();
    const auto optimizer = optimizerOf(parameters);
    for (const auto &[begin, end] : {std::pair(0, 1), std::pair(1, 5), std::pair(5, kFixtureSteps)}) {
        fixtureSteps(*optimizer, parameters, begin, end);
        for (const TrainParameter &p : parameters)
            EXPECT_LT(relativeDifference(p.value, expected.at("adamw" + std::to_string(end) + "." + p.name)), 1e-6) << p.name << " after step " << end;
    }
    const auto state = optimizer->state();
    for (const TrainParameter &p : parameters) {
        EXPECT_LT(relativeDifference(state.at(p.name + ".m"), expected.at("adamw.m." + p.name)), 1e-6) << p.name;
        EXPECT_LT(relativeDifference(state.at(p.name + ".v"), expected.at("adamw.v." + p.name)), 1e-6) << p.name;
    }
    EXPECT_EQ(optimizer->steps(), kFixtureSteps);
}

/// Parameters of awkward sizes, some cut into many blocks, with a gradient each.
std::vector<TrainParameter> largeParameters(std::uint64_t seed)
{
    const torch::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    std::vector<TrainParameter> parameters;
    int index = 0;
    for (const std::vector<std::int64_t> &shape : {std::vector<std::int64_t>{300'001}, {5, 33, 17}, {1}, {100, 70}, {257, 129}}) {
        auto p = parameter("p" + std::to_string(index), torch::randn(shape, generator), static_cast<ParameterGroup>(index % 3), shape.size() > 1,
                           shape.size() > 1);
        p.layer = index;
        p.value.mutable_grad() = torch::randn(shape, generator);
        parameters.push_back(std::move(p));
        ++index;
    }
    return parameters;
}

TEST(AdamW, ResultDoesNotDependOnThreads)
{
    std::vector<std::vector<TrainParameter>> runs;
    std::vector<double> norms;
    for (const int threads : {1, 2, 3}) {
        const Threads guard(threads);
        runs.push_back(largeParameters(3));
        const auto optimizer = optimizerOf(runs.back());
        for (int step = 0; step < 3; ++step) {
            const GradientNorms n = gradientNorms(runs.back());
            norms.push_back(n.all);
            optimizer->step({1e-2, 1e-3, 1e-4}, 1 / n.all);
        }
    }
    for (std::size_t run = 1; run < runs.size(); ++run) {
        for (std::size_t p = 0; p < runs[0].size(); ++p)
            EXPECT_TRUE(torch::equal(runs[0][p].value, runs[run][p].value)) << runs[0][p].name;
        for (std::size_t step = 0; step < 3; ++step)
            EXPECT_EQ(norms[step], norms[3 * run + step]);
    }
}

TEST(AdamW, LeavesAloneWhatHasNoGradient)
{
    auto parameters = fixtureParameters();
    const auto optimizer = optimizerOf(parameters);
    fixtureSteps(*optimizer, parameters, 0, 2);
    const auto before = parameters[0].value.detach().clone(), other = parameters[2].value.detach().clone();
    parameters[0].value.mutable_grad() = torch::Tensor();
    optimizer->step({1, 1, 1}, 1);
    EXPECT_TRUE(torch::equal(parameters[0].value, before)) << "no decay either, as in torch";
    EXPECT_FALSE(torch::equal(parameters[2].value, other));
    EXPECT_EQ(optimizer->state().at("router.weight.step").item<float>(), 2);
    EXPECT_EQ(optimizer->state().at("norm.weight.step").item<float>(), 3);
    EXPECT_EQ(optimizer->state().at("optimizer.step").item<float>(), 3);
}

TEST(AdamW, TakesGradientsInAnyLayoutAndZeroesThem)
{
    auto plain = std::vector{parameter("w", torch::ones({6, 4}), ParameterGroup::other)};
    auto turned = std::vector{parameter("w", torch::ones({6, 4}), ParameterGroup::other)};
    const auto gradient = torch::arange(24, torch::kFloat32).view({4, 6}).t();
    plain[0].value.mutable_grad() = gradient.contiguous();
    turned[0].value.mutable_grad() = gradient;
    const auto a = optimizerOf(plain), b = optimizerOf(turned);
    a->step({1, 1, 1e-2}, 1);
    b->step({1, 1, 1e-2}, 1);
    EXPECT_TRUE(torch::equal(plain[0].value, turned[0].value));
    a->zeroGradients();
    b->zeroGradients();
    EXPECT_EQ(plain[0].value.grad().abs().max().item<float>(), 0);
    EXPECT_EQ(turned[0].value.grad().abs().max().item<float>(), 0);
}

TEST(OptimizerOptions, AreChecked)
{
    const auto parameters = fixtureParameters();
    const std::vector<std::pair<OptimizerOptions, std::string>> bad = {
        {{.type = "sgd"}, "sgd"},         {{.beta1 = 1}, "beta1"},     {{.beta2 = -0.1}, "beta2"},
        {{.epsilon = 0}, "epsilon"},      {{.weightDecay = -1}, "weight_decay"},
        {{.momentum = std::nan("")}, "momentum"}};
    for (const auto &[options, name] : bad) {
        const auto result = makeOptimizer(parameters, options);
        ASSERT_FALSE(result.ok()) << name;
        EXPECT_EQ(result.error().kind, ErrorKind::usage);
        EXPECT_NE(result.error().what.find(name), std::string::npos) << result.error().what;
    }
    auto twice = parameters;
    twice.push_back(twice.front());
    EXPECT_FALSE(makeOptimizer(twice, {}).ok());
}

TEST(OptimizerState, ContinuesBitIdentically)
{
    for (const char *type : {"adamw", "muon"}) {
        const OptimizerOptions options{.type = type};
        const auto whole = fixtureParameters();
        const auto one = optimizerOf(whole, options);
        fixtureSteps(*one, whole, 0, kFixtureSteps);

        const auto first = fixtureParameters();
        const auto before = optimizerOf(first, options);
        fixtureSteps(*before, first, 0, 9);
        std::map<std::string, torch::Tensor> saved;
        for (const auto &[name, tensor] : before->state())
            saved[name] = tensor.clone();
        auto second = fixtureParameters();
        for (std::size_t p = 0; p < second.size(); ++p)
            second[p].value = first[p].value.detach().clone().requires_grad_();
        const auto after = optimizerOf(second, options);
        ASSERT_TRUE(after->load(saved).ok());
        EXPECT_EQ(after->steps(), 9);
        fixtureSteps(*after, second, 9, kFixtureSteps);
        for (std::size_t p = 0; p < whole.size(); ++p)
            EXPECT_TRUE(torch::equal(whole[p].value, second[p].value)) << type << " " << whole[p].name;
        for (const auto &[name, tensor] : one->state())
            EXPECT_TRUE(torch::equal(tensor, after->state().at(name))) << type << " " << name;
    }
}

TEST(OptimizerState, NamesWhatDoesNotFitAndChangesNothing)
{
    const auto parameters = fixtureParameters();
    const auto optimizer = optimizerOf(parameters);
    fixtureSteps(*optimizer, parameters, 0, 3);
    std::map<std::string, torch::Tensor> own, other;
    for (const auto &[name, tensor] : optimizer->state()) {
        own[name] = tensor.clone();
        other[name] = tensor + 1;
    }
    const auto refused = [&](const std::string &name, const std::string &word) {
        const auto result = optimizer->load(other);
        ASSERT_FALSE(result.ok()) << name;
        EXPECT_EQ(result.error().kind, ErrorKind::input);
        EXPECT_EQ(result.error().where, name);
        EXPECT_NE(result.error().what.find(word), std::string::npos) << result.error().what;
        for (const auto &[n, tensor] : optimizer->state())
            EXPECT_TRUE(torch::equal(tensor, own.at(n))) << n;
        EXPECT_EQ(optimizer->steps(), 3);
    };
    const auto good = other;
    other["experts.gate_up.v"] = torch::zeros({4, 12, 11});
    refused("experts.gate_up.v", "[4, 12, 11] instead of [4, 12, 10]");
    other = good;
    other.erase("router.weight.m");
    refused("router.weight.m", "lacks");
    other = good;
    other["router.weight.m"] = torch::zeros({8, 16}, torch::kBool);
    refused("router.weight.m", "numbers");
    for (const float step : {-1.0f, 0.5f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        other = good;
        other["optimizer.step"] = torch::full({1}, step);
        refused("optimizer.step", "whole number");
    }
    other = good;
    EXPECT_TRUE(optimizer->load(other).ok());
    EXPECT_EQ(optimizer->steps(), 4);
    const auto muon = makeOptimizer(fixtureParameters(), {.type = "muon"});
    ASSERT_TRUE(muon.ok());
    EXPECT_FALSE((*muon)->load(good).ok()) << "another optimizer's state";
}

TEST(GradientNorms, EqualTorchByGroup)
{
    auto parameters = largeParameters(5);
    parameters[4].value.mutable_grad() = torch::Tensor();
    std::array<double, 3> squares = {};
    for (const TrainParameter &p : parameters)
        if (p.value.grad().defined())
            squares[static_cast<std::size_t>(p.group)] += p.value.grad().to(torch::kFloat64).square().sum().item<double>();
    const GradientNorms norms = gradientNorms(parameters);
    EXPECT_NEAR(norms.router, std::sqrt(squares[0]), 1e-9 * norms.router);
    EXPECT_NEAR(norms.experts, std::sqrt(squares[1]), 1e-9 * norms.experts);
    EXPECT_NEAR(norms.other, std::sqrt(squares[2]), 1e-9 * norms.other);
    EXPECT_NEAR(norms.all, std::sqrt(squares[0] + squares[1] + squares[2]), 1e-9 * norms.all);
    EXPECT_TRUE(norms.finite);
    EXPECT_EQ(norms.badLayer, -1);
    EXPECT_EQ(gradientNorms({}).all, 0);
}

TEST(GradientNorms, NameTheFirstGradientThatIsNotFinite)
{
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
        auto parameters = largeParameters(5);
        parameters[1].value.mutable_grad().view(-1)[2804] = bad; // the last element, beyond the unrolled loop
        parameters[3].value.mutable_grad().view(-1)[0] = bad;
        const GradientNorms norms = gradientNorms(parameters);
        EXPECT_FALSE(norms.finite);
        EXPECT_EQ(norms.badName, "p1");
        EXPECT_EQ(norms.badLayer, 1);
    }
    auto parameters = largeParameters(5);
    parameters[0].value.mutable_grad().fill_(3e38f);
    const GradientNorms norms = gradientNorms(parameters);
    EXPECT_TRUE(norms.finite) << "large is not infinite";
    EXPECT_NEAR(norms.router / (3e38 * std::sqrt(300'001.0)), 1, 1e-6);
}

TEST(Schedule, WarmsUpLinearlyThenFallsAsACosine)
{
    const Schedule s{.type = "cosine", .steps = 101, .warmup = 11, .finalShare = 0.1};
    for (int step = 0; step < 11; ++step)
        EXPECT_DOUBLE_EQ(s.factor(step), (step + 1) / 11.0);
    for (int step = 10; step <= 100; ++step)
        EXPECT_NEAR(s.factor(step), 0.1 + 0.9 * (1 + std::cos(std::numbers::pi * (step - 10) / 90)) / 2, 1e-15);
    EXPECT_NEAR(s.factor(55), 0.55, 1e-15) << "half way";
    EXPECT_DOUBLE_EQ(s.factor(100), 0.1);
    EXPECT_DOUBLE_EQ(s.factor(100'000), 0.1) << "and stays there";
}

TEST(Schedule, EdgesAreDefined)
{
    EXPECT_DOUBLE_EQ((Schedule{.steps = 5, .warmup = 0}.factor(0)), 1) << "without warm-up the first step has the peak rate";
    EXPECT_DOUBLE_EQ((Schedule{.steps = 5, .warmup = 1}.factor(0)), 1);
    EXPECT_DOUBLE_EQ((Schedule{.steps = 5, .warmup = 0, .finalShare = 0}.factor(4)), 0);
    EXPECT_DOUBLE_EQ((Schedule{.steps = 1, .warmup = 0}.factor(0)), 1);
    EXPECT_DOUBLE_EQ((Schedule{.steps = 10, .warmup = 10}.factor(9)), 1);
    const Schedule constant{.type = "constant", .steps = 100, .warmup = 4};
    EXPECT_DOUBLE_EQ(constant.factor(1), 0.5);
    for (const int step : {3, 4, 50, 99, 1000})
        EXPECT_DOUBLE_EQ(constant.factor(step), 1);
    EXPECT_DOUBLE_EQ(constant.factor(-5), 0.25);
    for (int step = 1; step < 1000; ++step) {
        const Schedule s{.steps = 1000, .warmup = 100};
        EXPECT_EQ(s.factor(step) >= s.factor(step - 1), step < 100) << step;
    }
}

} // namespace
} // namespace spectra::test
