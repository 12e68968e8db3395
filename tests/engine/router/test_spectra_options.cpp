// SPDX-License-Identifier: GPL-3.0-or-later
// The ablations as routers of their own name, and the quota that follows demand.
#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"

#include <nlohmann/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace spectra {
namespace {

using nlohmann::json;
using testing::ElementsAre;

const RouterShape kShape{10, 4, 2, {0, 1}};
const char *const kDemand = "model.layers.0.mlp.router.demand";

RoutingStep routeOnce(Router &router, const torch::Tensor &x, bool training, const torch::Tensor &mask = {})
{
    RouterInput input;
    input.x = x;
    input.mask = mask;
    input.offsets = {0, x.size(0)};
    input.layers = 2;
    input.training = training;
    RouterState state;
    return router.route(input, state, Capture::minimal());
}

TEST(SpectraPresets, EachAblationIsARouterOfTheFamily)
{
    std::vector<std::string> names;
    for (const RouterInfo &info : routerRegistry())
        if (info.family == "spectra")
            names.push_back(info.name);
    EXPECT_THAT(names, ElementsAre("spectra", "spectra-expression", "spectra-gru", "spectra-osr", "spectra-repulsion", "spectra-quota",
                                   "spectra-speciality_penalty", "spectra-confidence", "spectra-ortho_constraint", "spectra-all"));
    for (const RouterInfo &info : routerRegistry())
        EXPECT_FALSE(info.family.empty()) << info.name;
    const auto dense = makeRouter(R"({"type":"dense"})", kShape, 0);
    EXPECT_EQ((*dense)->family(), "dense");
}

TEST(SpectraPresets, OptionsAreThoseOfTheAblationAndComeBack)
{
    for (const RouterPreset &preset : spectraAblations()) {
        if (preset.router.empty())
            continue;
        SCOPED_TRACE(preset.router);
        const auto defaults = defaultRouterOptions(preset.router);
        ASSERT_TRUE(defaults.ok());
        auto ours = json::parse(*defaults), plain = json::parse(*applyRouterSettings(*defaultRouterOptions("spectra"), preset.settings, false));
        EXPECT_EQ(ours["type"], preset.router);
        ours.erase("type");
        plain.erase("type");
        EXPECT_EQ(ours, plain) << "the same settings as given by hand";

        const auto made = makeRouter(R"({"type":")" + preset.router + R"(","router_dim":4})", kShape, 3);
        ASSERT_TRUE(made.ok());
        EXPECT_EQ((*made)->name(), preset.router);
        EXPECT_EQ((*made)->family(), "spectra");
        const std::string written = (*made)->options();
        EXPECT_EQ(json::parse(written)["type"], preset.router);
        // a checkpoint of it: the options as written and its tensors
        std::map<std::string, torch::Tensor> stored = (*made)->parameters();
        stored.merge((*made)->buffers());
        const auto loaded = loadRouter(written, kShape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return stored.contains(name) ? stored.at(name).detach() : torch::Tensor();
        });
        ASSERT_TRUE(loaded.ok());
        EXPECT_EQ((*loaded)->options(), written);
        const torch::NoGradGuard noGrad;
        torch::manual_seed(1);
        const auto x = torch::randn({20, 10});
        EXPECT_TRUE(torch::equal(routeOnce(**made, x, false).probabilities, routeOnce(**loaded, x, false).probabilities));
    }
}

TEST(SpectraPresets, RescaleTheirPotentialsLikeSpectra)
{
    const auto other = applyRouterSettings(*defaultRouterOptions("spectra-repulsion"), {"sinkhorn_epsilon=0.2"}, true);
    ASSERT_TRUE(other.ok());
    EXPECT_EQ(json::parse(*other)["calibrated_epsilon"], 0.05);
}

/// Tokens that nearly all want the same experts: one direction plus some noise.
torch::Tensor skewed(std::int64_t n)
{
    torch::manual_seed(5);
    return torch::randn({n, 10}) * 0.3 + torch::linspace(-1, 1, 10);
}

std::unique_ptr<Router> quotaRouter(const std::string &capacity)
{
    // without transport, which would balance the demand by itself
    const std::vector<std::string> settings{"router_dim=4", "router_jitter_noise=0", "train_sinkhorn_scope=none", "causal_ema=0.5",
                                            "expert_choice_capacity_factor=1.25", "sequential=linear", "capacity=" + capacity};
    auto router = makeRouter(*applyRouterSettings(*defaultRouterOptions("spectra"), settings, false), kShape, 11);
    EXPECT_TRUE(router.ok());
    return std::move(*router);
}

TEST(SpectraCapacity, DemandIsTheShareOfTheTopKBeforeTheQuota)
{
    const auto router = quotaRouter("dynamic");
    const auto x = skewed(64);
    EXPECT_TRUE(torch::equal(router->buffers().at(kDemand), torch::full({4}, 0.25))) << "a fresh router knows nothing";
    auto mask = torch::ones({64}, torch::kBool);
    mask.slice(0, 40, 64).fill_(false);
    const auto step = routeOnce(*router, x, true, mask);
    const auto own = std::get<1>(step.selection.slice(0, 0, 40).topk(2, -1)).view({-1});
    const auto share = torch::bincount(own, {}, 4).to(torch::kFloat32) / 80;
    EXPECT_GT(share.max().item<double>(), 0.4) << "the input must be skewed for the test to mean anything";
    router->afterOptimizerStep({});
    EXPECT_LT((router->buffers().at(kDemand) - (0.5 * 0.25 + 0.5 * share)).abs().max().item<double>(), 1e-6);
    EXPECT_NEAR(router->buffers().at(kDemand).sum().item<double>(), 1, 1e-6);
}

TEST(SpectraCapacity, ASkewedDemandDropsLessThanEqualShares)
{
    const auto fixed = quotaRouter("fixed"), dynamic = quotaRouter("dynamic");
    EXPECT_FALSE(fixed->buffers().contains(kDemand));
    const auto x = skewed(64);
    const auto start = routeOnce(*dynamic, x, true), equal = routeOnce(*fixed, x, true);
    EXPECT_TRUE(torch::equal(start.experts, equal.experts)) << "a fresh demand is an equal one";
    for (int i = 0; i < 8; ++i) {
        (void)routeOnce(*dynamic, x, true);
        dynamic->afterOptimizerStep({});
    }
    const auto step = routeOnce(*dynamic, x, true);
    EXPECT_GT(equal.fellBack, 0.2);
    EXPECT_LT(step.fellBack, equal.fellBack / 2) << "slots went where the demand is";
    EXPECT_LE(step.dropped.sum().item<std::int64_t>(), equal.dropped.sum().item<std::int64_t>());
    const auto taken = torch::bincount(step.experts.masked_select(step.experts >= 0), {}, 4);
    EXPECT_LE(taken.sum().item<std::int64_t>(), 160) << "all slots together stay alpha N k";
}

TEST(SpectraCapacity, ACheckpointWithoutADemandStartsAtAnEqualOne)
{
    const auto fixed = quotaRouter("fixed");
    std::map<std::string, torch::Tensor> stored = fixed->parameters();
    stored.merge(fixed->buffers());
    const auto options = applyRouterSettings(fixed->options(), {"capacity=dynamic"}, true);
    ASSERT_TRUE(options.ok());
    const auto lookup = [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
        return stored.contains(name) ? stored.at(name).detach() : torch::Tensor();
    };
    const auto loaded = loadRouter(*options, kShape, lookup);
    ASSERT_TRUE(loaded.ok());
    EXPECT_TRUE(torch::equal((*loaded)->buffers().at(kDemand), torch::full({4}, 0.25)));
    stored[kDemand] = torch::tensor({0.7f, 0.1f, 0.1f, 0.1f});
    const auto again = loadRouter(*options, kShape, lookup);
    ASSERT_TRUE(again.ok());
    EXPECT_TRUE(torch::equal((*again)->buffers().at(kDemand), stored[kDemand]));
    stored[kDemand] = torch::ones({3});
    EXPECT_FALSE(loadRouter(*options, kShape, lookup).ok());
    EXPECT_FALSE(applyRouterSettings(fixed->options(), {"capacity=elastic"}, false).ok());
}

} // namespace
} // namespace spectra
