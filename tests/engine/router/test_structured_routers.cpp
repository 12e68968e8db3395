// SPDX-License-Identifier: GPL-3.0-or-later
// ERMoE-like, EMoE-like, domain mixture, MaxScore-like and hashing by table against an independent double-precision form
// (tests/fixtures/routers/make_structured.py), and what must hold for each of them.
#include "engine/core/random.h"
#include "engine/router/hashtables.h"
#include "engine/router/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace spectra {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::int64_t kRows = 64, kExperts = 8, kHidden = 16;

const json &fixture()
{
    static const json all = [] {
        std::ifstream stream(std::string(SPECTRA_TEST_DIR) + "/fixtures/routers/structured.json");
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

std::unique_ptr<Router> made(Result<std::unique_ptr<Router>> result)
{
    if (!result.ok()) {
        ADD_FAILURE() << result.error().where << ": " << result.error().what;
        return nullptr;
    }
    return std::move(*result);
}

/// The router of a case, which has one layer.
std::unique_ptr<Router> routerOf(const json &c)
{
    const RouterShape shape{kHidden, kExperts, c["topk"], {fixture()["layer"].get<std::int64_t>()}};
    return made(loadRouter(c["options"].dump(), shape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
        const json &t = c["tensors"];
        return t.contains(name) ? tensorOf(t[name]["values"], t[name]["shape"].get<std::vector<std::int64_t>>()) : torch::Tensor();
    }));
}

RouterInput inputOf(bool training, bool masked)
{
    RouterInput input;
    input.x = tensorOf(fixture()["x"], {kRows, kHidden});
    input.tokenIds = torch::arange(kRows);
    input.offsets = {0, 30, kRows};
    if (masked)
        input.mask = tensorOf(fixture()["mask"], {kRows}) > 0.5;
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

std::vector<json> casesOf(const std::string &type)
{
    std::vector<json> list;
    for (const json &c : fixture()["cases"])
        if (c["options"]["type"] == type)
            list.push_back(c);
    return list;
}

std::vector<std::int64_t> loadsOf(const torch::Tensor &experts, std::int64_t count = kExperts)
{
    const torch::Tensor flat = experts.reshape({-1});
    const torch::Tensor loads = torch::bincount(flat.index_select(0, (flat >= 0).nonzero().view({-1})), {}, count);
    return {loads.const_data_ptr<std::int64_t>(), loads.const_data_ptr<std::int64_t>() + count};
}

double violationOf(const std::vector<std::int64_t> &loads)
{
    std::int64_t sum = 0;
    for (const std::int64_t l : loads)
        sum += l;
    return static_cast<double>(*std::max_element(loads.begin(), loads.end())) * static_cast<double>(loads.size()) / static_cast<double>(sum) - 1;
}

const std::vector<std::string> kTypes = {"ermoe_like", "emoe_like", "domain_gmm", "maxscore_like"};

TEST(StructuredRouters, EqualTheReference)
{
    std::map<std::string, int> seen;
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump() + (c["training"].get<bool>() ? " training" : "") + (c["masked"].get<bool>() ? " masked" : ""));
        ++seen[c["options"]["type"].get<std::string>()];
        const auto router = routerOf(c);
        ASSERT_TRUE(router);
        const RoutingStep step = routed(*router, inputOf(c["training"], c["masked"]));
        EXPECT_TRUE(torch::equal(step.experts, idsOf(c["experts"], {kRows, -1})));
        EXPECT_LE(difference(step.weights, tensorOf(c["weights"], {kRows, -1})), 1e-5);
        EXPECT_LE(difference(step.probabilities, tensorOf(c["probabilities"], {kRows, kExperts})), 1e-5);
        EXPECT_EQ(step.losses.size(), c["losses"].size());
        for (const auto &[name, value] : c["losses"].items())
            EXPECT_NEAR(step.losses.at(name).item<double>(), value.get<double>(), 1e-5 * std::max(1.0, std::abs(value.get<double>()))) << name;
        if (c.contains("dropped")) {
            EXPECT_TRUE(torch::equal(step.dropped.to(torch::kInt64), idsOf(c["dropped"], {kRows})));
        }
        if (router->weightSum() > 0 && !c.contains("dropped")) {
            EXPECT_LE(difference(step.weights.sum(1), torch::full({kRows}, router->weightSum())), 1e-5);
        }
    }
    EXPECT_EQ(seen.size(), kTypes.size());
}

TEST(StructuredRouters, AtInferenceATokenSeesNoOther)
{
    const torch::InferenceMode inference;
    for (const std::string &type : kTypes) {
        SCOPED_TRACE(type);
        const auto router = routerOf(casesOf(type)[0]);
        EXPECT_TRUE(router->needs().causal);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token);
        const RouterInput input = inputOf(false, false);
        const RoutingStep whole = routed(*router, input);
        RouterInput part = input;
        part.x = input.x.narrow(0, 10, 1).clone();
        part.offsets = {0, 1};
        const RoutingStep alone = routed(*router, part);
        EXPECT_TRUE(torch::equal(alone.experts, whole.experts.narrow(0, 10, 1)));
        EXPECT_LE(difference(alone.weights, whole.weights.narrow(0, 10, 1)), 1e-5);
        EXPECT_TRUE(whole.losses.empty());
        EXPECT_TRUE((whole.experts >= 0).all().item<bool>()) << "nothing is dropped at inference";
    }
}

TEST(StructuredRouters, PermutingExpertsPermutesTheRouting)
{
    const torch::NoGradGuard noGrad;
    const torch::Tensor order = torch::tensor(std::vector<std::int64_t>{5, 2, 7, 0, 3, 6, 1, 4}); // new expert i is old expert order[i]
    const std::set<std::string> perExpert = {"weight", "bias", "shares", "mixture.logits", "mixture.means", "mixture.log_variances"};
    for (const json &c : fixture()["cases"]) {
        SCOPED_TRACE(c["options"].dump());
        const auto plain = routerOf(c), permuted = routerOf(c);
        for (const auto &[name, t] : permuted->parameters()) {
            const std::string part = name.substr(name.find(".router.") + 8);
            if (perExpert.count(part) || (part == "basis" && t.size(0) == kExperts))
                t.copy_(t.index_select(0, order));
        }
        const RouterInput input = inputOf(c["training"], c["masked"]);
        const RoutingStep a = routed(*plain, input), b = routed(*permuted, input);
        const torch::Tensor back = torch::where(b.experts >= 0, order.index_select(0, b.experts.clamp_min(0).view({-1})).view(b.experts.sizes()), b.experts);
        EXPECT_TRUE(torch::equal(a.experts, back));
        EXPECT_LE(difference(a.weights, b.weights), 1e-5);
        for (const auto &[name, loss] : a.losses)
            EXPECT_NEAR(loss.item<double>(), b.losses.at(name).item<double>(), 1e-5);
    }
}

/// The gradient of f over every parameter against central differences along random directions; where the choice changes on the way there
/// is no derivative to compare with. Returns how many parameters f depends on.
template <typename Objective> int expectGradients(Router &router, const RouterInput &input, const Objective &f)
{
    int reached = 0;
    for (const auto &[name, parameter] : router.parameters()) {
        SCOPED_TRACE(name);
        torch::Tensor gradient = torch::autograd::grad({f(routed(router, input))}, {parameter}, {}, std::nullopt, false, true)[0];
        reached += gradient.defined();
        if (!gradient.defined())
            gradient = torch::zeros_like(parameter);
        int compared = 0;
        for (int direction = 0; direction < 16; ++direction) {
            const torch::Tensor along = torch::randn(parameter.sizes(), at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(direction)));
            const double h = 1e-3;
            torch::Tensor ends[2], chosen[2];
            const torch::NoGradGuard noGrad;
            for (int side = 0; side < 2; ++side) {
                const torch::Tensor kept = parameter.clone();
                parameter.add_(along, side == 0 ? h : -h);
                const RoutingStep step = routed(router, input);
                parameter.copy_(kept);
                ends[side] = f(step);
                chosen[side] = step.experts;
            }
            if (!torch::equal(chosen[0], chosen[1]))
                continue;
            const double expected = (gradient * along).sum().item<double>(), found = (ends[0] - ends[1]).item<double>() / (2 * h);
            EXPECT_NEAR(found, expected, 4e-3 * std::max(1.0, gradient.norm().item<double>()));
            ++compared;
        }
        EXPECT_GE(compared, 1);
    }
    return reached;
}

TEST(StructuredRouters, GradientsAreThoseOfFiniteDifferences)
{
    const torch::Tensor a = torch::randn({kRows, kExperts}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(99))).to(torch::kFloat64);
    for (const std::string &type : kTypes)
        for (const json &c : casesOf(type)) {
            SCOPED_TRACE(c["options"].dump());
            const auto router = routerOf(c);
            RouterInput input = inputOf(c["training"], false);
            input.x = input.x.narrow(0, 0, 12).clone(); // few rows, so that the choice stands still over a step
            input.offsets = {0, 12};
            const auto weights = [&](const RoutingStep &step) {
                return (step.weights.to(torch::kFloat64) * a.narrow(0, 0, 12).narrow(1, 0, step.weights.size(1))).sum() + (step.probabilities.to(torch::kFloat64) * a.narrow(0, 0, 12)).sum();
            };
            if (type != "domain_gmm") {
                const int reached = expectGradients(*router, input, weights);
                EXPECT_EQ(reached, static_cast<int>(router->parameters().size())) << "all parameters are trained by the task";
            }
            const RoutingStep first = routed(*router, input);
            for (const auto &item : first.losses) {
                const std::string loss = item.first;
                SCOPED_TRACE(loss);
                expectGradients(*router, input, [loss](const RoutingStep &step) { return (loss == "nll" ? 100 : 1) * step.losses.at(loss).to(torch::kFloat64); });
            }
        }
}

TEST(Ermoe, BasesStayOrthonormalAndScoresAreCosines)
{
    const RouterShape shape{kHidden, kExperts, 2, {1, 3}};
    const auto router = made(makeRouter(R"({"type":"ermoe_like"})", shape, 3));
    for (const auto &[name, basis] : router->parameters())
        EXPECT_EQ(basis.sizes(), (torch::IntArrayRef{kExperts, kHidden / 2, kHidden})) << "half the hidden size is the most";
    const auto worst = [&] {
        double most = 0;
        for (const auto &[name, basis] : router->parameters())
            most = std::max(most, (basis.matmul(basis.transpose(1, 2)) - torch::eye(kHidden / 2)).abs().max().item<double>());
        return most;
    };
    EXPECT_LE(worst(), 1e-6);
    std::map<std::string, torch::Tensor> before;
    for (const auto &[name, basis] : router->parameters()) {
        const torch::NoGradGuard noGrad;
        basis.add_(torch::randn_like(basis), 0.01);
        before[name] = basis.clone();
    }
    EXPECT_GT(worst(), 1e-3);
    router->afterOptimizerStep({});
    EXPECT_LE(worst(), 1e-6);
    for (const auto &[name, basis] : router->parameters()) {
        EXPECT_LE(difference(basis, before[name]), 0.2) << "a retraction hardly moves what is nearly orthonormal";
        // Rows span what they spanned: the retraction changes no subspace.
        const torch::Tensor b = before[name], onto = b.matmul(basis.transpose(1, 2)).matmul(basis);
        EXPECT_LE(difference(b, onto), 1e-5);
    }
    const RoutingStep step = routed(*router, inputOf(false, false));
    EXPECT_TRUE(torch::logical_and(step.logits >= 0, step.logits <= 1 + 1e-6).all().item<bool>());
    // A token of an expert's own subspace has cosine 1 there, and the length of a token does not matter.
    RouterInput input = inputOf(false, false);
    const torch::Tensor own = router->parameters().begin()->second.detach();
    input.x = own.index({torch::indexing::Slice(), 0}).clone() * 7;
    input.offsets = {0, kExperts};
    const RoutingStep at = routed(*router, input);
    EXPECT_TRUE(torch::equal(at.experts.select(1, 0), torch::arange(kExperts)));
    EXPECT_LE(difference(at.logits.diagonal(), torch::ones({kExperts})), 1e-6);
    input.x = torch::zeros({1, kHidden});
    input.offsets = {0, 1};
    EXPECT_FALSE(routed(*router, input).weights.isnan().any().item<bool>());
    const auto free = made(makeRouter(R"({"type":"ermoe_like","qr_retraction":false})", shape, 3));
    const torch::Tensor basis = free->parameters().begin()->second;
    {
        const torch::NoGradGuard noGrad;
        basis.mul_(2);
    }
    free->afterOptimizerStep({});
    EXPECT_NEAR(basis.norm().item<double>(), 2 * std::sqrt(8.0 * 8), 1e-3) << "switched off, nothing is touched";
}

TEST(DomainGmm, LearnsTheTextsDomainsWithoutTheTasksGradient)
{
    // Four kinds of tokens; the mixture is to tell them apart.
    const RouterShape shape{kHidden, 4, 1, {0}};
    const auto router = made(makeRouter(R"({"type":"domain_gmm","latent_dim":4,"components":1})", shape, 2));
    const torch::Tensor centres = 3 * torch::randn({4, kHidden}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(4)));
    auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(5));
    const torch::Tensor kind = torch::arange(256) % 4;
    RouterInput input;
    input.x = (centres.index_select(0, kind) + 0.3 * torch::randn({256, kHidden}, generator)).set_requires_grad(true);
    input.offsets = {0, 256};
    input.training = true;
    std::vector<torch::Tensor> parameters;
    for (const auto &[name, t] : router->parameters())
        parameters.push_back(t);
    torch::optim::Adam optimizer(parameters, torch::optim::AdamOptions(0.02));
    double first = 0, last = 0;
    for (int i = 0; i < 300; ++i) {
        optimizer.zero_grad();
        const RoutingStep step = routed(*router, input);
        EXPECT_FALSE(step.weights.requires_grad());
        EXPECT_FALSE(step.probabilities.requires_grad());
        const torch::Tensor loss = step.losses.at("nll") + step.losses.at("reconstruction");
        loss.backward();
        EXPECT_FALSE(input.x.grad().defined()) << "the router's loss must not reach the model";
        optimizer.step();
        (i == 0 ? first : last) = loss.item<double>();
    }
    EXPECT_LT(last, 0.5 * first);
    input.training = false;
    const RoutingStep step = routed(*router, input);
    std::map<std::int64_t, std::set<std::int64_t>> expertsOfKind;
    for (std::int64_t t = 0; t < 256; ++t)
        expertsOfKind[t % 4].insert(step.experts[t][0].item<std::int64_t>());
    for (const auto &[k, experts] : expertsOfKind)
        EXPECT_EQ(experts.size(), 1u) << "a domain goes to one expert";
    // Far outside everything the densities underflow, and still there is a choice.
    input.x = 1e4 * torch::ones({1, kHidden});
    input.offsets = {0, 1};
    EXPECT_TRUE(routed(*router, input).weights.isfinite().all().item<bool>());
}

TEST(MaxScore, BalancesInTrainingWithoutEmptySlots)
{
    const torch::NoGradGuard noGrad;
    const RouterShape shape{kHidden, kExperts, 2, {0}};
    for (const int group : {4096, 100}) {
        const auto router = made(makeRouter(json{{"type", "maxscore_like"}, {"group_rows", group}}.dump(), shape, 5));
        const torch::Tensor w = router->linearWeights(0);
        RouterInput input;
        input.x = torch::randn({2048, kHidden}, at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(1))) * 8 + w.sum(0) * 3 + w[0] * 60 + w[1] * 40;
        input.offsets = {0, 2048};
        const RoutingStep free = routed(*router, input);
        EXPECT_GT(violationOf(loadsOf(free.experts)), 0.5) << "the stream is skewed";
        input.training = true;
        const RoutingStep step = routed(*router, input);
        EXPECT_LT(violationOf(loadsOf(step.experts)), group == 4096 ? 1e-9 : 0.2);
        EXPECT_TRUE((step.experts >= 0).all().item<bool>());
        EXPECT_EQ(step.dropped.sum().item<std::int64_t>(), 0);
        EXPECT_LE(difference(step.weights.sum(1), torch::ones({2048})), 1e-5);
    }
    // With less room than slots, as many as fit are kept.
    const auto tight = made(makeRouter(R"({"type":"maxscore_like","capacity_factor":0.5})", shape, 5));
    RouterInput input = inputOf(true, true);
    const RoutingStep step = routed(*tight, input);
    const torch::Tensor counted = input.mask.nonzero().view({-1});
    EXPECT_EQ(loadsOf(step.experts.index_select(0, counted)), std::vector<std::int64_t>(kExperts, 8)); // ⌈0.5·58·2/8⌉
    EXPECT_EQ(step.dropped.index_select(0, counted).sum().item<std::int64_t>(), 58 * 2 - 64);
    EXPECT_TRUE(torch::equal(step.experts < 0, step.weights == 0));
}

RouterShape hashShape(std::int64_t k, std::int64_t vocabulary)
{
    RouterShape shape{kHidden, kExperts, k, {3, 4}};
    shape.vocabulary = vocabulary;
    return shape;
}

/// The experts of every id in a layer.
torch::Tensor expertsOf(Router &router, std::int64_t vocabulary, int layer)
{
    RouterInput input;
    input.x = torch::zeros({vocabulary, kHidden});
    input.tokenIds = torch::arange(vocabulary);
    input.offsets = {0, vocabulary};
    input.layer = layer;
    return routed(router, input).experts;
}

TEST(HashTables, BalancedByOccurrences)
{
    for (const json &c : fixture()["hash"]) {
        const std::int64_t k = c["topk"], v = static_cast<std::int64_t>(c["counts"].size());
        SCOPED_TRACE(k);
        const torch::Tensor counts = idsOf(c["counts"], {v});
        const auto table = balancedTable(counts, kExperts, k);
        ASSERT_TRUE(table.ok());
        EXPECT_TRUE(torch::equal(*table, idsOf(c["table"], {v, k})));
        const auto router = made(makeRouter(R"({"type":"hash","assignment":"balanced"})", hashShape(k, v), 0));
        EXPECT_TRUE(router->needs().tokenCounts);
        EXPECT_FALSE(router->needs().tokenEmbeddings);
        ASSERT_EQ(router->notes().size(), 1u);
        const auto plain = made(makeRouter(R"({"type":"hash"})", hashShape(k, v), 0));
        EXPECT_TRUE(torch::equal(expertsOf(*router, v, 0), expertsOf(*plain, v, 0))) << "as random until it is told the counts";
        ASSERT_TRUE(router->setTokenCounts(counts).ok());
        EXPECT_FALSE(router->needs().tokenCounts);
        EXPECT_TRUE(router->notes().empty());
        const torch::Tensor first = expertsOf(*router, v, 0), second = expertsOf(*router, v, 1);
        EXPECT_FALSE(torch::equal(first, second)) << "each layer has its own numbers";
        for (const torch::Tensor &experts : {first, second}) {
            torch::Tensor load = torch::zeros({kExperts}, torch::kInt64);
            for (std::int64_t slot = 0; slot < k; ++slot)
                load.index_add_(0, experts.select(1, slot), counts);
            std::vector<std::int64_t> sorted(load.const_data_ptr<std::int64_t>(), load.const_data_ptr<std::int64_t>() + kExperts);
            std::sort(sorted.begin(), sorted.end());
            auto expected = c["load"].get<std::vector<std::int64_t>>();
            std::sort(expected.begin(), expected.end());
            EXPECT_EQ(sorted, expected);
            if (k == 1) {
                EXPECT_LT(violationOf(sorted), 1.2) << "one id alone may be more than a share";
            }
            if (k == 2) {
                EXPECT_LT(violationOf(sorted), 0.2);
            }
        }
        // What it was told is kept with the checkpoint.
        const auto buffers = router->buffers();
        ASSERT_EQ(buffers.size(), 1u);
        const auto loaded = made(loadRouter(router->options(), hashShape(k, v), [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return buffers.count(name) ? buffers.at(name) : torch::Tensor();
        }));
        EXPECT_FALSE(loaded->needs().tokenCounts);
        EXPECT_TRUE(torch::equal(expertsOf(*loaded, v, 1), second));
    }
}

TEST(HashTables, ClustersOfEmbeddings)
{
    // Eight heaps far apart: ids of one heap have one expert.
    constexpr std::int64_t v = 400;
    auto generator = at::make_generator<at::CPUGeneratorImpl>(std::uint64_t(8));
    const torch::Tensor heaps = 20 * torch::randn({kExperts, 12}, generator), embeddings = heaps.index_select(0, torch::arange(v) % kExperts) + torch::randn({v, 12}, generator);
    const auto router = made(makeRouter(R"({"type":"hash","assignment":"clustered"})", hashShape(2, v), 0));
    EXPECT_TRUE(router->needs().tokenEmbeddings);
    EXPECT_FALSE(router->needs().tokenCounts);
    EXPECT_TRUE(router->setTokenCounts(torch::ones({v}, torch::kInt64)).ok()) << "not asked for and ignored";
    EXPECT_TRUE(router->needs().tokenEmbeddings);
    ASSERT_TRUE(router->setTokenEmbeddings(embeddings).ok());
    EXPECT_FALSE(router->needs().tokenEmbeddings);
    const torch::Tensor experts = expertsOf(*router, v, 0);
    std::set<std::int64_t> used;
    for (std::int64_t id = 0; id < v; ++id) {
        EXPECT_EQ(experts[id][0].item<std::int64_t>(), experts[id % kExperts][0].item<std::int64_t>());
        EXPECT_NE(experts[id][0].item<std::int64_t>(), experts[id][1].item<std::int64_t>());
        used.insert(experts[id][0].item<std::int64_t>());
    }
    EXPECT_EQ(used.size(), static_cast<std::size_t>(kExperts));
    // Without heaps: a fixed point of Lloyd's iteration, each id at the nearest mean of what is assigned; the k nearest in order.
    const torch::Tensor loose = torch::randn({v, 5}, generator).to(torch::kFloat64);
    const auto table = clusteredTable(loose, kExperts, 3, 4);
    ASSERT_TRUE(table.ok());
    std::vector<torch::Tensor> means;
    for (std::int64_t e = 0; e < kExperts; ++e)
        means.push_back(loose.index_select(0, (table->select(1, 0) == e).nonzero().view({-1})).mean(0));
    const torch::Tensor distance = torch::cdist(loose, torch::stack(means)), order = std::get<1>(distance.sort(1)).slice(1, 0, 3);
    EXPECT_TRUE(torch::equal(order, *table));
    EXPECT_TRUE(torch::equal(*clusteredTable(loose, kExperts, 3, 4), *table));
    EXPECT_FALSE(torch::equal(*clusteredTable(loose, kExperts, 3, 5), *table));
    // Fewer different embeddings than experts: empty clusters are no obstacle.
    EXPECT_TRUE(clusteredTable(torch::ones({20, 3}), kExperts, 1, 0).ok());
    EXPECT_TRUE(clusteredTable(torch::arange(40).remainder(3).unsqueeze(1), kExperts, 8, 0).ok());
}

TEST(HashTables, BadInputIsNamed)
{
    const auto noVocabulary = makeRouter(R"({"type":"hash","assignment":"balanced"})", hashShape(1, 0), 0);
    ASSERT_FALSE(noVocabulary.ok());
    EXPECT_THAT(noVocabulary.error().what, HasSubstr("vocabulary"));
    const auto router = made(makeRouter(R"({"type":"hash","assignment":"balanced"})", hashShape(1, 10), 0));
    EXPECT_THAT(router->setTokenCounts(torch::ones({9}, torch::kInt64)).error().what, HasSubstr("for 9 token ids, but the vocabulary has 10"));
    EXPECT_FALSE(router->setTokenCounts(torch::full({10}, -1, torch::kInt64)).ok());
    EXPECT_TRUE(router->needs().tokenCounts) << "nothing was taken";
    const auto clustered = made(makeRouter(R"({"type":"hash","assignment":"clustered"})", hashShape(1, 10), 0));
    torch::Tensor broken = torch::randn({10, 3});
    broken[4][1] = NAN;
    EXPECT_THAT(clustered->setTokenEmbeddings(broken).error().where, HasSubstr("token id 4"));
    EXPECT_FALSE(clustered->setTokenEmbeddings(torch::ones({10})).ok());
    EXPECT_FALSE(clusteredTable(torch::ones({3, 2}), 8, 1, 0).ok());
    const auto load = [](const torch::Tensor &table) {
        return loadRouter(R"({"type":"hash","assignment":"balanced"})", hashShape(2, 3), [&](const std::string &, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return table; });
    };
    EXPECT_TRUE(load(torch::tensor({{0, 1}, {7, 2}, {3, 0}})).ok());
    EXPECT_TRUE(load(torch::full({3, 2}, -1.0)).ok()) << "not made yet";
    for (const torch::Tensor &bad : {torch::tensor({{0, 1}, {8, 2}, {3, 0}}), torch::tensor({{0, 1}, {2, 2}, {3, 0}}), torch::tensor({{0, 1}, {-1, 2}, {3, 0}}),
                                     torch::tensor({{0.5, 1.0}, {1.0, 2.0}, {3.0, 0.0}}), torch::tensor({{0.0, std::nan("")}, {1.0, 2.0}, {3.0, 0.0}}), torch::zeros({3, 3}), torch::Tensor()}) {
        const auto result = load(bad);
        ASSERT_FALSE(result.ok());
        EXPECT_EQ(result.error().kind, ErrorKind::input);
        EXPECT_THAT(result.error().where, HasSubstr("token_experts"));
    }
}

TEST(StructuredRouters, AFreshOneIsTheSameAfterStoringAndTakesNothing)
{
    const torch::NoGradGuard noGrad;
    for (const std::string &type : kTypes) {
        SCOPED_TRACE(type);
        const RouterShape shape{kHidden, kExperts, 2, {2, 5}};
        const auto fresh = made(makeRouter(*defaultRouterOptions(type), shape, 5)), again = made(makeRouter(*defaultRouterOptions(type), shape, 5)),
                   other = made(makeRouter(*defaultRouterOptions(type), shape, 6));
        const auto tensors = fresh->parameters();
        const auto loaded = made(loadRouter(fresh->options(), shape, [&](const std::string &name, const std::vector<std::int64_t> &) -> Result<torch::Tensor> {
            return tensors.count(name) ? tensors.at(name) : torch::Tensor();
        }));
        RouterInput input = inputOf(false, false);
        input.layer = 1;
        const RoutingStep a = routed(*fresh, input);
        for (Router *r : {loaded.get(), again.get()}) {
            const RoutingStep b = routed(*r, input);
            EXPECT_TRUE(torch::equal(a.experts, b.experts));
            EXPECT_TRUE(torch::equal(a.weights, b.weights));
        }
        EXPECT_FALSE(torch::equal(a.weights, routed(*other, input).weights));
        const auto missing = loadRouter(fresh->options(), shape, [](const std::string &, const std::vector<std::int64_t> &) -> Result<torch::Tensor> { return torch::Tensor(); });
        ASSERT_FALSE(missing.ok());
        EXPECT_EQ(missing.error().kind, ErrorKind::input);
        for (const bool training : {false, true}) {
            RouterInput none = input;
            none.training = training;
            none.x = input.x.narrow(0, 0, 0);
            none.offsets = {0, 0};
            EXPECT_EQ(routed(*fresh, none).experts.size(0), 0);
            RouterInput uncounted = input;
            uncounted.mask = torch::zeros({kRows}, torch::kBool);
            uncounted.training = training;
            EXPECT_EQ(routed(*fresh, uncounted).experts.size(0), kRows);
        }
    }
    for (const RouterInfo &info : routerRegistry())
        if (std::find(kTypes.begin(), kTypes.end(), info.name) != kTypes.end()) {
            EXPECT_TRUE(info.causal);
            EXPECT_FALSE(info.source.empty());
            EXPECT_GT(info.assumptions.size(), 100u) << info.name;
        }
}

} // namespace
} // namespace spectra
