// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"

#include <nlohmann/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace spectra {
namespace {

using nlohmann::json;
using testing::HasSubstr;

RouterShape smallShape()
{
    return {12, 4, 2, {1, 3}};
}

TEST(RouterRegistry, ListsEveryOptionWithTypeDefaultRangeAndMeaning)
{
    std::set<std::string> names;
    for (const RouterInfo &info : routerRegistry()) {
        names.insert(info.name);
        const auto defaults = json::parse(*defaultRouterOptions(info.name));
        EXPECT_EQ(defaults["type"], info.name);
        for (const RouterOption &option : info.options) {
            EXPECT_TRUE(defaults.contains(option.name)) << option.name;
            EXPECT_FALSE(option.range.empty()) << option.name;
            EXPECT_FALSE(option.meaning.empty()) << option.name;
            EXPECT_TRUE(option.type == "int" || option.type == "float" || option.type == "bool" || option.type == "enum") << option.name;
            if (option.type == "enum") {
                EXPECT_THAT(option.range, HasSubstr(option.defaultValue)) << option.name;
            }
        }
    }
    for (const char *name : {"spectra", "switch_top1", "switch_top2", "gshard", "glam", "noisy_topk", "softmax_topk", "loss_free", "deepseek_v3", "glm4_moe",
                             "kimi_k2", "minimax", "qwen3_moe", "llama4", "gpt_oss", "quantile", "dense"})
        EXPECT_TRUE(names.contains(name)) << name;
}

TEST(RouterRegistry, DefaultsAreThoseOfTheMethodPage)
{
    const auto o = json::parse(*defaultRouterOptions("spectra"));
    EXPECT_EQ(o["sinkhorn_epsilon"], 0.05);
    EXPECT_EQ(o["sinkhorn_iterations"], 3);
    EXPECT_EQ(o["osr_repulsion_weight"], 0.5);
    EXPECT_EQ(o["osr_confidence_penalty"], 0.5);
    EXPECT_EQ(o["osr_confidence_threshold"], 0.7);
    EXPECT_EQ(o["gru_axis"], "sequence");
    EXPECT_EQ(o["gru_scope"], "global");
    EXPECT_EQ(o["projector_scope"], "per_layer");
    EXPECT_EQ(o["projector_orthogonalization"], "none");
    EXPECT_EQ(o["newton_schulz_iterations"], 5);
    EXPECT_EQ(o["sinkhorn_scope"], "causal");
    EXPECT_EQ(o["train_sinkhorn_scope"], "batch");
    EXPECT_EQ(o["log_sinkhorn_enabled"], true);
    EXPECT_EQ(o["expert_choice_routing"], true);
    EXPECT_EQ(o["expert_choice_capacity_factor"], 1.25);
    EXPECT_EQ(o["router_jitter_noise"], 0.01);
    EXPECT_EQ(o["router_entropy_coef"], 0.1);
    EXPECT_EQ(o["ortho_loss_coef"], 0.01);
    EXPECT_EQ(o["ortho_loss_on"], "expression_means");
    EXPECT_EQ(o["srip_enabled"], true);
    EXPECT_EQ(o["so_warmup_steps"], 0);
    EXPECT_EQ(o["causal_ema"], 0.99);
    EXPECT_EQ(o["speciality_penalty"], "global");
    EXPECT_EQ(o["expression"], "projector");
    EXPECT_EQ(o["sequential"], "gru");
    EXPECT_EQ(o["scoring"], "osr");
    EXPECT_EQ(o["projector_init"], "orthogonal");
    EXPECT_EQ(o["router_dim"], 128);
}

TEST(RouterSettings, AreTypedCheckedAndNamed)
{
    const std::string defaults = *defaultRouterOptions("spectra");
    const auto good = applyRouterSettings(defaults, {"sinkhorn_epsilon=0.1", "expert_choice_routing=false", "gru_axis=depth", "router_dim=32"}, false);
    ASSERT_TRUE(good.ok());
    const auto o = json::parse(*good);
    EXPECT_EQ(o["sinkhorn_epsilon"], 0.1);
    EXPECT_EQ(o["expert_choice_routing"], false);
    EXPECT_EQ(o["gru_axis"], "depth");
    EXPECT_EQ(o["router_dim"], 32);
    EXPECT_EQ(o["calibrated_epsilon"], 0.0);

    for (const char *bad : {"sinkhorn_epsilon=0", "sinkhorn_epsilon=-1", "sinkhorn_epsilon=abc", "sinkhorn_epsilon=1e999", "sinkhorn_iterations=2.5",
                            "sinkhorn_iterations=0", "gru_axis=sideways", "expert_choice_routing=1", "router_dim=0", "router_dim=99999999999"}) {
        const auto result = applyRouterSettings(defaults, {bad}, false);
        ASSERT_FALSE(result.ok()) << bad;
        EXPECT_EQ(result.error().kind, ErrorKind::usage) << bad;
        const std::string name = std::string(bad).substr(0, std::string(bad).find('='));
        EXPECT_THAT(result.error().where + result.error().what, HasSubstr(name));
    }
    for (const char *bad : {"no_such_option=1", "=1", "sinkhorn_epsilon", ""}) {
        const auto result = applyRouterSettings(defaults, {bad}, false);
        ASSERT_FALSE(result.ok()) << bad;
        EXPECT_EQ(result.error().kind, ErrorKind::usage);
    }
    EXPECT_FALSE(defaultRouterOptions("no_such_router").ok());
    EXPECT_FALSE(makeRouter(R"({"type":"spectra","ortho_loss_on":"projector","expression":"learned"})", smallShape(), 0).ok());
}

TEST(RouterSettings, OptionsThatFixShapesAreRefusedOnACheckpoint)
{
    const std::string defaults = *defaultRouterOptions("spectra");
    for (const char *bad : {"router_dim=32", "gru_scope=per_layer", "projector_scope=global", "expression=learned", "sequential=linear", "scoring=linear"}) {
        const auto result = applyRouterSettings(defaults, {bad}, true);
        ASSERT_FALSE(result.ok()) << bad;
        EXPECT_EQ(result.error().kind, ErrorKind::usage);
    }
    EXPECT_TRUE(applyRouterSettings(defaults, {"router_dim=128"}, true).ok()) << "the value it has is no change";
    EXPECT_TRUE(applyRouterSettings(defaults, {"gru_axis=grid", "sinkhorn_scope=none"}, true).ok());
}

TEST(RouterSettings, AnotherEpsilonRemembersTheOneOfThePotentials)
{
    const auto json1 = json::parse(*applyRouterSettings(*defaultRouterOptions("spectra"), {"sinkhorn_epsilon=0.2"}, true));
    EXPECT_EQ(json1["calibrated_epsilon"], 0.05);
    const auto router = makeRouter(json1.dump(), smallShape(), 1);
    ASSERT_TRUE(router.ok());
    ASSERT_EQ((*router)->notes().size(), 1u);
    EXPECT_THAT((*router)->notes()[0], HasSubstr("not calibrated"));
    (*router)->setCalibrated();
    EXPECT_TRUE((*router)->notes().empty());
}

TEST(RouterSettings, AblationsAreValid)
{
    for (const RouterPreset &preset : spectraAblations()) {
        const auto result = applyRouterSettings(*defaultRouterOptions("spectra"), preset.settings, false);
        ASSERT_TRUE(result.ok()) << preset.name << ": " << result.error().what;
        EXPECT_TRUE(makeRouter(*result, smallShape(), 0).ok()) << preset.name;
    }
}

TEST(Router, ShapesAreChecked)
{
    for (const RouterShape &shape : {RouterShape{0, 4, 2, {0}}, RouterShape{8, 0, 1, {0}}, RouterShape{8, 4, 5, {0}}, RouterShape{8, 4, 0, {0}}}) {
        const auto router = makeRouter(R"({"type":"spectra","router_dim":4})", shape, 0);
        ASSERT_FALSE(router.ok());
        EXPECT_EQ(router.error().kind, ErrorKind::usage);
    }
}

TEST(Router, LoadsWhatItSavedAndNamesWhatIsMissing)
{
    for (const char *text : {R"({"type":"spectra","router_dim":4})", R"({"type":"spectra","router_dim":4,"gru_scope":"per_layer","projector_scope":"global"})",
                             R"({"type":"spectra","router_dim":4,"scoring":"linear"})",
                             R"({"type":"spectra","router_dim":4,"scoring":"domain","expression":"learned","sequential":"linear"})",
                             R"({"type":"softmax_topk"})"}) {
        const auto router = makeRouter(text, smallShape(), 3);
        ASSERT_TRUE(router.ok()) << text;
        auto tensors = (*router)->parameters();
        for (const auto &[name, tensor] : (*router)->buffers())
            tensors[name] = tensor.uniform_(-1, 1);
        const TensorLookup lookup = [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return tensors.contains(name) ? tensors[name] : torch::Tensor();
        };
        const auto loaded = loadRouter((*router)->options(), smallShape(), lookup);
        ASSERT_TRUE(loaded.ok()) << text << loaded.error().what;
        RouterInput input;
        input.x = torch::randn({7, 12});
        input.offsets = {0, 7};
        input.layer = 1;
        input.layers = 2;
        const torch::NoGradGuard noGrad;
        RouterState a, b;
        const auto one = (*router)->route(input, a, Capture::full()), two = (*loaded)->route(input, b, Capture::full());
        EXPECT_TRUE(torch::equal(one.probabilities, two.probabilities));
        EXPECT_TRUE(torch::equal(one.experts, two.experts));

        const std::string removed = tensors.begin()->first;
        tensors.erase(removed);
        const auto broken = loadRouter((*router)->options(), smallShape(), lookup);
        ASSERT_FALSE(broken.ok());
        EXPECT_EQ(broken.error().kind, ErrorKind::input);
        EXPECT_THAT(broken.error().where, HasSubstr(removed));
    }
}

} // namespace
} // namespace spectra
