// SPDX-License-Identifier: GPL-3.0-or-later
// The routers with linear scores against an independent double-precision form (tests/fixtures/routers/make_linear.py), and what
// must hold for all of them.
#include "engine/router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace spectra {
namespace {

using nlohmann::json;
using testing::HasSubstr;

const json &fixture()
{
    static const json all = [] {
        std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/linear.json");
        return json::parse(stream);
    }();
    return all;
}

torch::Tensor tensorOf(const json &values, const std::vector<std::int64_t> &shape)
{
    return torch::tensor(values.get<std::vector<double>>(), torch::kFloat64).view(shape).to(torch::kFloat32);
}

std::unique_ptr<Router> routerOf(const json &c)
{
    const RouterShape shape{fixture()["hidden"], fixture()["experts"], c["topk"], {fixture()["layer"].get<std::int64_t>()}};
    auto made = loadRouter(c["options"].dump(), shape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
        const json &t = c["tensors"];
        return t.contains(name) ? tensorOf(t[name]["values"], t[name]["shape"].get<std::vector<std::int64_t>>()) : torch::Tensor();
    });
    if (!made.ok()) {
        ADD_FAILURE() << made.error().where << ": " << made.error().what;
        return nullptr;
    }
    return std::move(*made);
}

RouterInput inputOf(bool training)
{
    const json &f = fixture();
    RouterInput input;
    const std::int64_t h = f["hidden"];
    input.x = tensorOf(f["x"], {-1, h});
    input.offsets = f["offsets"].get<std::vector<std::int64_t>>();
    input.mask = tensorOf(f["mask"], {-1}) > 0.5;
    input.training = training;
    input.seed = 3;
    return input;
}

double difference(const torch::Tensor &a, const torch::Tensor &b)
{
    EXPECT_EQ(a.sizes(), b.sizes());
    return a.sizes() == b.sizes() ? (a.detach().to(torch::kFloat64) - b.detach().to(torch::kFloat64)).abs().max().item<double>() : INFINITY;
}

TEST(LinearRouters, EqualTheReference)
{
    std::set<std::string> seen;
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump() + (c["training"].get<bool>() ? " training" : ""));
        seen.insert(c["name"].get<std::string>());
        const auto router = routerOf(c);
        ASSERT_TRUE(router);
        const std::int64_t k = c["topk"];
        const RouterInput input = inputOf(c["training"]);
        RouterState state;
        const RoutingStep step = router->route(input, state, Capture::standard());
        EXPECT_TRUE(torch::equal(step.experts, torch::tensor(c["experts"].get<std::vector<std::int64_t>>()).view({-1, k})));
        EXPECT_LE(difference(step.weights, tensorOf(c["weights"], {-1, k})), 1e-5);
        EXPECT_EQ(step.weightOnInput, c.value("weight_on_input", false));
        EXPECT_EQ(step.losses.size(), c["losses"].size());
        for (const auto &[name, value] : c["losses"].items()) {
            ASSERT_TRUE(step.losses.count(name)) << name;
            EXPECT_NEAR(step.losses.at(name).item<double>(), value.get<double>(), 1e-5 * std::max(0.01, std::abs(value.get<double>()))) << name;
        }
        if (!c["dropped"].is_null()) {
            EXPECT_LE(difference(step.dropped, tensorOf(c["dropped"], {-1})), 0);
        }
        if (!c["after"].is_null()) {
            const json &after = c["after"];
            router->afterOptimizerStep({tensorOf(after["load"], {-1})});
            EXPECT_LE(difference(router->buffers().at(after["buffer"]), tensorOf(after["values"], {-1})), 1e-5);
        }
    }
    EXPECT_EQ(seen.size(), 15u);
}

/// Tells the routers of this file: those whose scores are linear and need nothing but the token.
std::vector<json> oneOfEach()
{
    std::map<std::string, json> by;
    for (const json &c : fixture()["cases"])
        by.emplace(c["name"].get<std::string>(), c);
    std::vector<json> list;
    for (auto &[name, c] : by)
        list.push_back(c);
    return list;
}

TEST(LinearRouters, AtInferenceATokenSeesNoOther)
{
    const torch::NoGradGuard noGrad;
    for (const json &c : oneOfEach()) {
        SCOPED_TRACE(c["name"].get<std::string>());
        const auto router = routerOf(c);
        EXPECT_TRUE(router->needs().causal);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token);
        RouterInput input = inputOf(false);
        RouterState state;
        const RoutingStep whole = router->route(input, state, Capture::standard());
        RouterInput part = input;
        part.x = input.x.narrow(0, 10, 1).clone();
        part.mask = torch::Tensor();
        part.offsets = {0, 1};
        const RoutingStep alone = router->route(part, state, Capture::standard());
        EXPECT_TRUE(torch::equal(alone.experts, whole.experts.narrow(0, 10, 1)));
        EXPECT_LE(difference(alone.weights, whole.weights.narrow(0, 10, 1)), 1e-6);
        EXPECT_TRUE(whole.losses.empty());
        EXPECT_TRUE((whole.experts >= 0).all().item<bool>()) << "nothing is dropped at inference";
    }
}

TEST(LinearRouters, PermutingExpertsPermutesTheRouting)
{
    const torch::NoGradGuard noGrad;
    const std::vector<std::int64_t> order = {5, 2, 7, 0, 3, 6, 1, 4}; // new expert i is old expert order[i]
    const torch::Tensor to = torch::tensor(order);
    for (const json &c : oneOfEach()) {
        if (c["options"].contains("n_group"))
            continue; // groups are neighbours: only permutations that keep them are symmetries
        SCOPED_TRACE(c["name"].get<std::string>());
        json permuted = c;
        for (auto &[name, t] : permuted["tensors"].items()) {
            const auto shape = t["shape"].get<std::vector<std::int64_t>>();
            const torch::Tensor rows = torch::tensor(t["values"].get<std::vector<double>>(), torch::kFloat64).view(shape).index_select(0, to).contiguous();
            t["values"] = std::vector<double>(rows.data_ptr<double>(), rows.data_ptr<double>() + rows.numel());
        }
        RouterState state;
        const RoutingStep a = routerOf(c)->route(inputOf(false), state, Capture::standard());
        const RoutingStep b = routerOf(permuted)->route(inputOf(false), state, Capture::standard());
        EXPECT_TRUE(torch::equal(to.index_select(0, b.experts.view({-1})).view(b.experts.sizes()), a.experts));
        EXPECT_LE(difference(a.weights, b.weights), 1e-6);
    }
}

/// d(loss)/dW against central differences, with the chosen experts fixed because top-k has no gradient.
TEST(LinearRouters, GradientsEqualFiniteDifferences)
{
    for (const json &c : oneOfEach()) {
        SCOPED_TRACE(c["name"].get<std::string>());
        json quiet = c;
        if (quiet["options"].contains("capacity_factor"))
            quiet["options"]["capacity_factor"] = 0; // dropping jumps
        const auto router = routerOf(quiet);
        const RouterInput input = inputOf(true);
        const torch::Tensor mix = torch::randn({input.x.size(0), c["topk"].get<std::int64_t>()}, torch::kFloat64);
        std::map<std::string, torch::Tensor> buffers;
        for (const auto &[name, t] : router->buffers())
            buffers[name] = t.clone();
        // Forgets what the micro-batches before have left.
        const auto forget = [&] {
            router->afterOptimizerStep({});
            for (const auto &[name, t] : router->buffers())
                t.copy_(buffers.at(name));
        };
        const auto value = [&](const torch::Tensor &experts) {
            RouterState state;
            const RoutingStep step = router->route(input, state, Capture::standard());
            EXPECT_TRUE(torch::equal(step.experts, experts));
            torch::Tensor sum = (step.weights.to(torch::kFloat64) * mix).sum();
            for (const auto &[name, loss] : step.losses)
                sum = sum + 100 * loss.to(torch::kFloat64);
            forget();
            return sum;
        };
        RouterState state;
        const torch::Tensor experts = router->route(input, state, Capture::standard()).experts;
        forget();
        torch::Tensor w = router->parameters().begin()->second;
        for (const auto &[name, t] : router->parameters())
            if (name.ends_with("router.weight"))
                w = t;
        value(experts).backward();
        const torch::Tensor gradient = w.grad().clone();
        const torch::NoGradGuard noGrad;
        int compared = 0;
        for (const std::int64_t at : {0, 17, 45, 90, 127}) {
            float *const p = w.data_ptr<float>() + at;
            const float kept = *p, h = 1e-3f;
            const auto at2 = [&](float x) {
                *p = x;
                const torch::Tensor chosen = router->route(input, state, Capture::standard()).experts;
                forget();
                return torch::equal(chosen, experts) ? value(experts).item<double>() : std::nan("");
            };
            const double up = at2(kept + h), down = at2(kept - h);
            *p = kept;
            if (std::isnan(up) || std::isnan(down))
                continue; // a choice flips here
            ++compared;
            EXPECT_NEAR((up - down) / (2.0 * static_cast<double>(h)), gradient.view({-1})[at].item<double>(), 2e-2) << at;
        }
        EXPECT_GE(compared, 1);
    }
}

TEST(LinearRouters, NoiseIsSeededAndOnlyInTraining)
{
    for (const char *options : {R"({"type":"noisy_topk"})", R"({"type":"switch_top2","router_jitter_noise":0.5})", R"({"type":"gshard"})"}) {
        SCOPED_TRACE(options);
        const RouterShape shape{16, 8, 2, {0}};
        const auto router = std::move(*makeRouter(options, shape, 5));
        const auto run = [&](bool training, std::uint64_t seed) {
            RouterInput input = inputOf(training);
            input.seed = seed;
            RouterState state;
            const RoutingStep step = router->route(input, state, Capture::standard());
            return torch::cat({step.experts.to(torch::kFloat32), step.weights.detach()}, 1);
        };
        EXPECT_TRUE(torch::equal(run(true, 1), run(true, 1)));
        EXPECT_FALSE(torch::equal(run(true, 1), run(true, 2)));
        EXPECT_TRUE(torch::equal(run(false, 1), run(false, 2)));
    }
}

/// Equations 8 to 11 of appendix A, slot by slot. The noise that was drawn is what the selection has beside the logits.
TEST(LinearRouters, TheLoadLossOfNoisyTopKIsThatOfAChanceToBeChosenWithOtherNoise)
{
    const torch::NoGradGuard noGrad;
    for (const std::int64_t k : {1, 3}) {
        SCOPED_TRACE(k);
        const auto router = std::move(*makeRouter(R"({"type":"noisy_topk"})", {16, 8, k, {0}}, 5));
        torch::manual_seed(2);
        for (const auto &[name, t] : router->parameters())
            t.normal_(0, 0.3);
        const RouterInput input = inputOf(true);
        RouterState state;
        const RoutingStep step = router->route(input, state, Capture::standard());
        const torch::Tensor clean = step.logits.to(torch::kFloat64), noisy = step.selection.to(torch::kFloat64);
        const torch::Tensor x = input.x.to(torch::kFloat64), wn = router->parameters().at("model.layers.0.mlp.router.noise_weight").to(torch::kFloat64);
        const torch::Tensor deviation = (1 + x.matmul(wn.t()).exp()).log(), noise = (noisy - clean) / deviation;
        EXPECT_NEAR(noise.mean().item<double>(), 0, 0.2);
        EXPECT_NEAR(noise.std().item<double>(), 1, 0.15);
        std::vector<double> load(8, 0);
        for (std::int64_t t = 0; t < x.size(0); ++t) {
            if (!input.mask[t].item<bool>())
                continue;
            for (std::int64_t i = 0; i < 8; ++i) {
                std::vector<double> others;
                for (std::int64_t j = 0; j < 8; ++j)
                    if (j != i)
                        others.push_back(noisy[t][j].item<double>());
                std::sort(others.begin(), others.end(), std::greater<>());
                const double z = (clean[t][i].item<double>() - others[static_cast<std::size_t>(k - 1)]) / deviation[t][i].item<double>();
                load[static_cast<std::size_t>(i)] += 0.5 * std::erfc(-z / std::sqrt(2.0));
            }
        }
        const torch::Tensor all = torch::tensor(load, torch::kFloat64);
        const double expected = 0.1 * (all.var(false) / all.mean().square()).item<double>();
        EXPECT_NEAR(step.losses.at("load").item<double>(), expected, 1e-4 * expected);
    }
}

TEST(LinearRouters, GShardTakesItsSecondExpertByChanceAndTwoShares)
{
    const torch::NoGradGuard noGrad;
    torch::manual_seed(4);
    constexpr std::int64_t n = 20000;
    const auto alike = [&](const torch::Tensor &row, bool training) {
        RouterInput input;
        input.x = row.repeat({n, 1});
        input.offsets = {0, n};
        input.training = training;
        input.seed = 9;
        return input;
    };
    const auto router = std::move(*makeRouter(R"({"type":"gshard","capacity_factor":0})", {16, 8, 2, {0}}, 5));
    int compared = 0;
    for (int i = 0; i < 12; ++i) {
        const torch::Tensor row = 20 * torch::randn({1, 16});
        RouterState state;
        const RoutingStep plain = router->route(alike(row, false), state, Capture::standard()), step = router->route(alike(row, true), state, Capture::standard());
        const double second = plain.weights[0][1].item<double>();
        const torch::Tensor used = step.experts.select(1, 1) >= 0;
        EXPECT_NEAR(used.to(torch::kFloat64).mean().item<double>(), 2 * second, 0.02);
        EXPECT_TRUE(torch::equal(step.experts.select(1, 0), plain.experts.select(1, 0)));
        EXPECT_LE(difference(step.weights.select(1, 0), plain.weights.select(1, 0)), 1e-6) << "the first keeps its weight";
        compared += second > 0.05 && second < 0.45;
    }
    EXPECT_GE(compared, 3);
    // All tokens want the same two: each takes 2N/E of them.
    for (const char *options : {R"({"type":"gshard","random_second_expert":false})", R"({"type":"glam"})"}) {
        const auto limited = std::move(*makeRouter(options, {16, 8, 2, {0}}, 5));
        RouterState state;
        const RoutingStep step = limited->route(alike(torch::ones({1, 16}), true), state, Capture::standard());
        EXPECT_EQ((step.experts >= 0).sum().item<std::int64_t>(), 2 * (2 * n / 8)) << options;
        EXPECT_TRUE((step.experts.narrow(0, 0, 2 * n / 8) >= 0).all().item<bool>()) << "the earlier ones keep theirs";
    }
}

TEST(LinearRouters, ABatchThatRunsAgainForItsGradientCountsOnceInQwen3sLoads)
{
    const auto router = std::move(*makeRouter(R"({"type":"qwen3_moe"})", {16, 8, 2, {0}}, 5));
    RouterState state;
    RouterInput first = inputOf(true), second = first;
    second.x = first.x.flip(1);
    const auto loss = [&](const RouterInput &input) { return router->route(input, state, Capture::standard()).losses.at("global_balance").item<double>(); };
    const double one = loss(first);
    first.recomputing = true;
    EXPECT_EQ(loss(first), one);
    const double two = loss(second);
    second.recomputing = true;
    EXPECT_EQ(loss(second), two);
    router->afterOptimizerStep({});
    second.recomputing = false;
    EXPECT_NE(loss(second), two) << "the first batch's loads are forgotten with the step";
}

/// Loads of a stream whose first experts are liked best, with a router that is only ever told its loads.
TEST(LinearRouters, BalancingOnesBalanceASkewedStream)
{
    for (const char *options : {R"({"type":"loss_free","bias_update_rate":0.005})", R"({"type":"quantile"})"}) {
        SCOPED_TRACE(options);
        const torch::NoGradGuard noGrad;
        const auto router = std::move(*makeRouter(options, {16, 8, 2, {0}}, 5));
        torch::manual_seed(1);
        const torch::Tensor lean = router->linearWeights(0).sum(0) * 3 + router->linearWeights(0)[0] * 60 + router->linearWeights(0)[1] * 40;
        const auto load = [&](bool training) {
            RouterInput input;
            input.x = torch::randn({2048, 16}) * 8 + lean;
            input.offsets = {0, 2048};
            input.training = training;
            RouterState state;
            const RoutingStep step = router->route(input, state, Capture::standard());
            return torch::bincount(step.experts.view({-1}), {}, 8).to(torch::kFloat32);
        };
        const auto violation = [](const torch::Tensor &l) { return (l.max() / l.mean() - 1).item<double>(); };
        EXPECT_GT(violation(load(false)), 0.5) << "the stream is skewed";
        for (int i = 0; i < 500; ++i)
            router->afterOptimizerStep({load(true)});
        EXPECT_LT(violation(load(false)), 0.2);
    }
}

TEST(LinearRouters, MethodsOfAFixedTopKAndImpossibleGroupsAreRefused)
{
    const RouterShape shape{16, 8, 2, {0}};
    const auto refused = [&](const char *options) {
        const auto made = makeRouter(options, shape, 1);
        EXPECT_FALSE(made.ok()) << options;
        return made.ok() ? std::string() : made.error().what;
    };
    EXPECT_THAT(refused(R"({"type":"switch_top1"})"), HasSubstr("takes 1 expert per token"));
    EXPECT_THAT(refused(R"({"type":"deepseek_v3","n_group":3})"), HasSubstr("equal groups"));
    EXPECT_THAT(refused(R"({"type":"deepseek_v3","n_group":8,"topk_group":1})"), HasSubstr("fewer experts"));
    EXPECT_THAT(refused(R"({"type":"deepseek_v3","n_group":2,"topk_group":4})"), HasSubstr("larger than n_group"));
    EXPECT_THAT(refused(R"({"type":"loss_free","scoring_func":"tanh"})"), HasSubstr("tanh"));
}

} // namespace
} // namespace spectra
