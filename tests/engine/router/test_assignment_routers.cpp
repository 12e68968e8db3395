// SPDX-License-Identifier: GPL-3.0-or-later
// Expert choice, hash, S-BASE, BASE, SparseMixer and LPR against an independent double-precision form and SciPy's assignments
// (tests/fixtures/routers/make_assignment.py), and what must hold for each of them.
#include "engine/core/random.h"
#include "engine/router/router.h"
#include "engine/rule/assignment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace spectra {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t kRows = 64, kExperts = 8, kHidden = 16;

const json &fixture()
{
    static const json all = [] {
        std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/assignment.json");
        return json::parse(stream);
    }();
    return all;
}

torch::Tensor tensorOf(const json &values, const std::vector<std::int64_t> &shape)
{
    return torch::tensor(values.get<std::vector<double>>(), torch::kFloat64).view(shape).to(torch::kFloat32);
}

torch::Tensor idsOf(const json &values, const std::vector<std::int64_t> &shape)
{
    return torch::tensor(values.get<std::vector<std::int64_t>>(), torch::kInt64).view(shape);
}

RouterShape shapeOf(std::int64_t k)
{
    return {kHidden, kExperts, k, {3, 4, 5}};
}

/// The router of a case; every layer has the case's tensors.
std::unique_ptr<Router> routerOf(const json &c)
{
    auto made = loadRouter(c["options"].dump(), shapeOf(c["topk"]), [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
        const std::string part = name.substr(name.find(".mlp."));
        if (!c.contains("tensors"))
            return part == ".mlp.router.weight" ? tensorOf(fixture()["weight"], {kExperts, kHidden}) * c.value("scale", 1.0) : torch::Tensor();
        const json &t = c["tensors"];
        const std::string stored = "model.layers.5" + part;
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
    RouterInput input;
    input.x = tensorOf(fixture()["x"], {kRows, kHidden});
    input.tokenIds = idsOf(fixture()["ids"], {kRows});
    input.offsets = {0, 30, kRows};
    if (masked)
        input.mask = tensorOf(fixture()["mask"], {kRows}) > 0.5;
    input.layer = fixture()["layer"];
    input.layers = 3;
    input.training = training;
    input.seed = 11;
    return input;
}

RoutingStep routed(Router &router, const RouterInput &input)
{
    RouterState state;
    return router.route(input, state, Capture::standard());
}

double difference(const torch::Tensor &a, const torch::Tensor &b)
{
    EXPECT_EQ(a.sizes(), b.sizes());
    return a.sizes() == b.sizes() ? (a.detach().to(torch::kFloat64) - b.detach().to(torch::kFloat64)).abs().max().item<double>() : INFINITY;
}

const json &caseOf(const std::string &type, bool training = false, std::int64_t k = 0)
{
    for (const json &c : fixture()["cases"])
        if (c["options"]["type"] == type && c["training"] == training && (k == 0 || c["topk"] == k))
            return c;
    throw std::runtime_error("no case of " + type);
}

/// Rows that each expert got.
std::vector<std::int64_t> loadsOf(const torch::Tensor &experts, std::int64_t count = kExperts)
{
    const torch::Tensor flat = experts.reshape({-1});
    const torch::Tensor loads = torch::bincount(flat.index_select(0, (flat >= 0).nonzero().view({-1})), {}, count);
    return {loads.const_data_ptr<std::int64_t>(), loads.const_data_ptr<std::int64_t>() + count};
}

TEST(AssignmentRouters, EqualTheReference)
{
    std::set<std::string> seen;
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump() + (c["training"].get<bool>() ? " training" : "") + (c["masked"].get<bool>() ? " masked" : ""));
        seen.insert(c["options"]["type"].get<std::string>());
        const auto router = routerOf(c);
        ASSERT_TRUE(router);
        const RoutingStep step = routed(*router, inputOf(c["training"], c["masked"]));
        EXPECT_TRUE(torch::equal(step.experts, idsOf(c["experts"], {kRows, -1})));
        EXPECT_LE(difference(step.weights, tensorOf(c["weights"], {kRows, -1})), 1e-5);
        EXPECT_TRUE((step.weights.slice(1, 0, -1) - step.weights.slice(1, 1) >= 0).all().item<bool>() || c["options"]["type"] == "sbase");
        if (c.contains("plan")) {
            EXPECT_LE(difference(step.selection, tensorOf(c["plan"], {kRows, kExperts})), 1e-5);
        }
        if (c.contains("expert_input")) {
            EXPECT_LE(difference(step.expertInput, tensorOf(c["expert_input"], {kRows, kHidden})), 1e-5);
        }
        if (c.contains("losses")) {
            EXPECT_EQ(step.losses.size(), c["training"].get<bool>() ? 3u : 0u);
            for (const auto &[name, value] : c["losses"].items())
                EXPECT_NEAR(step.losses.at(name).item<double>(), value.get<double>(), 1e-5 * std::abs(value.get<double>())) << name;
        }
    }
    EXPECT_EQ(seen, (std::set<std::string>{"base", "expert_choice", "hash", "lpr", "sbase", "sparsemixer"}));
}

TEST(BalancedAssignment, IsWorthAsMuchAsTheOptimum)
{
    int count = 0;
    for (const json &i : fixture()["instances"]) {
        SCOPED_TRACE(i.dump());
        Random random(i[0].get<std::uint64_t>());
        const auto kind = i[1].get<std::string>();
        const auto n = i[2].get<std::int64_t>(), e = i[3].get<std::int64_t>(), capacity = i[4].get<std::int64_t>();
        std::vector<float> scores;
        for (std::int64_t t = 0; t < n; ++t)
            for (std::int64_t j = 0; j < e; ++j) {
                if (kind == "alike" && t > 0) {
                    scores.push_back(scores[static_cast<std::size_t>(j)]);
                    continue;
                }
                const double value = kind == "ties" ? static_cast<double>(random.below(4)) : random.uniform();
                scores.push_back(static_cast<float>(kind == "skewed" ? value + (j == 0 ? 3 : j < 3 ? -100 : 0) : value));
            }
        const auto answer = rule::balancedAssignment(scores, e, capacity);
        ASSERT_TRUE(answer.ok());
        ASSERT_EQ(static_cast<std::int64_t>(answer->experts.size()), n);
        std::vector<std::int64_t> load(static_cast<std::size_t>(e), 0);
        double value = 0;
        for (std::int64_t t = 0; t < n; ++t) {
            const std::int64_t at = answer->experts[static_cast<std::size_t>(t)];
            ASSERT_TRUE(at >= 0 && at < e);
            ++load[static_cast<std::size_t>(at)];
            value += scores[static_cast<std::size_t>(t * e + at)];
        }
        EXPECT_LE(*std::max_element(load.begin(), load.end()), capacity);
        EXPECT_DOUBLE_EQ(answer->value, value);
        EXPECT_NEAR(value, i[5].get<double>(), 1e-6);
        ++count;
    }
    EXPECT_GE(count, 100);
}

TEST(BalancedAssignment, RefusesWhatItCannotSolve)
{
    const std::vector<float> scores = {1, 2, 3, 4, 5, 6};
    const auto small = rule::balancedAssignment(scores, 2, 1);
    ASSERT_FALSE(small.ok());
    EXPECT_EQ(small.error().kind, ErrorKind::usage);
    std::vector<float> broken = scores;
    broken[3] = NAN;
    const auto bad = rule::balancedAssignment(broken, 2, 2);
    ASSERT_FALSE(bad.ok());
    EXPECT_EQ(bad.error().kind, ErrorKind::input);
    EXPECT_THAT(bad.error().where, HasSubstr("row 1"));
    const auto none = rule::balancedAssignment({}, 2, 0);
    ASSERT_TRUE(none.ok());
    EXPECT_TRUE(none->experts.empty());
}

TEST(AssignmentRouters, AtInferenceATokenSeesNoOther)
{
    const torch::InferenceMode inference;
    for (const char *type : {"hash", "sbase", "base", "sparsemixer", "lpr"}) {
        SCOPED_TRACE(type);
        const auto router = routerOf(caseOf(type));
        EXPECT_TRUE(router->needs().causal);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token);
        EXPECT_EQ(router->needs().tokenIds, std::string(type) == "hash");
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
        EXPECT_LT(whole.violation, 0);
    }
    const auto choice = routerOf(caseOf("expert_choice"));
    EXPECT_FALSE(choice->needs().causal);
    EXPECT_EQ(choice->needs().scope, RouterNeeds::Scope::batch);
    RouterInput first = inputOf(false, false);
    const RoutingStep whole = routed(*choice, first);
    first.x = first.x.narrow(0, 0, 8).clone();
    first.offsets = {0, 8};
    const auto before = loadsOf(whole.experts.narrow(0, 0, 8)), alone = loadsOf(routed(*choice, first).experts);
    EXPECT_EQ(alone, std::vector<std::int64_t>(kExperts, 2)); // ⌈8·2/8⌉
    EXPECT_NE(before, alone) << "the registry says that later tokens matter";
    for (const RouterInfo &info : routerRegistry())
        if (info.name == "expert_choice") {
            EXPECT_FALSE(info.causal);
        }
}

TEST(AssignmentRouters, PermutingExpertsPermutesTheRouting)
{
    const torch::NoGradGuard noGrad;
    const torch::Tensor order = torch::tensor(std::vector<std::int64_t>{5, 2, 7, 0, 3, 6, 1, 4}); // new expert i is old expert order[i]
    int cases = 0;
    for (const json &c : fixture()["cases"]) {
        const auto type = c["options"]["type"].get<std::string>();
        if (type == "hash") // goes by number: there is nothing to permute
            continue;
        SCOPED_TRACE(c["options"].dump());
        const auto plain = routerOf(c), permuted = routerOf(c);
        for (const auto &[name, t] : permuted->parameters())
            if (name.ends_with("router.weight") || name.ends_with("router.keys"))
                t.copy_(t.index_select(0, order));
        const RouterInput input = inputOf(c["training"], c["masked"]);
        const RoutingStep a = routed(*plain, input), b = routed(*permuted, input);
        const torch::Tensor back = torch::where(b.experts >= 0, order.index_select(0, b.experts.clamp_min(0).view({-1})).view(b.experts.sizes()), b.experts);
        EXPECT_TRUE(torch::equal(a.experts, back));
        EXPECT_LE(difference(a.weights, b.weights), 1e-5);
        ++cases;
    }
    EXPECT_GE(cases, 15);
}

TEST(AssignmentRouters, AFreshOneIsTheSameAfterStoring)
{
    const torch::NoGradGuard noGrad;
    for (const char *type : {"expert_choice", "hash", "sbase", "base", "sparsemixer", "lpr"}) {
        SCOPED_TRACE(type);
        const std::string options = *defaultRouterOptions(type);
        const RouterShape shape = shapeOf(1);
        const auto made = makeRouter(options, shape, 5);
        ASSERT_TRUE(made.ok());
        const auto tensors = (*made)->parameters();
        EXPECT_EQ(tensors.empty(), std::string(type) == "hash");
        const auto loaded = loadRouter((*made)->options(), shape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return tensors.count(name) ? tensors.at(name) : torch::Tensor();
        });
        ASSERT_TRUE(loaded.ok());
        const RouterInput input = inputOf(false, false);
        const RoutingStep a = routed(**made, input), b = routed(**loaded, input);
        EXPECT_TRUE(torch::equal(a.experts, b.experts));
        EXPECT_TRUE(torch::equal(a.weights, b.weights));
        if (!tensors.empty()) {
            const auto missing = loadRouter(options, shape, [](const std::string &, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return torch::Tensor(); });
            ASSERT_FALSE(missing.ok());
            EXPECT_EQ(missing.error().kind, ErrorKind::input);
        }
        RouterInput empty = input;
        empty.x = input.x.narrow(0, 0, 0);
        empty.tokenIds = input.tokenIds.narrow(0, 0, 0);
        empty.offsets = {0, 0};
        for (const bool training : {false, true}) {
            empty.training = training;
            EXPECT_EQ(routed(**made, empty).experts.size(0), 0);
        }
        RouterInput uncounted = input;
        uncounted.mask = torch::zeros({kRows}, torch::kBool);
        uncounted.training = true;
        EXPECT_EQ(routed(**made, uncounted).experts.size(0), kRows);
    }
    EXPECT_FALSE(makeRouter(R"({"type":"base"})", shapeOf(2), 0).ok());
    EXPECT_FALSE(makeRouter(R"({"type":"sparsemixer"})", shapeOf(3), 0).ok());
    const auto made = makeRouter(R"({"type":"base"})", shapeOf(1), 0);
    ASSERT_TRUE(made.ok());
    const torch::Tensor centroids = (*made)->linearWeights(1);
    EXPECT_LE(difference(centroids.matmul(centroids.t()), 0.01 * torch::eye(kExperts)), 1e-6);
}

/// The gradient of f over every parameter against central differences along random directions. The decisions must be the same at both
/// ends, else there is no derivative to compare with.
template <typename Objective> void expectGradients(Router &router, const RouterInput &input, const Objective &f)
{
    int reached = 0;
    for (const auto &[name, parameter] : router.parameters()) {
        if (name.find(".layers.5.") == std::string::npos)
            continue;
        SCOPED_TRACE(name);
        torch::Tensor gradient = torch::autograd::grad({f(routed(router, input))}, {parameter}, {}, std::nullopt, false, true)[0];
        reached += gradient.defined();
        if (!gradient.defined())
            gradient = torch::zeros_like(parameter);
        int compared = 0;
        for (int direction = 0; direction < 8; ++direction) {
            const torch::Tensor along = torch::randn(parameter.sizes(), at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(direction)));
            const double h = 2e-3;
            torch::Tensor ends[2], chosen[2];
            const torch::NoGradGuard noGrad;
            for (int side = 0; side < 2; ++side) {
                const double offset = side == 0 ? h : -h;
                const torch::Tensor kept = parameter.clone();
                parameter.add_(along, offset);
                const RoutingStep step = routed(router, input);
                parameter.copy_(kept);
                ends[side] = f(step);
                chosen[side] = step.experts;
            }
            if (!torch::equal(chosen[0], chosen[1]))
                continue;
            const double expected = (gradient * along).sum().item<double>(), found = (ends[0] - ends[1]).item<double>() / (2 * h);
            EXPECT_NEAR(found, expected, 2e-3 * std::max(1.0, gradient.norm().item<double>()));
            ++compared;
        }
        EXPECT_GE(compared, 2);
    }
    EXPECT_GE(reached, 1);
}

TEST(AssignmentRouters, GradientsAreThoseOfFiniteDifferences)
{
    const torch::Tensor a = torch::randn({kRows, kExperts}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(99))).to(torch::kFloat64);
    for (const char *type : {"expert_choice", "sbase", "base"}) {
        SCOPED_TRACE(type);
        const json &c = caseOf(type, std::string(type) != "expert_choice");
        const auto router = routerOf(c);
        // Few rows: so that the assignment stands still over the step.
        RouterInput input = inputOf(c["training"], false);
        input.x = input.x.narrow(0, 0, 12).clone();
        input.offsets = {0, 12};
        const auto few = [&](const RoutingStep &step) { return (step.weights.to(torch::kFloat64) * a.narrow(0, 0, 12).narrow(1, 0, step.weights.size(1))).sum(); };
        expectGradients(*router, input, few);
    }
    const auto lpr = routerOf(caseOf("lpr"));
    RouterInput input = inputOf(false, false);
    input.x = input.x.narrow(0, 0, 12).clone();
    input.offsets = {0, 12};
    const torch::Tensor b = torch::randn({12, kHidden}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(98))).to(torch::kFloat64);
    expectGradients(*lpr, input, [&](const RoutingStep &step) {
        return (step.weights.to(torch::kFloat64) * a.narrow(0, 0, 12).narrow(1, 0, 2)).sum() + (step.expertInput.to(torch::kFloat64) * b).sum();
    });
    input.training = true;
    expectGradients(*lpr, input, [](const RoutingStep &step) {
        return 100 * step.losses.at("diversity").to(torch::kFloat64) + 1000 * step.losses.at("kl").to(torch::kFloat64);
    });
    // The target of the alignment loss is held fixed: only the keys see it.
    const auto parameters = lpr->parameters();
    const torch::Tensor align = routed(*lpr, input).losses.at("align");
    const auto gradients = torch::autograd::grad({align}, {parameters.at("model.layers.5.mlp.router.keys"), parameters.at("model.layers.5.mlp.router.encoder.weight")}, {},
                                                 std::nullopt, false, true);
    EXPECT_NEAR(gradients[0].abs().max().item<double>(), 0.01 * 0.05 / static_cast<double>(gradients[0].numel()), 1e-9);
    EXPECT_FALSE(gradients[1].defined());
}

TEST(ExpertChoice, EveryExpertTakesItsShare)
{
    const torch::NoGradGuard noGrad;
    for (const double factor : {0.5, 1.0, 1.3, 2.0, 8.0, 20.0}) {
        SCOPED_TRACE(factor);
        json c = caseOf("expert_choice");
        c["options"]["capacity_factor"] = factor;
        const auto router = routerOf(c);
        for (const bool masked : {false, true}) {
            const RouterInput input = inputOf(false, masked);
            const RoutingStep step = routed(*router, input);
            const std::int64_t n = masked ? input.mask.sum().item<std::int64_t>() : kRows;
            const torch::Tensor counted = masked ? step.experts.index_select(0, input.mask.nonzero().view({-1})) : step.experts;
            const auto share = std::min(n, static_cast<std::int64_t>(std::ceil(static_cast<double>(n) * factor / kExperts - 1e-9)));
            EXPECT_EQ(loadsOf(counted), std::vector<std::int64_t>(kExperts, share));
            EXPECT_TRUE(torch::equal(step.experts < 0, step.weights == 0));
        }
    }
    // All tokens alike: the earliest are taken.
    const auto router = routerOf(caseOf("expert_choice"));
    RouterInput input = inputOf(false, false);
    input.x = input.x.narrow(0, 0, 1).repeat({kRows, 1});
    const RoutingStep step = routed(*router, input);
    EXPECT_EQ(loadsOf(step.experts.narrow(0, 0, kRows * 2 / kExperts)), std::vector<std::int64_t>(kExperts, kRows * 2 / kExperts));
}

TEST(Hash, DependsOnSeedLayerAndIdAlone)
{
    const auto router = routerOf(json{{"options", {{"type", "hash"}}}, {"topk", 3}});
    RouterInput input = inputOf(false, false);
    constexpr std::int64_t n = 4000;
    input.x = torch::zeros({n, kHidden});
    input.tokenIds = torch::arange(n);
    input.offsets = {0, n};
    const auto distinct = [](const torch::Tensor &experts) { return (std::get<0>(experts.sort(1)).diff(1, 1) > 0).all().item<bool>(); };
    const RoutingStep step = routed(*router, input);
    EXPECT_TRUE(distinct(step.experts));
    EXPECT_NEAR(step.weights.sum().item<double>(), n, 1e-2);
    for (std::int64_t slot = 0; slot < 3; ++slot)
        for (const std::int64_t load : loadsOf(step.experts.narrow(1, slot, 1)))
            EXPECT_NEAR(static_cast<double>(load), n / 8.0, 5 * std::sqrt(n / 8.0)) << "slot " << slot;
    input.x = torch::randn({n, kHidden});
    EXPECT_TRUE(torch::equal(routed(*router, input).experts, step.experts));
    input.layer = 0;
    EXPECT_FALSE(torch::equal(routed(*router, input).experts, step.experts));
    input.layer = 2;
    const auto other = routerOf(json{{"options", {{"type", "hash"}, {"hash_seed", 1}}}, {"topk", 3}});
    EXPECT_FALSE(torch::equal(routed(*other, input).experts, step.experts));

    const auto balanced = routerOf(json{{"options", {{"type", "hash"}, {"assignment", "balanced_ids"}}}, {"topk", 3}});
    const RoutingStep dealt = routed(*balanced, input);
    EXPECT_TRUE(distinct(dealt.experts));
    for (std::int64_t slot = 0; slot < 3; ++slot)
        EXPECT_EQ(loadsOf(dealt.experts.narrow(1, slot, 1)), std::vector<std::int64_t>(kExperts, n / kExperts));
    input.tokenIds = torch::Tensor();
    EXPECT_ANY_THROW(static_cast<void>(routed(*balanced, input)));
}

TEST(SBase, ThePlanIsBalancedInTraining)
{
    const torch::NoGradGuard noGrad;
    const auto router = routerOf(caseOf("sbase", true));
    RouterInput input = inputOf(true, true);
    const torch::Tensor skewed = input.x + 1.5 * router->linearWeights(2)[0]; // all lean towards expert 0
    const auto most = [&] {
        const auto loads = loadsOf(routed(*router, input).experts);
        return static_cast<double>(*std::max_element(loads.begin(), loads.end())) * kExperts / (kRows * 2);
    };
    for (const double scale : {0.5, 1.0, 1000.0}) { // e^1000 has no float
        SCOPED_TRACE(scale);
        input.x = skewed * scale;
        const RoutingStep step = routed(*router, input);
        EXPECT_FALSE(step.weights.isnan().any().item<bool>());
        const torch::Tensor plan = step.selection.index_select(0, input.mask.nonzero().view({-1})).to(torch::kFloat64);
        const double share = static_cast<double>(plan.size(0)) / kExperts, worst = (plan.sum(0) / share - 1).abs().max().item<double>();
        EXPECT_NEAR(step.violation, worst, 1e-5);
        if (scale < 100) {
            EXPECT_LE(worst, 1e-5);
            EXPECT_LE(most(), 1.45); // the k largest of a balanced plan are nearly balanced themselves
        }
    }
    input.x = skewed;
    input.training = false;
    EXPECT_GE(most(), 2.5) << "the scores alone must be skewed for this to say anything";
}

TEST(Base, LoadsAreEqualInTraining)
{
    const auto router = routerOf(caseOf("base", true));
    EXPECT_EQ(loadsOf(routed(*router, inputOf(true, false)).experts), std::vector<std::int64_t>(kExperts, kRows / kExperts));
    const RouterInput masked = inputOf(true, true); // 58 rows count
    const torch::Tensor experts = routed(*router, masked).experts;
    const auto loads = loadsOf(experts.index_select(0, masked.mask.nonzero().view({-1})));
    EXPECT_EQ(*std::max_element(loads.begin(), loads.end()), 8);
    EXPECT_NE(loadsOf(routed(*router, inputOf(false, false)).experts), std::vector<std::int64_t>(kExperts, kRows / kExperts));
}

/// One slot of a SparseMixer row, in double: the softmax over the experts near the best of those still open.
torch::Tensor nearSoftmax(const torch::Tensor &scores, std::int64_t without, double eps, const torch::Tensor &at)
{
    torch::Tensor open = scores.clone(), openAt = at.clone();
    if (without >= 0) {
        open = open.index_fill(0, torch::tensor({without}), -INFINITY);
        openAt = openAt.index_fill(0, torch::tensor({without}), -INFINITY);
    }
    const torch::Tensor most = openAt.max(); // what is near is decided `at`, and does not move with the scores
    return torch::softmax(open.masked_fill((most - at) / torch::maximum(at.abs(), most) > 2 * eps, -INFINITY), 0);
}

TEST(SparseMixer, TrainingWeightsAndBackwardAreThoseOfTheSurrogate)
{
    for (const std::int64_t k : {1, 2}) {
        SCOPED_TRACE(k);
        json c = caseOf("sparsemixer", false, k);
        const double eps = 0.5;
        c["options"]["jitter_eps"] = eps;
        const auto router = routerOf(c);
        const RouterInput input = inputOf(true, false);
        const RoutingStep step = routed(*router, input);
        const torch::Tensor w = tensorOf(fixture()["weight"], {kExperts, kHidden}).to(torch::kFloat64), x = input.x.to(torch::kFloat64);
        const torch::Tensor at = x.matmul(w.t());
        struct Slot {
            std::int64_t row, expert, without;
            double coefficient;
        };
        std::vector<Slot> slots;
        int shrunk = 0, whole = 0, off = 0;
        for (std::int64_t t = 0; t < kRows; ++t) {
            bool matched = false;
            for (std::int64_t swap = 0; swap < k && !matched; ++swap) {
                std::int64_t without = -1;
                int shrunkHere = 0, offHere = 0;
                std::vector<Slot> here;
                bool fits = true;
                for (std::int64_t slot = 0; slot < k; ++slot) {
                    const std::int64_t column = (slot + swap) % k, e = step.experts[t][column].item<std::int64_t>();
                    const torch::Tensor p = nearSoftmax(at[t], without, eps, at[t]);
                    const double value = step.weights[t][column].item<double>(), full = p[e].item<double>();
                    const bool best = p.argmax().item<std::int64_t>() == e;
                    const bool isFull = std::abs(value - full) < 1e-5, isShrunk = std::abs(value - full / (k == 1 ? 2 : 3)) < 1e-5;
                    fits = fits && full > 1e-4 && (best ? isFull : isFull || isShrunk);
                    offHere += !best;
                    shrunkHere += !best && isShrunk;
                    here.push_back({t, e, without, 0.3 * static_cast<double>(column) - std::cos(static_cast<double>(t))});
                    without = e;
                }
                if (!fits)
                    continue;
                matched = true;
                off += offHere;
                shrunk += shrunkHere;
                slots.insert(slots.end(), here.begin(), here.end());
            }
            EXPECT_TRUE(matched) << "row " << t;
            whole += matched;
        }
        EXPECT_EQ(whole, kRows);
        EXPECT_GE(off, 10);
        EXPECT_TRUE(shrunk >= 3 && shrunk < off) << shrunk << " of " << off;

        torch::Tensor coefficients = torch::empty({kRows, k});
        for (std::int64_t t = 0; t < kRows; ++t)
            for (std::int64_t column = 0; column < k; ++column)
                coefficients[t][column] = 0.3 * static_cast<double>(column) - std::cos(static_cast<double>(t));
        const torch::Tensor gradient = torch::autograd::grad({(step.weights * coefficients).sum()}, {router->linearWeights(2)})[0].to(torch::kFloat64);
        const auto surrogate = [&](const torch::Tensor &weight) {
            const torch::Tensor scores = x.matmul(weight.t());
            double sum = 0;
            for (const Slot &s : slots)
                sum += (k == 1 ? 2 : 1) * s.coefficient * nearSoftmax(scores[s.row], s.without, eps, at[s.row])[s.expert].item<double>();
            return sum;
        };
        for (int direction = 0; direction < 5; ++direction) {
            const torch::Tensor along = torch::randn(w.sizes(), at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(direction)), torch::kFloat64);
            const double h = 1e-5, found = (surrogate(w + h * along) - surrogate(w - h * along)) / (2 * h);
            EXPECT_NEAR((gradient * along).sum().item<double>(), found, 1e-4 * std::max(1.0, gradient.norm().item<double>()));
        }
    }
}

TEST(SparseMixer, DrawsFromTheRestrictedSoftmax)
{
    const torch::NoGradGuard noGrad;
    json c = caseOf("sparsemixer", false, 1);
    c["options"]["jitter_eps"] = 0.5;
    const auto router = routerOf(c);
    RouterInput input = inputOf(true, false);
    constexpr std::int64_t n = 20000;
    input.x = input.x.narrow(0, 5, 1).repeat({n, 1});
    input.offsets = {0, n};
    const RoutingStep step = routed(*router, input);
    const torch::Tensor score = step.logits[0].to(torch::kFloat64), p = nearSoftmax(score, -1, 0.5, score);
    EXPECT_GT((p > 0.05).sum().item<std::int64_t>(), 1) << "a row with one expert alone would say nothing";
    const auto loads = loadsOf(step.experts);
    std::int64_t halved = 0, off = 0;
    for (std::int64_t e = 0; e < kExperts; ++e) {
        const double expected = p[e].item<double>();
        EXPECT_NEAR(static_cast<double>(loads[static_cast<std::size_t>(e)]) / n, expected, 0.015);
        if (expected == 0) {
            EXPECT_EQ(loads[static_cast<std::size_t>(e)], 0);
        }
        if (e == p.argmax().item<std::int64_t>() || expected == 0)
            continue;
        const torch::Tensor weights = step.weights.view({-1}).index_select(0, (step.experts.view({-1}) == e).nonzero().view({-1}));
        off += weights.numel();
        halved += (weights < 0.75 * expected).sum().item<std::int64_t>();
    }
    EXPECT_NEAR(static_cast<double>(halved) / static_cast<double>(off), 0.5, 0.03);
    EXPECT_TRUE(torch::equal(routed(*router, input).experts, step.experts)) << "the same seed, the same draw";
    input.seed = 12;
    EXPECT_FALSE(torch::equal(routed(*router, input).experts, step.experts));

    // Two experts: a first one that is not the best has its whole weight in a quarter of the cases, else a third of it.
    c["topk"] = 2;
    const auto pairs = routerOf(c);
    const RoutingStep two = routed(*pairs, input);
    std::int64_t full = 0, third = 0;
    for (std::int64_t e = 0; e < kExperts; ++e) {
        const double value = p[e].item<double>();
        if (e == p.argmax().item<std::int64_t>() || value < 0.01)
            continue;
        const torch::Tensor weights = two.weights.view({-1}).index_select(0, (two.experts.view({-1}) == e).nonzero().view({-1}));
        full += ((weights - value).abs() < 1e-6).sum().item<std::int64_t>();
        third += ((weights - value / 3).abs() < 1e-6).sum().item<std::int64_t>();
    }
    EXPECT_GE(full + third, 1000);
    EXPECT_NEAR(static_cast<double>(full) / static_cast<double>(full + third), 0.25, 0.03);
}

TEST(Lpr, NoiseIsForTrainingOnly)
{
    const auto router = routerOf(caseOf("lpr"));
    RouterInput input = inputOf(true, true);
    const RoutingStep a = routed(*router, input), again = routed(*router, input);
    input.seed = 12;
    const RoutingStep b = routed(*router, input);
    EXPECT_EQ(a.losses.at("align").item<float>(), again.losses.at("align").item<float>());
    EXPECT_NE(a.losses.at("align").item<float>(), b.losses.at("align").item<float>());
    EXPECT_TRUE(torch::equal(a.experts, b.experts));
    input.training = false;
    const RoutingStep quiet = routed(*router, input);
    EXPECT_TRUE(quiet.losses.empty());
    EXPECT_TRUE(torch::equal(quiet.weights, a.weights));
}

} // namespace
} // namespace spectra
