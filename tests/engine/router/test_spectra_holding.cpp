// SPDX-License-Identifier: GPL-3.0-or-later
// What holds routing on along a text, and the potentials that training finds by stepping towards balance.
#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"
#include "engine/router/spectratensors.h"

#include <gtest/gtest.h>

#include <cmath>

namespace spectra {
namespace {

namespace ts = tensors;

std::unique_ptr<Router> made(std::vector<std::string> settings)
{
    settings.insert(settings.begin(), {"router_dim=4", "router_jitter_noise=0", "sinkhorn_epsilon=0.3"});
    auto router = makeRouter(*applyRouterSettings(*defaultRouterOptions("spectra"), settings, false), {10, 4, 2, {0, 1}}, 7);
    EXPECT_TRUE(router.ok());
    return std::move(*router);
}

RoutingStep routeOnce(Router &router, const torch::Tensor &x, std::vector<std::int64_t> offsets, const torch::Tensor &mask = {})
{
    RouterInput input;
    input.x = x;
    input.offsets = std::move(offsets);
    input.mask = mask;
    input.layers = 2;
    input.training = true;
    RouterState state;
    return router.route(input, state, Capture::minimal());
}

TEST(SpectraHolding, TheSequentialLossIsThatOfNeighboursInOneSequence)
{
    const auto router = made({"sequential_loss_coef=0.25"});
    torch::manual_seed(2);
    const auto x = torch::randn({9, 10});
    auto mask = torch::ones({9}, torch::kBool);
    mask[6] = false; // of 0-1-2-3 | 4-5-(6)-7-8
    const auto step = routeOnce(*router, x, {0, 4, 9}, mask);
    const auto q = step.probabilities.to(torch::kFloat64);
    double sum = 0;
    for (const int t : {0, 1, 2, 4, 7})
        sum -= std::log((q[t] * q[t + 1]).sum().item<double>());
    EXPECT_NEAR(step.losses.at("sequential").item<double>(), 0.25 * sum / 5, 1e-6);
    EXPECT_FALSE(routeOnce(*made({}), x, {0, 4, 9}).losses.contains("sequential"));
}

TEST(SpectraHolding, TheSequentialLossOfOneTokenIsNothing)
{
    const auto router = made({"sequential_loss_coef=1"});
    const auto step = routeOnce(*router, torch::randn({1, 10}), {0, 1});
    EXPECT_EQ(step.losses.at("sequential").item<double>(), 0);
    EXPECT_EQ(routeOnce(*router, torch::randn({0, 10}), {0, 0}).losses.at("sequential").item<double>(), 0);
}

TEST(SpectraHolding, TheUpdateGateStartsWhereTold)
{
    const auto bias = made({"gru_update_bias=1.5"})->parameters().at("model.router.gru.bias_ih"), plain = made({})->parameters().at("model.router.gru.bias_ih");
    EXPECT_EQ(plain.abs().sum().item<double>(), 0);
    EXPECT_TRUE(torch::equal(bias.slice(0, 16, 32), torch::full({16}, 1.5)));
    EXPECT_EQ(bias.abs().sum().item<double>(), 16 * 1.5);
}

TEST(SpectraHolding, DualPotentialsStepTowardsTheCausalRulesBalance)
{
    const auto router = made({"causal_potential=dual", "causal_potential_step=0.2"});
    torch::manual_seed(4);
    for (const auto &[name, tensor] : router->buffers())
        tensor.normal_(0, 0.1);
    const std::string prefix = "model.layers.0.mlp.router.";
    const auto mean = router->buffers().at(prefix + "mean_expression").clone(), g = router->buffers().at(prefix + "potential").clone();
    const auto x = torch::randn({60, 10});
    const auto step = routeOnce(*router, x, {0, 60});
    (void)routeOnce(*router, x, {0, 60}); // a second micro-batch of the same optimiser step
    router->afterOptimizerStep({});
    const auto cost = ts::osrCost(step.logits.detach(), ts::repulsion(ts::gram(mean)), 0.5, 0.5, 0.7);
    const auto chosen = std::get<1>(torch::topk(torch::softmax(-cost / 0.3 + g, -1), 2));
    const auto load = torch::bincount(chosen.view({-1}), {}, 4).to(torch::kFloat32);
    auto expected = g + 0.2 * (1 - load * 4 / 120);
    expected = expected - expected.mean();
    EXPECT_LT((router->buffers().at(prefix + "potential") - expected).abs().max().item<double>(), 1e-6);
}

TEST(SpectraHolding, PotentialsFoundAtAnotherEpsilonAreBroughtToThisOne)
{
    const auto router = made({"causal_ema=0.9", "calibrated_epsilon=0.6"});
    const std::string name = "model.layers.0.mlp.router.potential", other = "model.layers.1.mlp.router.potential";
    for (const auto &[key, tensor] : router->buffers())
        tensor.normal_(0, 0.1);
    const auto g = router->buffers().at(name).clone(), untouched = router->buffers().at(other).clone();
    const auto step = routeOnce(*router, torch::randn({40, 10}), {0, 40});
    router->afterOptimizerStep({});
    EXPECT_LT((router->buffers().at(name) - (0.9 * g * 2 + 0.1 * step.potentials)).abs().max().item<double>(), 1e-6);
    EXPECT_LT((router->buffers().at(other) - untouched * 2).abs().max().item<double>(), 1e-6) << "a layer without a batch too: one epsilon holds for all";
    EXPECT_TRUE(router->notes().empty());
}

TEST(SpectraHolding, DualPotentialsBalanceASkewedStreamAtInference)
{
    const auto cv = [](const std::vector<std::string> &settings) {
        const auto router = made(settings);
        torch::manual_seed(6);
        const auto shift = torch::randn({1, 10}) * 1.5;
        for (int i = 0; i < 300; ++i) {
            (void)routeOnce(*router, torch::randn({256, 10}) + shift, {0, 256});
            router->afterOptimizerStep({});
        }
        const torch::NoGradGuard noGrad;
        RouterInput input;
        input.x = torch::randn({4000, 10}) + shift;
        input.offsets = {0, 4000};
        input.layers = 2;
        RouterState state;
        const auto experts = router->route(input, state, Capture::minimal()).experts;
        const auto load = torch::bincount(experts.view({-1}), {}, 4).to(torch::kFloat64);
        return (load.std(false) / load.mean()).item<double>();
    };
    const double average = cv({"sinkhorn_iterations=3"}), dual = cv({"sinkhorn_iterations=3", "causal_potential=dual"});
    EXPECT_LT(dual, 0.1);
    EXPECT_LT(dual, average / 2) << "the running average of unconverged potentials: " << average;
}

TEST(SpectraHolding, DualPotentialsLeaveTrainingAsItIs)
{
    const auto average = made({}), dual = made({"causal_potential=dual"});
    torch::manual_seed(8);
    const auto x = torch::randn({30, 10});
    for (int i = 0; i < 3; ++i) {
        const auto a = routeOnce(*average, x, {0, 30}), b = routeOnce(*dual, x, {0, 30});
        EXPECT_TRUE(torch::equal(a.probabilities, b.probabilities));
        average->afterOptimizerStep({});
        dual->afterOptimizerStep({});
    }
}

} // namespace
} // namespace spectra
