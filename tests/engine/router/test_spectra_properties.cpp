// SPDX-License-Identifier: GPL-3.0-or-later
// What must hold of the SPECTRA router whatever its weights: causality, independence of padding and of the batch, chunks equal to one
// pass, equivariance under a permutation of experts, and tensors equal to kernels. Bit for bit where the method says so.
#include "engine/router/router.h"
#include "engine/router/spectraoptions.h"

#include "engine/core/parallel.h"

#include <gtest/gtest.h>

namespace spectra {
namespace {

constexpr int kLayers = 3;

RouterShape shapeOf(std::int64_t hidden = 40, std::int64_t experts = 8, std::int64_t k = 2)
{
    return {hidden, experts, k, {0, 1, 2}};
}

std::unique_ptr<Router> routerOf(const std::vector<std::string> &settings, const RouterShape &shape = shapeOf(), std::uint64_t seed = 5)
{
    auto all = settings;
    all.insert(all.begin(), "router_dim=8");
    auto options = applyRouterSettings(*defaultRouterOptions("spectra"), all, false);
    EXPECT_TRUE(options.ok());
    auto router = makeRouter(*options, shape, seed);
    EXPECT_TRUE(router.ok());
    torch::manual_seed(11);
    for (const auto &[name, tensor] : (*router)->buffers())
        tensor.normal_();
    return std::move(*router);
}

using Steps = std::vector<RoutingStep>;

/// One pass of all layers over rows [begin, end) of each layer's input, `offsets` relative to begin.
Steps pass(Router &router, const std::vector<torch::Tensor> &x, std::vector<std::int64_t> offsets, RouterState &state, const torch::Tensor &mask = {})
{
    const torch::NoGradGuard noGrad;
    Steps steps;
    state.depth = torch::Tensor();
    for (int layer = 0; layer < kLayers; ++layer) {
        RouterInput input;
        input.x = x[static_cast<std::size_t>(layer)];
        input.offsets = offsets;
        input.mask = mask;
        input.layer = layer;
        input.layers = kLayers;
        steps.push_back(router.route(input, state, Capture::full()));
    }
    return steps;
}

std::vector<torch::Tensor> randomInputs(std::int64_t rows, std::int64_t hidden = 40, std::uint64_t seed = 3)
{
    torch::manual_seed(seed);
    std::vector<torch::Tensor> x;
    for (int l = 0; l < kLayers; ++l)
        x.push_back(torch::randn({rows, hidden}));
    return x;
}

std::vector<torch::Tensor> rowsOf(const std::vector<torch::Tensor> &x, std::int64_t begin, std::int64_t end)
{
    std::vector<torch::Tensor> part;
    for (const auto &t : x)
        part.push_back(t.slice(0, begin, end).contiguous());
    return part;
}

void expectSameRows(const Steps &a, std::int64_t aBegin, const Steps &b, std::int64_t bBegin, std::int64_t rows, const std::string &what)
{
    for (std::size_t l = 0; l < a.size(); ++l) {
        const auto same = [&](const torch::Tensor &p, const torch::Tensor &q) {
            return torch::equal(p.slice(0, aBegin, aBegin + rows), q.slice(0, bBegin, bBegin + rows));
        };
        EXPECT_TRUE(same(a[l].probabilities, b[l].probabilities)) << what << ", layer " << l << ": probabilities";
        EXPECT_TRUE(same(a[l].logits, b[l].logits)) << what << ", layer " << l << ": S";
        EXPECT_TRUE(same(a[l].experts, b[l].experts)) << what << ", layer " << l << ": experts";
        EXPECT_TRUE(same(a[l].weights, b[l].weights)) << what << ", layer " << l << ": weights";
        EXPECT_TRUE(same(a[l].gruState, b[l].gruState)) << what << ", layer " << l << ": state";
    }
}

std::vector<std::vector<std::string>> causalSettings()
{
    std::vector<std::vector<std::string>> list;
    for (const char *axis : {"sequence", "depth", "grid"})
        for (const char *scope : {"causal", "none"})
            list.push_back({std::string("gru_axis=") + axis, std::string("sinkhorn_scope=") + scope});
    list.push_back({"gru_scope=per_layer", "projector_scope=global", "projector_orthogonalization=qr"});
    list.push_back({"sequential=linear"});
    list.push_back({"expression=learned"});
    list.push_back({"scoring=domain"});
    list.push_back({"scoring=domain", "speciality_penalty=per_expert"});
    list.push_back({"log_sinkhorn_enabled=false"});
    return list;
}

std::string join(const std::vector<std::string> &words)
{
    std::string text;
    for (const std::string &w : words)
        text += w + " ";
    return text;
}

TEST(SpectraProperties, CausalSettingsNeverSeeLaterTokens)
{
    const std::int64_t n = 150, cut = 61; // crosses the kernels' block borders
    const auto x = randomInputs(n);
    auto changed = randomInputs(n, 40, 99);
    for (int l = 0; l < kLayers; ++l)
        changed[static_cast<std::size_t>(l)].slice(0, 0, cut).copy_(x[static_cast<std::size_t>(l)].slice(0, 0, cut));
    for (const auto &settings : causalSettings()) {
        const auto router = routerOf(settings);
        EXPECT_TRUE(router->needs().causal) << join(settings);
        EXPECT_EQ(router->needs().scope, RouterNeeds::Scope::token) << join(settings);
        RouterState a, b;
        const auto one = pass(*router, x, {0, n}, a), two = pass(*router, changed, {0, n}, b);
        expectSameRows(one, 0, two, 0, cut, join(settings));
        EXPECT_FALSE(torch::equal(one[0].probabilities.slice(0, cut), two[0].probabilities.slice(0, cut))) << "the change must show: " << join(settings);
    }
}

TEST(SpectraProperties, NonCausalSettingsSayThatTheyAre)
{
    for (const auto &settings : std::vector<std::vector<std::string>>{{"gru_axis=carry"}, {"sinkhorn_scope=sequence"}, {"sinkhorn_scope=batch"},
                                                                      {"scoring=domain", "sinkhorn_scope=batch"}})
        EXPECT_FALSE(routerOf(settings)->needs().causal) << join(settings);
    EXPECT_EQ(routerOf({"sinkhorn_scope=batch"})->needs().scope, RouterNeeds::Scope::batch);
    EXPECT_EQ(routerOf({"sinkhorn_scope=sequence"})->needs().scope, RouterNeeds::Scope::sequence);
    EXPECT_EQ(routerOf({"gru_axis=carry"})->needs().scope, RouterNeeds::Scope::sequence);
    EXPECT_TRUE(routerOf({"scoring=linear", "sinkhorn_scope=batch"})->needs().causal) << "the scope means nothing there";

    // and they do look ahead, which is why they must say so
    const auto x = randomInputs(40);
    auto changed = randomInputs(40, 40, 99);
    for (int l = 0; l < kLayers; ++l)
        changed[static_cast<std::size_t>(l)].slice(0, 0, 20).copy_(x[static_cast<std::size_t>(l)].slice(0, 0, 20));
    for (const auto &settings : std::vector<std::vector<std::string>>{{"gru_axis=carry"}, {"sinkhorn_scope=sequence"}, {"sinkhorn_scope=batch"}}) {
        const auto router = routerOf(settings);
        RouterState a, b;
        const auto one = pass(*router, x, {0, 40}, a), two = pass(*router, changed, {0, 40}, b);
        EXPECT_FALSE(torch::equal(one[2].probabilities.slice(0, 0, 20), two[2].probabilities.slice(0, 0, 20))) << join(settings);
    }
}

TEST(SpectraProperties, ChunksAndSingleTokensEqualOnePassToTheBit)
{
    const std::int64_t n = 140;
    const auto x = randomInputs(n);
    for (const auto &settings : causalSettings()) {
        const auto router = routerOf(settings);
        RouterState whole;
        const auto one = pass(*router, x, {0, n}, whole);
        RouterState state;
        for (std::int64_t at = 0; at < n;) {
            const std::int64_t size = at == 0 ? 97 : at < 110 ? 5 : 1; // a long chunk, short ones, then token by token
            const std::int64_t end = std::min(n, at + size);
            expectSameRows(one, at, pass(*router, rowsOf(x, at, end), {0, end - at}, state), 0, end - at, join(settings) + " at " + std::to_string(at));
            at = end;
        }
        if (whole.token.defined()) {
            EXPECT_TRUE(torch::equal(whole.token, state.token)) << join(settings);
        }
    }
}

TEST(SpectraProperties, ASnapshotOfTheStateGoesOnTheSameWay)
{
    const auto x = randomInputs(30);
    const auto router = routerOf({});
    RouterState state;
    (void)pass(*router, rowsOf(x, 0, 20), {0, 20}, state);
    RouterState copy = state.clone();
    const auto one = pass(*router, rowsOf(x, 20, 30), {0, 10}, state);
    expectSameRows(one, 0, pass(*router, rowsOf(x, 20, 30), {0, 10}, copy), 0, 10, "clone");
}

TEST(SpectraProperties, CausalRoutingDoesNotDependOnTheBatch)
{
    const std::vector<std::int64_t> offsets = {0, 31, 31, 90, 91, 170, 183, 230};
    const auto x = randomInputs(230);
    for (const auto &settings : causalSettings()) {
        const auto router = routerOf(settings);
        RouterState all;
        const auto together = pass(*router, x, offsets, all);
        for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
            const std::int64_t b = offsets[s], e = offsets[s + 1];
            if (b == e)
                continue;
            RouterState alone;
            expectSameRows(together, b, pass(*router, rowsOf(x, b, e), {0, e - b}, alone), 0, e - b, join(settings) + " sequence " + std::to_string(s));
            if (alone.token.defined()) {
                EXPECT_TRUE(torch::equal(all.token[static_cast<std::int64_t>(s)], alone.token[0])) << join(settings);
            }
        }
        // one more token for every sequence at once, then each alone
        RouterState copy = all.clone();
        const auto next = randomInputs(7, 40, 17);
        const auto batch = pass(*router, next, {0, 1, 2, 3, 4, 5, 6, 7}, copy);
        for (std::int64_t s = 0; s < 7; ++s) {
            RouterState one;
            if (all.token.defined())
                one.token = all.token.slice(0, s, s + 1).clone();
            expectSameRows(batch, s, pass(*router, rowsOf(next, s, s + 1), {0, 1}, one), 0, 1, join(settings) + " decode");
        }
    }
}

TEST(SpectraProperties, ThreadsDoNotChangeABit)
{
    const auto x = randomInputs(400);
    for (const auto &settings : std::vector<std::vector<std::string>>{{}, {"sinkhorn_scope=batch"}, {"gru_axis=depth"}, {"gru_axis=grid"}, {"router_dim=80"}}) {
        const auto router = routerOf(settings);
        setThreadCount(1);
        RouterState a;
        const auto one = pass(*router, x, {0, 300, 320, 400}, a);
        RouterState c;
        const auto single = pass(*router, x, {0, 400}, c), token = pass(*router, rowsOf(x, 7, 8), {0, 1}, c);
        for (int threads : {2, 3, 4}) {
            setThreadCount(threads);
            RouterState b, d;
            expectSameRows(one, 0, pass(*router, x, {0, 300, 320, 400}, b), 0, 400, join(settings));
            expectSameRows(single, 0, pass(*router, x, {0, 400}, d), 0, 400, join(settings));
            expectSameRows(token, 0, pass(*router, rowsOf(x, 7, 8), {0, 1}, d), 0, 1, join(settings));
        }
        setThreadCount(0);
    }
}

TEST(SpectraProperties, PaddingTakesNoPart)
{
    // two sequences of 20 and 12 tokens; the second is padded to 20 in one run and not in the other
    const auto x = randomInputs(40);
    const auto mask = torch::cat({torch::ones({32}), torch::zeros({8})}) > 0.5;
    for (const char *scope : {"causal", "sequence", "batch", "none"})
        for (const char *axis : {"sequence", "depth", "grid", "carry"}) {
            if (std::string(axis) == "carry")
                continue; // its second layer starts from the end of the padding: literal reading, kept as it is
            const auto router = routerOf({std::string("sinkhorn_scope=") + scope, std::string("gru_axis=") + axis});
            RouterState a, b, c;
            const auto plain = pass(*router, rowsOf(x, 0, 32), {0, 20, 32}, a);
            const auto padded = pass(*router, x, {0, 20, 40}, b, mask);
            auto other = x;
            for (auto &t : other)
                t = torch::cat({t.slice(0, 0, 32), torch::randn({8, 40}) * 10});
            const auto otherPadding = pass(*router, other, {0, 20, 40}, c, mask);
            expectSameRows(plain, 0, padded, 0, 32, std::string(scope) + " " + axis + " padded");
            expectSameRows(padded, 0, otherPadding, 0, 32, std::string(scope) + " " + axis + " other padding");
            for (int l = 0; l < kLayers; ++l) {
                EXPECT_EQ(plain[static_cast<std::size_t>(l)].violation, padded[static_cast<std::size_t>(l)].violation);
                EXPECT_NEAR(padded[static_cast<std::size_t>(l)].probabilities.sum(-1).sub(1).abs().max().item<double>(), 0, 1e-5) << "padding is routed too";
            }
        }
}

TEST(SpectraProperties, PermutingExpertsPermutesTheRouting)
{
    const std::int64_t e = 8, dim = 8, width = e * dim;
    const auto permutation = torch::tensor(std::vector<std::int64_t>{3, 0, 7, 1, 6, 2, 5, 4});
    const auto wide = (permutation.unsqueeze(1) * dim + torch::arange(dim)).view({-1});           // rows of [E·D, …]
    const auto gates = torch::cat({wide, wide + width, wide + 2 * width});                         // rows of [3·E·D, …]
    const auto x = randomInputs(60);
    for (const auto &settings : std::vector<std::vector<std::string>>{{}, {"sinkhorn_scope=batch"}, {"sinkhorn_scope=sequence", "gru_axis=grid"}, {"gru_axis=depth"},
                                                                      {"gru_axis=carry"}, {"scoring=domain", "speciality_penalty=per_expert"}, {"scoring=linear"},
                                                                      {"expression=learned"}, {"sequential=linear"}, {"projector_orthogonalization=svd"}}) {
        const auto router = routerOf(settings), permuted = routerOf(settings, shapeOf(), 77);
        {
            const torch::NoGradGuard noGrad;
            auto to = permuted->parameters();
            for (auto &[name, tensor] : permuted->buffers())
                to[name] = tensor;
            auto from = router->parameters();
            for (auto &[name, tensor] : router->buffers())
                from[name] = tensor;
            for (auto &[name, tensor] : to) {
                auto source = from.at(name);
                if (source.size(0) == 3 * width)
                    source = source.index_select(0, gates);
                else if (source.size(0) == width)
                    source = source.index_select(0, wide);
                else if (source.size(0) == e)
                    source = source.index_select(0, permutation);
                if (name.find("weight_hh") != std::string::npos)
                    source = source.index_select(1, wide);
                tensor.copy_(source);
            }
        }
        RouterState a, b;
        const auto one = pass(*router, x, {0, 25, 60}, a), two = pass(*permuted, x, {0, 25, 60}, b);
        for (int l = 0; l < kLayers; ++l) {
            const auto &p = one[static_cast<std::size_t>(l)], &q = two[static_cast<std::size_t>(l)];
            EXPECT_LT((p.probabilities.index_select(1, permutation) - q.probabilities).abs().max().item<double>(), 1e-5) << join(settings);
            const auto mapped = permutation.index_select(0, q.experts.view({-1})).view_as(q.experts); // back to the first router's names
            EXPECT_GT((mapped == p.experts).to(torch::kFloat32).mean().item<double>(), 0.98) << join(settings) << ": more than near-ties differ";
        }
    }
}

TEST(SpectraProperties, TheTensorFormEqualsTheKernels)
{
    const auto x = randomInputs(120);
    auto all = causalSettings();
    for (const char *scope : {"sequence", "batch"})
        for (const char *axis : {"sequence", "depth", "grid", "carry"})
            all.push_back({std::string("sinkhorn_scope=") + scope, std::string("gru_axis=") + axis});
    all.push_back({"scoring=linear"});
    for (const auto &settings : all) {
        const auto router = routerOf(settings);
        RouterState a, b;
        const auto kernels = pass(*router, x, {0, 50, 120}, a);
        for (int l = 0; l < kLayers; ++l) {
            RouterInput input;
            input.x = x[static_cast<std::size_t>(l)];
            input.offsets = {0, 50, 120};
            input.layer = l;
            input.layers = kLayers;
            const torch::AutoGradMode mode(true);
            const auto step = router->route(input, b, Capture::full());
            const auto &other = kernels[static_cast<std::size_t>(l)];
            EXPECT_LT((step.probabilities - other.probabilities).abs().max().item<double>(), 2e-5) << join(settings);
            EXPECT_LT((step.logits - other.logits).abs().max().item<double>(), 1e-5) << join(settings);
            EXPECT_GT((step.experts == other.experts).to(torch::kFloat32).mean().item<double>(), 0.98) << join(settings);
        }
    }
}

TEST(SpectraProperties, WrittenWeightsAreSeenByTheKernels)
{
    const auto x = randomInputs(10);
    const auto router = routerOf({});
    RouterState a;
    const auto before = pass(*router, x, {0, 10}, a);
    for (const auto &[name, tensor] : router->parameters()) {
        const torch::NoGradGuard noGrad;
        const auto kept = tensor.clone();
        tensor.add_(0.3 * torch::randn_like(tensor));
        RouterState b;
        const auto after = pass(*router, x, {0, 10}, b);
        bool changed = false;
        for (std::size_t l = 0; l < after.size(); ++l)
            changed = changed || !torch::equal(after[l].probabilities, before[l].probabilities);
        EXPECT_TRUE(changed) << name;
        tensor.copy_(kept);
    }
    for (const auto &[name, tensor] : router->buffers()) {
        tensor.add_(torch::randn_like(tensor));
        RouterState b;
        const auto after = pass(*router, x, {0, 10}, b);
        bool changed = false;
        for (std::size_t l = 0; l < after.size(); ++l)
            changed = changed || !torch::equal(after[l].probabilities, before[l].probabilities);
        EXPECT_TRUE(changed) << name;
    }
}

TEST(SpectraProperties, AFreshRouterIsSeededSharpAndHasZeroBuffers)
{
    const auto options = *applyRouterSettings(*defaultRouterOptions("spectra"), {"router_dim=32"}, false);
    const RouterShape shape{576, 8, 2, {0, 1, 2}};
    const auto a = makeRouter(options, shape, 1), b = makeRouter(options, shape, 1), c = makeRouter(options, shape, 2);
    const auto pa = (*a)->parameters(), pb = (*b)->parameters(), pc = (*c)->parameters();
    for (const auto &[name, tensor] : pa) {
        EXPECT_TRUE(torch::equal(tensor, pb.at(name))) << name;
        EXPECT_TRUE(tensor.requires_grad()) << name;
        if (name.find("bias") == std::string::npos) {
            EXPECT_FALSE(torch::equal(tensor, pc.at(name))) << name;
        } else {
            EXPECT_EQ(tensor.abs().max().item<double>(), 0) << name;
        }
    }
    for (const auto &[name, tensor] : (*a)->buffers())
        EXPECT_EQ(tensor.abs().max().item<double>(), 0) << name;
    const auto projector = pa.at("model.layers.1.mlp.router.expression_projector.weight").detach();
    EXPECT_LT((projector.matmul(projector.t()) - torch::eye(256)).abs().max().item<double>(), 1e-5);
    const auto hh = pa.at("model.router.gru.weight_hh").detach().slice(0, 256, 512);
    EXPECT_LT((hh.matmul(hh.t()) - torch::eye(256)).abs().max().item<double>(), 1e-5) << "one orthogonal block per gate";
    const auto x = randomInputs(300, 576);
    RouterState state;
    const auto steps = pass(**a, x, {0, 300}, state);
    const auto &q = steps[1].probabilities;
    const double bits = (-torch::xlogy(q, q).sum(-1).mean() / std::log(2.0)).item<double>();
    EXPECT_GT(bits, 0.5);
    EXPECT_LT(bits, 2.0);
}

} // namespace
} // namespace spectra
