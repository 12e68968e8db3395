// SPDX-License-Identifier: GPL-3.0-or-later
// StableMoE, expert specialization, RoMA-like and LASER-like against an independent double-precision form
// (tests/fixtures/routers/make_specialised.py), and what must hold for each of them.
#include "engine/router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <fstream>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace spectra {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t kRows = 64, kExperts = 8, kHidden = 16, kLayers = 3;

const json &fixture()
{
    static const json all = [] {
        std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/specialised.json");
        return json::parse(stream);
    }();
    return all;
}

torch::Tensor tensorOf(const json &values, const std::vector<std::int64_t> &shape)
{
    return torch::tensor(values.get<std::vector<double>>(), torch::kFloat64).view(shape).to(torch::kFloat32);
}

RouterShape shapeOf(std::int64_t k)
{
    return {kHidden, kExperts, k, {2, 3, 4}, fixture()["vocabulary"]};
}

/// The router of a case; every layer has the case's tensors.
std::unique_ptr<Router> routerOf(const json &c)
{
    auto made = loadRouter(c["options"].dump(), shapeOf(c["topk"]), [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
        const std::size_t at = name.find(".mlp.");
        const std::string stored = at == std::string::npos ? name : "model.layers.3" + name.substr(at);
        const json &t = c["tensors"];
        return t.contains(stored) ? tensorOf(t[stored]["values"], t[stored]["shape"].get<std::vector<std::int64_t>>()) : torch::Tensor();
    });
    if (!made.ok()) {
        ADD_FAILURE() << made.error().where << ": " << made.error().what;
        return nullptr;
    }
    return std::move(*made);
}

RouterInput inputOf(bool training, bool masked)
{
    const json &f = fixture();
    RouterInput input;
    input.x = tensorOf(f["x"], {kRows, kHidden});
    input.tokenIds = torch::tensor(f["ids"].get<std::vector<std::int64_t>>());
    input.offsets = f["offsets"].get<std::vector<std::int64_t>>();
    if (masked)
        input.mask = tensorOf(f["mask"], {kRows}) > 0.5;
    input.layer = f["layer"];
    input.layers = kLayers;
    input.training = training;
    return input;
}

torch::Tensor outputs()
{
    return tensorOf(fixture()["outputs"], {kRows, 2, kHidden});
}

RoutingStep routed(Router &router, const RouterInput &input)
{
    RouterState state;
    return router.route(input, state, Capture::standard());
}

/// With the loss on the experts' outputs where the router has one.
RoutingStep passed(Router &router, const RouterInput &input)
{
    RoutingStep step = routed(router, input);
    if (input.training && router.needs().expertOutputs)
        router.lossAfterExperts(step, outputs());
    return step;
}

void setTargets(Router &router, const json &c)
{
    if (!c.contains("targets"))
        return;
    const auto shape = c["targets"]["shape"].get<std::vector<std::int64_t>>();
    router.setManifold({tensorOf(c["targets"]["weights"], {shape[0], shape[1]}), tensorOf(c["targets"]["routing"], shape)});
}

double difference(const torch::Tensor &a, const torch::Tensor &b)
{
    EXPECT_EQ(a.sizes(), b.sizes());
    return a.sizes() == b.sizes() ? (a.detach().to(torch::kFloat64) - b.detach().to(torch::kFloat64)).abs().max().item<double>() : INFINITY;
}

const json &caseOf(const std::string &type, bool training = false)
{
    for (const json &c : fixture()["cases"])
        if (c["options"]["type"] == type && c["training"] == training)
            return c;
    throw std::runtime_error("no case of " + type);
}

torch::Tensor loadsOf(const torch::Tensor &experts)
{
    return torch::bincount(experts.reshape({-1}), {}, kExperts).to(torch::kFloat64);
}

double maxViolation(const torch::Tensor &loads)
{
    return (loads.max() / loads.mean() - 1).item<double>();
}

TEST(SpecialisedRouters, EqualTheReference)
{
    std::set<std::string> seen;
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump() + (c["training"].get<bool>() ? " training" : "") + (c["masked"].get<bool>() ? " masked" : ""));
        seen.insert(c["options"]["type"].get<std::string>());
        const auto router = routerOf(c);
        ASSERT_TRUE(router);
        setTargets(*router, c);
        RouterInput input = inputOf(c["training"], c["masked"]);
        RouterState state;
        RoutingStep step = router->route(input, state, Capture::standard());
        if (input.training && router->needs().expertOutputs)
            router->lossAfterExperts(step, outputs());
        EXPECT_TRUE(torch::equal(step.experts, torch::tensor(c["experts"].get<std::vector<std::int64_t>>()).view({kRows, -1})));
        EXPECT_LE(difference(step.weights, tensorOf(c["weights"], {kRows, -1})), 1e-5);
        EXPECT_EQ(step.losses.size(), c["losses"].size());
        for (const auto &[name, value] : c["losses"].items()) {
            ASSERT_TRUE(step.losses.count(name)) << name;
            EXPECT_NEAR(step.losses.at(name).item<double>(), value.get<double>(), 1e-5 * std::abs(value.get<double>()) + 1e-9) << name;
        }
        if (c.contains("dropped") && step.dropped.defined()) {
            EXPECT_LE(difference(step.dropped, tensorOf(c["dropped"], {kRows})), 0);
        }
        if (c.contains("scale")) {
            EXPECT_LE(difference(router->buffers().at("model.layers.3.mlp.router.specialization_scale"), tensorOf(c["scale"], {2})), 1e-6);
        }
        if (c.contains("load")) {
            EXPECT_LE(difference(state.token.select(1, input.layer), tensorOf(c["load"], {3, kExperts})), 1e-6);
            EXPECT_FALSE(torch::equal(step.experts, std::get<1>(step.logits.topk(step.experts.size(1))))) << "plain top-k would say nothing";
        }
    }
    EXPECT_EQ(seen, (std::set<std::string>{"expert_specialization", "laser_like", "roma_like", "stablemoe"}));
}

TEST(SpecialisedRouters, AtInferenceATokenSeesNoOther)
{
    const torch::InferenceMode inference;
    int cases = 0;
    for (const json &c : fixture()["cases"]) {
        if (c["training"].get<bool>() || c["options"]["type"] == "laser_like")
            continue;
        SCOPED_TRACE(c["options"].dump());
        const auto router = routerOf(c);
        EXPECT_TRUE(router->needs().causal);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token);
        const RouterInput input = inputOf(false, false);
        const RoutingStep whole = routed(*router, input);
        RouterInput part = input;
        part.x = input.x.narrow(0, 10, 1).clone();
        part.tokenIds = input.tokenIds.narrow(0, 10, 1);
        part.offsets = {0, 1};
        const RoutingStep alone = routed(*router, part);
        EXPECT_TRUE(torch::equal(alone.experts, whole.experts.narrow(0, 10, 1)));
        EXPECT_LE(difference(alone.weights, whole.weights.narrow(0, 10, 1)), 1e-6);
        EXPECT_TRUE(whole.losses.empty());
        ++cases;
    }
    EXPECT_EQ(cases, 4);
}

TEST(SpecialisedRouters, PermutingExpertsPermutesTheRouting)
{
    const torch::Tensor order = torch::tensor(std::vector<std::int64_t>{5, 2, 7, 0, 3, 6, 1, 4}); // new expert i is old expert order[i]
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump());
        const auto plain = routerOf(c), permuted = routerOf(c);
        setTargets(*plain, c);
        if (c.contains("targets")) {
            const auto shape = c["targets"]["shape"].get<std::vector<std::int64_t>>();
            permuted->setManifold({tensorOf(c["targets"]["weights"], {shape[0], shape[1]}), tensorOf(c["targets"]["routing"], shape).index_select(3, order)});
        }
        const torch::NoGradGuard noGrad;
        for (const auto &[name, t] : permuted->parameters())
            if (!name.ends_with("word_embedding"))
                t.copy_(t.index_select(0, order));
        const RouterInput input = inputOf(c["training"], c["masked"]);
        const RoutingStep a = passed(*plain, input), b = passed(*permuted, input);
        const torch::Tensor back = torch::where(b.experts >= 0, order.index_select(0, b.experts.clamp_min(0).view({-1})).view(b.experts.sizes()), b.experts);
        EXPECT_TRUE(torch::equal(a.experts, back));
        EXPECT_LE(difference(a.weights, b.weights), 1e-6);
        for (const auto &[name, loss] : a.losses)
            EXPECT_NEAR(loss.item<double>(), b.losses.at(name).item<double>(), 1e-6 * std::max(1.0, std::abs(loss.item<double>()))) << name;
    }
}

/// d(Σ mix·weights + Σ scaled losses) over every parameter of the layer against central differences along random directions; where a
/// choice flips between the ends there is no derivative.
TEST(SpecialisedRouters, GradientsAreThoseOfFiniteDifferences)
{
    for (const char *type : {"stablemoe", "expert_specialization", "roma_like", "laser_like"}) {
        SCOPED_TRACE(type);
        json c = caseOf(type, true);
        if (c["options"].contains("capacity_factor"))
            c["options"]["capacity_factor"] = 0;
        c["options"].erase("rescaling"); // aux_loss, found at the first pass
        const auto router = routerOf(c);
        RouterInput input = inputOf(true, false);
        setTargets(*router, c);
        const torch::Tensor mix = torch::randn({kRows, c["topk"].get<std::int64_t>()}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(99)), torch::kFloat64);
        const auto value = [&](const RoutingStep &step) {
            torch::Tensor sum = (step.weights.to(torch::kFloat64) * mix).sum();
            for (const auto &[name, loss] : step.losses)
                sum = sum + (std::string(type) == "expert_specialization" ? 1e3 : 10) * loss.to(torch::kFloat64);
            return sum;
        };
        int reached = 0;
        for (const auto &[name, parameter] : router->parameters()) {
            if (name.find(".layers.3.") == std::string::npos)
                continue;
            SCOPED_TRACE(name);
            const torch::Tensor gradient = torch::autograd::grad({value(passed(*router, input))}, {parameter}, {}, std::nullopt, false, true)[0];
            ASSERT_TRUE(gradient.defined());
            ++reached;
            int compared = 0;
            for (int direction = 0; direction < 40 && compared < 4; ++direction) {
                const torch::Tensor along = torch::randn(parameter.sizes(), at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(direction)));
                const double h = 2e-4;
                torch::Tensor ends[2], chosen[2];
                const torch::NoGradGuard noGrad;
                for (int side = 0; side < 2; ++side) {
                    const torch::Tensor kept = parameter.clone();
                    parameter.add_(along, side == 0 ? h : -h);
                    const RoutingStep step = passed(*router, input);
                    parameter.copy_(kept);
                    ends[side] = value(step);
                    chosen[side] = step.experts;
                }
                if (!torch::equal(chosen[0], chosen[1]))
                    continue;
                const double expected = (gradient * along).sum().item<double>(), found = (ends[0] - ends[1]).item<double>() / (2 * h);
                EXPECT_NEAR(found, expected, 5e-3 * std::max(1.0, gradient.norm().item<double>()));
                ++compared;
            }
            EXPECT_GE(compared, 2);
        }
        EXPECT_EQ(reached, std::string(type) == "stablemoe" ? 3 : 1);
    }
}

TEST(SpecialisedRouters, AFreshOneIsTheSameAfterStoring)
{
    const torch::NoGradGuard noGrad;
    for (const char *type : {"stablemoe", "expert_specialization", "roma_like", "laser_like"}) {
        SCOPED_TRACE(type);
        const auto made = makeRouter(*defaultRouterOptions(type), shapeOf(1), 5);
        ASSERT_TRUE(made.ok());
        auto tensors = (*made)->parameters();
        tensors.merge((*made)->buffers());
        const auto lookup = [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return tensors.count(name) ? tensors.at(name) : torch::Tensor(); };
        const auto loaded = loadRouter((*made)->options(), shapeOf(1), lookup);
        ASSERT_TRUE(loaded.ok());
        for (const auto &[name, t] : (*loaded)->parameters())
            EXPECT_TRUE(torch::equal(t, tensors.at(name))) << name;
        const RouterInput input = inputOf(false, false);
        const RoutingStep a = routed(**made, input), b = routed(**loaded, input);
        EXPECT_TRUE(torch::equal(a.experts, b.experts));
        EXPECT_TRUE(torch::equal(a.weights, b.weights));
        for (const auto &[name, tensor] : tensors) { // each is missed when it is not there
            auto fewer = tensors;
            fewer.erase(name);
            const auto missing = loadRouter((*made)->options(), shapeOf(1), [&](const std::string &wanted, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
                return fewer.count(wanted) ? fewer.at(wanted) : torch::Tensor();
            });
            ASSERT_FALSE(missing.ok()) << name;
            EXPECT_EQ(missing.error().kind, ErrorKind::input);
        }
        RouterInput empty = input;
        empty.x = input.x.narrow(0, 0, 0);
        empty.tokenIds = input.tokenIds.narrow(0, 0, 0);
        empty.offsets = {0, 0};
        RouterInput uncounted = input;
        uncounted.mask = torch::zeros({kRows}, torch::kBool);
        for (const bool training : {false, true}) {
            empty.training = uncounted.training = training;
            EXPECT_EQ(routed(**made, empty).experts.size(0), 0);
            RoutingStep step = routed(**made, uncounted);
            EXPECT_EQ(step.experts.size(0), kRows);
            if (training && (*made)->needs().expertOutputs)
                (*made)->lossAfterExperts(step, outputs().narrow(1, 0, 1));
            for (const auto &[name, loss] : step.losses)
                EXPECT_TRUE(loss.isfinite().item<bool>()) << name;
        }
    }
}

TEST(SpecialisedRouters, TakeOverTheWeightsOfASoftmaxRouter)
{
    const auto own = std::move(*makeRouter(R"({"type":"softmax_topk"})", shapeOf(2), 9));
    const auto tensors = own->parameters();
    const auto lookup = [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return tensors.count(name) ? tensors.at(name) : torch::Tensor(); };
    for (const char *type : {"expert_specialization", "roma_like", "laser_like"}) {
        SCOPED_TRACE(type);
        auto adopted = adoptRouter(*defaultRouterOptions(type), own->options(), shapeOf(2), lookup, 1);
        ASSERT_TRUE(adopted.ok() && *adopted);
        RouterInput input = inputOf(true, false); // where LASER's choice is softmax top-k too
        EXPECT_TRUE(torch::equal(routed(**adopted, input).experts, routed(*own, input).experts));
        EXPECT_TRUE((*adopted)->parameters().begin()->second.requires_grad());
    }
    for (const char *type : {"stablemoe", "loss_free"}) {
        const auto none = adoptRouter(*defaultRouterOptions(type), own->options(), shapeOf(1), lookup, 1);
        EXPECT_TRUE(none.ok() && !*none) << type;
    }
    const auto missing = adoptRouter(R"({"type":"laser_like"})", own->options(), shapeOf(2),
                                     [](const std::string &, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return torch::Tensor(); }, 1);
    ASSERT_FALSE(missing.ok());
    EXPECT_EQ(missing.error().kind, ErrorKind::input);
}

TEST(StableMoe, TheSecondStageIsAFunctionOfTheTokenIdAndNeverMoves)
{
    const RouterShape shape = shapeOf(1);
    const auto router = std::move(*makeRouter(R"({"type":"stablemoe","two_stage_updates":3,"distill_dim":6})", shape, 4));
    const auto stage = [&] { return router->buffers().at("model.router.stage").item<float>(); };
    RouterInput input = inputOf(true, false);
    router->setTrainingStep(0);
    for (int step = 0; step < 3; ++step) {
        EXPECT_EQ(stage(), 1) << step;
        EXPECT_EQ(routed(*router, input).losses.size(), 2u);
        router->afterOptimizerStep({});
    }
    EXPECT_EQ(stage(), 2);
    const RoutingStep settled = routed(*router, input);
    EXPECT_TRUE(settled.losses.empty());
    // The gate still learns, the choice does not.
    for (const auto &[name, t] : router->parameters()) {
        const auto gradient = torch::autograd::grad({routed(*router, input).weights.sum()}, {t}, {}, std::nullopt, false, true)[0];
        EXPECT_EQ(gradient.defined(), name == "model.layers.3.mlp.router.weight") << name;
    }
    {
        const torch::NoGradGuard noGrad; // what an optimiser's decay would do
        for (const auto &[name, t] : router->parameters())
            t.mul_(name.ends_with(".weight") ? -1.0 : 0.5).add_(name.ends_with(".weight") ? 0.0 : 0.3);
        router->afterOptimizerStep({});
    }
    input.training = false;
    const RoutingStep after = routed(*router, input);
    EXPECT_GT(difference(after.weights, settled.weights), 1e-3);
    std::map<std::int64_t, std::int64_t> expertOf;
    for (std::int64_t t = 0; t < kRows; ++t) {
        const auto e = after.experts[t][0].item<std::int64_t>();
        EXPECT_EQ(expertOf.emplace(input.tokenIds[t].item<std::int64_t>(), e).first->second, e);
    }
    // The stage goes with the checkpoint, whatever step a later run counts from.
    auto tensors = router->parameters();
    tensors.merge(router->buffers());
    const auto lookup = [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return tensors.count(name) ? tensors.at(name) : torch::Tensor(); };
    const auto again = loadRouter(router->options(), shape, lookup);
    ASSERT_TRUE(again.ok());
    (*again)->setTrainingStep(0);
    EXPECT_TRUE(torch::equal(routed(**again, input).experts, after.experts));
    input.x = torch::randn({kRows, kHidden});
    EXPECT_TRUE(torch::equal(routed(**again, input).experts, after.experts)) << "whatever the hidden state";
    tensors["model.router.stage"] = torch::full({1}, 3.0);
    const auto wrong = loadRouter(router->options(), shape, lookup);
    ASSERT_FALSE(wrong.ok());
    EXPECT_THAT(wrong.error().what, HasSubstr("1 or 2"));
}

TEST(StableMoe, RefusesWhatItCannotServe)
{
    RouterShape shape = shapeOf(1);
    shape.vocabulary = 0;
    const auto made = makeRouter(R"({"type":"stablemoe"})", shape, 1);
    ASSERT_FALSE(made.ok());
    EXPECT_THAT(made.error().what, HasSubstr("vocabulary"));
    EXPECT_FALSE(makeRouter(R"({"type":"stablemoe"})", shapeOf(2), 1).ok());
    const auto router = std::move(*makeRouter(R"({"type":"stablemoe"})", shapeOf(1), 1));
    RouterInput input = inputOf(false, false);
    input.tokenIds = torch::Tensor();
    EXPECT_ANY_THROW(static_cast<void>(routed(*router, input)));
    input.tokenIds = torch::full({kRows}, 40);
    EXPECT_NO_THROW(static_cast<void>(routed(*router, input))) << "stage 1 asks the hidden state alone";
}

/// A stream on which the fresh router is skewed, and training by the router's own losses alone.
TEST(SpecialisedRouters, BalancingLossesBalanceASkewedStream)
{
    for (const char *options : {R"({"type":"stablemoe","capacity_factor":0})", R"({"type":"expert_specialization","ortho_loss_coef":0,"variance_loss_coef":0,"router_aux_loss_coef":1})"}) {
        SCOPED_TRACE(options);
        const std::int64_t k = std::string(options).find("stable") != std::string::npos ? 1 : 2;
        const auto router = std::move(*makeRouter(options, {kHidden, kExperts, k, {0}, 40}, 5));
        torch::manual_seed(1);
        const torch::Tensor rows = router->linearWeights(0).detach().clone();
        const torch::Tensor unit = rows / rows.norm(2, 1, true), lean = 1.2 * unit[0] + 0.8 * unit[1];
        const auto stream = [&](bool training) {
            RouterInput input;
            input.x = torch::randn({1024, kHidden}) + lean;
            input.tokenIds = torch::zeros({1024}, torch::kInt64);
            input.offsets = {0, 1024};
            input.training = training;
            return input;
        };
        EXPECT_GT(maxViolation(loadsOf(routed(*router, stream(false)).experts)), 0.5) << "the stream is skewed";
        torch::optim::Adam adam({router->linearWeights(0)}, torch::optim::AdamOptions(0.01));
        for (int i = 0; i < 400; ++i) {
            if (i == 250)
                static_cast<torch::optim::AdamOptions &>(adam.param_groups()[0].options()).lr(0.001);
            adam.zero_grad();
            routed(*router, stream(true)).losses.at("balance").backward();
            adam.step();
        }
        torch::Tensor loads = torch::zeros({kExperts}, torch::kFloat64);
        for (int i = 0; i < 8; ++i)
            loads += loadsOf(routed(*router, stream(false)).experts);
        EXPECT_LT(maxViolation(loads), 0.2);
    }
}

TEST(ExpertSpecialization, OutputsAtRightAnglesCostNothingAndTheRouterIsNotAsked)
{
    json c = caseOf("expert_specialization", true);
    c["options"]["rescaling"] = "none";
    const auto router = routerOf(c);
    const RouterInput input = inputOf(true, false);
    torch::Tensor apart = torch::zeros({kRows, 2, kHidden});
    apart.select(1, 0).slice(1, 0, 8) = torch::randn({kRows, 8});
    apart.select(1, 1).slice(1, 8) = torch::randn({kRows, 8});
    RoutingStep step = routed(*router, input);
    router->lossAfterExperts(step, apart);
    EXPECT_EQ(step.losses.at("orthogonality").item<double>(), 0);
    // Alike: each is its own projection on the other.
    const torch::Tensor one = torch::randn({kRows, 1, kHidden}), alike = one.repeat({1, 2, 1}).requires_grad_(true);
    step = routed(*router, input);
    router->lossAfterExperts(step, alike);
    EXPECT_NEAR(step.losses.at("orthogonality").item<double>(), 1e-3 * one.square().sum(2).mean().item<double>(), 1e-7);
    const auto gradients = torch::autograd::grad({step.losses.at("orthogonality")}, {alike, router->linearWeights(1)}, {}, std::nullopt, false, true);
    EXPECT_TRUE(gradients[0].defined());
    EXPECT_FALSE(gradients[1].defined());
    // By finite differences over the outputs.
    const torch::Tensor base = outputs().requires_grad_(true);
    const auto loss = [&](const torch::Tensor &x) {
        RoutingStep s = routed(*router, input);
        router->lossAfterExperts(s, x);
        return 1e3 * s.losses.at("orthogonality").to(torch::kFloat64);
    };
    const torch::Tensor gradient = torch::autograd::grad({loss(base)}, {base})[0];
    for (int direction = 0; direction < 4; ++direction) {
        const torch::Tensor along = torch::randn(base.sizes(), at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(direction)));
        const torch::NoGradGuard noGrad;
        const double found = (loss(base + 1e-3 * along) - loss(base - 1e-3 * along)).item<double>() / 2e-3;
        EXPECT_NEAR((gradient * along).sum().item<double>(), found, 1e-2);
    }
}

TEST(ExpertSpecialization, FactorsAreFoundOnceAndKept)
{
    json c = caseOf("expert_specialization", true);
    c["options"]["rescaling"] = "aux_loss";
    const auto router = routerOf(c);
    RouterInput input = inputOf(true, true);
    static_cast<void>(passed(*router, input));
    const torch::Tensor found = router->buffers().at("model.layers.3.mlp.router.specialization_scale").clone();
    EXPECT_TRUE((found > 0).all().item<bool>());
    EXPECT_EQ(router->buffers().at("model.layers.2.mlp.router.specialization_scale").abs().sum().item<float>(), 0) << "of another layer";
    RoutingStep step = routed(*router, input);
    router->lossAfterExperts(step, 100 * outputs());
    EXPECT_TRUE(torch::equal(router->buffers().at("model.layers.3.mlp.router.specialization_scale"), found));
}

TEST(RomaLike, OnlyTheLastLayersLearnAndABankOfAnotherShapeIsRefused)
{
    const json &c = caseOf("roma_like", true);
    json few = c;
    few["options"]["manifold_layers"] = 1;
    const auto router = routerOf(few);
    RouterInput input = inputOf(true, false);
    for (int layer = 0; layer < kLayers; ++layer) {
        input.layer = layer;
        const RoutingStep step = routed(*router, input);
        EXPECT_EQ(step.weights.requires_grad(), layer == kLayers - 1);
        EXPECT_TRUE(step.losses.empty()) << "no bank";
    }
    setTargets(*router, c); // cached for three layers
    EXPECT_ANY_THROW(static_cast<void>(routed(*router, input)));
    input.offsets = {0, kRows};
    EXPECT_ANY_THROW(static_cast<void>(routed(*router, input)));
    router->setManifold({});
    EXPECT_NO_THROW(static_cast<void>(routed(*router, input)));
}

/// Rows of one sequence in pieces of the given lengths, with one state.
std::tuple<torch::Tensor, torch::Tensor, torch::Tensor> inPieces(Router &router, const torch::Tensor &x, const std::vector<std::int64_t> &lengths)
{
    RouterState state;
    std::vector<torch::Tensor> experts, weights;
    std::int64_t at = 0;
    for (const std::int64_t n : lengths) {
        RouterInput input;
        input.x = x.narrow(0, at, n).clone();
        input.offsets = {0, n};
        input.layers = kLayers;
        for (input.layer = 0; input.layer < kLayers; ++input.layer) {
            const RoutingStep step = router.route(input, state, Capture::standard());
            if (input.layer == 1) {
                experts.push_back(step.experts);
                weights.push_back(step.weights);
            }
        }
        at += n;
        state = state.clone();
    }
    return {torch::cat(experts), torch::cat(weights), state.token};
}

TEST(LaserLike, CutsAndNeighboursChangeNothingToTheBit)
{
    const torch::InferenceMode inference;
    for (const json &c : fixture()["cases"]) {
        if (c["options"]["type"] != "laser_like" || c["training"].get<bool>())
            continue;
        SCOPED_TRACE(c["options"].dump());
        const auto router = routerOf(c);
        EXPECT_TRUE(router->needs().recurrentTokens);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token);
        const torch::Tensor x = inputOf(false, false).x;
        const auto whole = inPieces(*router, x, {kRows});
        for (const std::vector<std::int64_t> &lengths : {std::vector<std::int64_t>{1, 63}, {17, 30, 17}, std::vector<std::int64_t>(kRows, 1)}) {
            const auto cut = inPieces(*router, x, lengths);
            EXPECT_TRUE(torch::equal(std::get<0>(cut), std::get<0>(whole)));
            EXPECT_TRUE(torch::equal(std::get<1>(cut), std::get<1>(whole)));
            EXPECT_TRUE(torch::equal(std::get<2>(cut), std::get<2>(whole)));
        }
        // Beside another sequence, on either side of it.
        for (const bool first : {true, false}) {
            RouterInput input;
            const torch::Tensor other = torch::randn({9, kHidden});
            input.x = first ? torch::cat({x, other}) : torch::cat({other, x});
            input.offsets = {0, first ? kRows : 9, kRows + 9};
            input.layers = kLayers;
            input.layer = 1;
            RouterState state;
            const RoutingStep step = router->route(input, state, Capture::standard());
            EXPECT_TRUE(torch::equal(step.experts.narrow(0, first ? 0 : 9, kRows), std::get<0>(whole)));
            EXPECT_TRUE(torch::equal(step.weights.narrow(0, first ? 0 : 9, kRows), std::get<1>(whole)));
            EXPECT_TRUE(torch::equal(state.token[first ? 0 : 1][1], std::get<2>(whole)[0][1]));
        }
    }
}

TEST(LaserLike, ATokensRoutingDependsOnItsPastOnly)
{
    const torch::InferenceMode inference;
    const auto router = routerOf(caseOf("laser_like"));
    torch::Tensor x = inputOf(false, false).x.clone();
    const auto before = inPieces(*router, x, {kRows});
    const std::int64_t from = 40;
    x.slice(0, from) = torch::randn({kRows - from, kHidden}) * 3;
    const auto after = inPieces(*router, x, {kRows});
    EXPECT_TRUE(torch::equal(std::get<0>(before).narrow(0, 0, from), std::get<0>(after).narrow(0, 0, from)));
    EXPECT_TRUE(torch::equal(std::get<1>(before).narrow(0, 0, from), std::get<1>(after).narrow(0, 0, from)));
    // And it does depend on its past: the running load decides.
    x = inputOf(false, false).x.clone();
    x.slice(0, 0, 8) = x.narrow(0, 8, 1).repeat({8, 1});
    EXPECT_FALSE(torch::equal(std::get<0>(inPieces(*router, x, {kRows})).slice(0, 8), std::get<0>(before).slice(0, 8)));
}

TEST(LaserLike, BalancesWhereTheGateIsFlatAndLeavesItWhereItIsSharp)
{
    const torch::InferenceMode inference;
    const auto router = std::move(*makeRouter(R"({"type":"laser_like","candidate_factor":4})", {kHidden, kExperts, 2, {0}}, 5));
    torch::manual_seed(3);
    const torch::Tensor rows = router->linearWeights(0), unit = rows / rows.norm(2, 1, true);
    RouterInput input;
    input.x = torch::randn({4096, kHidden}) + 1.5 * unit[0] + unit[1];
    input.offsets = {0, 4096};
    const RoutingStep flat = routed(*router, input);
    EXPECT_GT(maxViolation(loadsOf(std::get<1>(flat.logits.topk(2)))), 0.4) << "the stream is skewed";
    EXPECT_LT(maxViolation(loadsOf(flat.experts)), 0.2);
    EXPECT_TRUE(((flat.weights.sum(1) - 1).abs() < 1e-6).all().item<bool>());
    EXPECT_TRUE((flat.weights.select(1, 0) >= flat.weights.select(1, 1)).all().item<bool>());
    input.x = input.x * 1000;
    const RoutingStep sharp = routed(*router, input);
    const torch::Tensor mass = std::get<0>(sharp.probabilities.topk(2)).sum(1);
    const torch::Tensor clear = (mass > 0.81).nonzero().view({-1});
    EXPECT_GT(clear.numel(), 3000);
    const torch::Tensor plain = std::get<1>(torch::sort(sharp.probabilities, true, 1, true)).narrow(1, 0, 2); // of equals, the lower number
    EXPECT_TRUE(torch::equal(sharp.experts.index_select(0, clear), plain.index_select(0, clear)));
}

} // namespace
} // namespace spectra
