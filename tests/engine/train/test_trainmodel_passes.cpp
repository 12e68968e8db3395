// SPDX-License-Identifier: GPL-3.0-or-later
// Whole passes: gradients equal to transformers', the same at any number of threads, with layers run twice, in bf16 nearly.
#include "tests/engine/train/trainmodelsupport.h"

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <set>

namespace spectra {
namespace {

TEST(TrainPasses, LossAndGradientsEqualTransformers)
{
    auto expected = test::readExpected(std::filesystem::path(SPECTRA_TEST_DIR) / "fixtures" / "train" / "mixtral_gradients.safetensors");
    const auto model = test::trainModel(test::openCheckpoint(test::modelFixture("mixtral-gqa")));
    ASSERT_TRUE(model);
    TrainBatch batch;
    batch.ids = expected.at("input_ids");
    batch.targets = expected.at("targets");
    const TrainOutput output = test::pass(*model, batch);
    EXPECT_NEAR(output.loss.item<double>(), expected.at("loss").item<double>(), 1e-5);
    output.loss.backward();
    for (const TrainParameter &p : model->parameters()) {
        ASSERT_TRUE(expected.contains(p.name)) << p.name;
        ASSERT_TRUE(p.value.grad().defined()) << p.name;
        const torch::Tensor &wanted = expected.at(p.name);
        EXPECT_LE(test::maxDifference(p.value.grad(), wanted), 1e-5 + 1e-4 * wanted.abs().max().item<double>()) << p.name;
    }
    EXPECT_EQ(model->parameters().size() + 3, expected.size());
}

void expectEqualGradients(const std::map<std::string, torch::Tensor> &a, const std::map<std::string, torch::Tensor> &b, double tolerance)
{
    ASSERT_EQ(a.size(), b.size());
    for (const auto &[name, gradient] : a) {
        ASSERT_TRUE(b.contains(name)) << name;
        if (tolerance == 0) {
            EXPECT_TRUE(torch::equal(gradient, b.at(name))) << name;
            continue;
        }
        EXPECT_LE(test::maxDifference(gradient, b.at(name)), tolerance * std::max(1.0, gradient.abs().max().item<double>())) << name;
    }
}

class Routers : public testing::TestWithParam<const char *> {
protected:
    static std::unique_ptr<TrainModel> model()
    {
        ModelConfig c = test::smallConfig(GetParam());
        if (c.moe()) {
            c.sharedExperts = 1;
            c.sharedIntermediate = 8;
        }
        c.layers = 3;
        if (c.moe())
            c.moeLayers = {0, 2};
        auto made = test::freshModel(c);
        if (made) {
            const torch::NoGradGuard noGrad;
            for (const TrainParameter &p : made->parameters())
                if (p.value.dim() > 1 && p.group != ParameterGroup::router)
                    p.value.mul_(10);
        }
        return made;
    }
};

TEST_P(Routers, LayersRunTwiceGiveTheSameGradients)
{
    const auto once = model(), twice = model();
    ASSERT_TRUE(once && twice);
    TrainBatch batch = test::someBatch(4, 24, 64);
    batch.mask = torch::ones({4, 24}, torch::kBool);
    batch.mask[1][5] = false;
    TrainPassOptions again;
    again.activationCheckpointing = true;
    const auto plain = test::gradientsOf(*once, batch), recomputed = test::gradientsOf(*twice, batch, again);
    EXPECT_GT(plain.size(), 10u);
    expectEqualGradients(plain, recomputed, 1e-6);
    const TrainOutput a = test::pass(*once, batch), b = test::pass(*twice, batch, again);
    EXPECT_EQ(a.loss.item<float>(), b.loss.item<float>());
    ASSERT_EQ(a.routerLosses.size(), b.routerLosses.size());
    for (const auto &[name, loss] : a.routerLosses)
        EXPECT_EQ(loss.item<float>(), b.routerLosses.at(name).item<float>()) << name;
    ASSERT_EQ(a.loads.size(), b.loads.size());
    for (std::size_t l = 0; l < a.loads.size(); ++l)
        EXPECT_TRUE(torch::equal(a.loads[l], b.loads[l]));
    // What routers keep of their batches was taken once from each pass.
    if (!once->router())
        return;
    once->router()->afterOptimizerStep(a.loads);
    twice->router()->afterOptimizerStep(b.loads);
    const auto kept = once->router()->buffers(), keptTwice = twice->router()->buffers();
    for (const auto &[name, buffer] : kept)
        EXPECT_TRUE(torch::equal(buffer, keptTwice.at(name))) << name;
}

TEST_P(Routers, TwoRunsAndAnyNumberOfThreadsAreBitIdentical)
{
    const TrainBatch batch = test::someBatch(6, 50, 64); // more rows than one task takes
    const auto run = [&](int threads) {
        const auto m = model();
        at::set_num_threads(threads);
        return test::gradientsOf(*m, batch);
    };
    const int before = at::get_num_threads();
    const auto one = run(1), two = run(2), three = run(3), again = run(2);
    at::set_num_threads(before);
    expectEqualGradients(two, again, 0);
    // LPR's layer norm is torch's own, which sums the gradients of its weights thread by thread.
    const double tolerance = std::string(GetParam()).find("lpr") != std::string::npos ? 1e-6 : 0;
    expectEqualGradients(one, two, tolerance);
    expectEqualGradients(one, three, tolerance);
}

TEST_P(Routers, EveryParameterIsTrained)
{
    const auto m = model();
    ASSERT_TRUE(m);
    const auto gradients = test::gradientsOf(*m, test::someBatch(4, 24, 64));
    for (const TrainParameter &p : m->parameters()) {
        ASSERT_TRUE(gradients.contains(p.name)) << p.name;
        EXPECT_TRUE(torch::isfinite(gradients.at(p.name)).all().item<bool>()) << p.name;
        EXPECT_GT(gradients.at(p.name).abs().max().item<float>(), 0) << p.name;
    }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Routers,
                         testing::Values("", test::kSoftmax, test::kSpectra, R"({"type":"spectra","router_dim":4,"gru_axis":"grid"})",
                                         R"({"type":"spectra","router_dim":4,"gru_axis":"carry","train_sinkhorn_scope":"sequence"})",
                                         R"({"type":"switch_top2","capacity_factor":0.7,"router_jitter_noise":0.1})", R"({"type":"llama4"})",
                                         R"({"type":"lpr","latent_dim":4})", R"({"type":"expert_choice"})", R"({"type":"quantile"})",
                                         R"({"type":"sparsemixer"})"),
                         [](const auto &i) {
                             const auto j = nlohmann::json::parse(std::string(i.param), nullptr, false);
                             return (j.is_object() ? j["type"].template get<std::string>() + j.value("gru_axis", "") : std::string("dense"));
                         });

TEST(TrainPasses, ARouterThatReadsExpertOutputsDrawsOnThem)
{
    // The loss on outputs must reach the experts, also when the cross entropy does not count.
    ModelConfig c = test::smallConfig(R"({"type":"expert_specialization"})");
    const auto m = test::freshModel(c);
    if (!m || !m->router()->needs().expertOutputs)
        GTEST_SKIP() << "this build has no such router";
    TrainBatch batch = test::someBatch(2, 16, 64);
    batch.targets.fill_(-1);
    const auto gradients = test::gradientsOf(*m, batch);
    EXPECT_GT(gradients.at("model.layers.0.mlp.experts.down").abs().max().item<float>(), 0);
}

TEST(TrainPasses, OnlyTheRouterIsTrainedWhenAllElseIsFrozen)
{
    for (const bool again : {false, true}) {
        const auto m = test::freshModel(test::smallConfig(test::kSpectra));
        ASSERT_TRUE(m);
        for (const TrainParameter &p : m->parameters())
            if (p.group != ParameterGroup::router) {
                torch::Tensor value = p.value;
                value.set_requires_grad(false);
            }
        TrainPassOptions options;
        options.activationCheckpointing = again;
        const auto gradients = test::gradientsOf(*m, test::someBatch(3, 16, 64), options);
        std::size_t routers = 0;
        for (const TrainParameter &p : m->parameters()) {
            EXPECT_EQ(gradients.contains(p.name), p.group == ParameterGroup::router) << p.name;
            routers += p.group == ParameterGroup::router;
        }
        EXPECT_EQ(gradients.size(), routers);
    }
}

TEST(TrainPasses, TheLossFallsOnOneBatch)
{
    const auto m = test::freshModel(test::smallConfig(test::kSpectra));
    ASSERT_TRUE(m);
    const TrainBatch batch = test::someBatch(2, 20, 64);
    std::vector<double> losses;
    for (int step = 0; step < 30; ++step) {
        const auto gradients = test::gradientsOf(*m, batch);
        const torch::NoGradGuard noGrad;
        for (const TrainParameter &p : m->parameters())
            p.value.sub_(gradients.at(p.name).sign() * 5e-3);
        losses.push_back(test::pass(*m, batch).loss.item<double>());
    }
    EXPECT_NEAR(losses.front(), std::log(64), 0.3);
    EXPECT_LT(losses.back(), 2.5);
}

TEST(TrainPasses, Bf16IsNearF32)
{
    if (!cpuHasFastBf16()) {
        const auto m = test::freshModel(test::smallConfig());
        TrainPassOptions options;
        options.compute = Compute::bf16;
        const auto refused = m->forward(test::someBatch(1, 8, 64), options);
        ASSERT_FALSE(refused.ok());
        EXPECT_EQ(refused.error().kind, ErrorKind::usage);
        return;
    }
    const auto m = test::trainModel(test::openCheckpoint(test::modelFixture("mixtral-gqa")));
    ASSERT_TRUE(m);
    const TrainBatch batch = test::someBatch(3, 32, 128);
    TrainPassOptions options;
    options.compute = Compute::bf16;
    const auto exact = test::gradientsOf(*m, batch), rounded = test::gradientsOf(*m, batch, options);
    const double a = test::pass(*m, batch).loss.item<double>(), b = test::pass(*m, batch, options).loss.item<double>();
    EXPECT_NEAR(a, b, 0.05 * a);
    EXPECT_NE(a, b);
    // The direction of every large gradient stays.
    for (const char *const name : {"lm_head.weight", "model.layers.1.mlp.experts.gate_up", "model.layers.0.self_attn.qkv.weight"}) {
        const torch::Tensor x = exact.at(name).view({-1}), y = rounded.at(name).view({-1});
        EXPECT_GT((x.dot(y) / (x.norm() * y.norm())).item<double>(), 0.95) << name;
    }
}

TEST(TrainSizes, FlopsAreCountedFromTheSizes)
{
    ModelConfig c = test::smallConfig(R"({"type":"spectra","router_dim":8})");
    c.sharedExperts = 1;
    c.sharedIntermediate = 10;
    c.moeLayers = {1};
    const TrainFlops f = trainFlopsPerToken(c, 32);
    const double e = 4, d = 16, width = e * 8;
    EXPECT_DOUBLE_EQ(f.router, 6 * width * (3 * d + 3 * width + d));
    EXPECT_DOUBLE_EQ(f.experts, 6 * 3 * d * (2 * 12 + 10));
    EXPECT_DOUBLE_EQ(f.dense, 6 * 3 * d * 24);
    EXPECT_DOUBLE_EQ(f.head, 6 * 64 * d);
    EXPECT_DOUBLE_EQ(f.attention, 6 * 2 * ((4 + 4 + 2 + 2) * 4 * d + 2 * 16 * 33 / 2.0));
    EXPECT_DOUBLE_EQ(f.total(), f.router + f.experts + f.dense + f.head + f.attention);
    EXPECT_DOUBLE_EQ(trainFlopsPerToken(test::smallConfig(test::kSoftmax), 32).router, 6 * 2 * e * d);
    EXPECT_EQ(trainFlopsPerToken(test::smallConfig(""), 32).router, 0);
    // The share that the method page names: d=256, expert width 512, D=32, E=8, k=2.
    ModelConfig study = c;
    study.hidden = 256;
    study.experts = 8;
    study.topK = 2;
    study.expertIntermediate = 512;
    study.sharedExperts = 0;
    study.layers = 4;
    study.moeLayers = {0, 1, 2, 3};
    study.heads = study.kvHeads = 4;
    study.headDim = 64;
    study.vocabulary = 4096;
    study.routerJson = R"({"type":"spectra","router_dim":32})";
    const TrainFlops s = trainFlopsPerToken(study, 256);
    EXPECT_NEAR(s.router / s.total(), 0.28, 0.05);
}

TEST(TrainSizes, WeightsAreCountedExactlyAndCheckpointingSavesActivations)
{
    for (const char *const router : {"", test::kSoftmax, test::kSpectra, R"({"type":"spectra","router_dim":8,"gru_scope":"per_layer","projector_scope":"global"})"}) {
        ModelConfig c = test::smallConfig(router);
        c.tiedHead = false;
        if (c.moe()) {
            c.sharedExperts = 2;
            c.sharedIntermediate = 20;
        }
        const auto m = test::freshModel(c);
        ASSERT_TRUE(m);
        std::uint64_t matrices = 0, all = 0;
        for (const TrainParameter &p : m->parameters()) {
            all += p.value.nbytes();
            matrices += p.name.find("bias") == std::string::npos ? p.value.nbytes() : 0;
        }
        const TrainMemory memory = estimateTrainMemory(m->config(), 8, 32, {});
        EXPECT_EQ(memory.weights, matrices) << router;
        EXPECT_LE(static_cast<double>(all), 1.05 * static_cast<double>(memory.weights)) << router;
        EXPECT_EQ(memory.optimizer, 2 * memory.gradients);
        TrainPassOptions again;
        again.activationCheckpointing = true;
        c.layers = 12;
        EXPECT_LT(estimateTrainMemory(c, 8, 32, again).activations, estimateTrainMemory(c, 8, 32, {}).activations / 2);
        EXPECT_EQ(memory.total(), memory.weights + memory.gradients + memory.optimizer + memory.activations);
    }
}

} // namespace
} // namespace spectra
