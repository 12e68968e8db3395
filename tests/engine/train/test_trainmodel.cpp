// SPDX-License-Identifier: GPL-3.0-or-later
// The model that is trained is the model that is run: same logits, and what is written is what was trained.
#include "tests/engine/train/trainmodelsupport.h"
#include "tests/support/tinymodel.h"

#include <cmath>

namespace spectra {
namespace {

/// Both models on the same checkpoint.
void expectSameLogits(const std::shared_ptr<const Checkpoint> &checkpoint)
{
    const auto model = test::load(checkpoint);
    const auto trained = test::trainModel(checkpoint);
    ASSERT_TRUE(model);
    ASSERT_TRUE(trained);
    const TrainBatch batch = test::someBatch(3, 41, static_cast<int>(model->config().vocabulary));
    const torch::Tensor wanted = test::modelLogits(*model, batch);
    EXPECT_LE(test::maxDifference(test::trainLogits(*trained, batch), wanted), 1e-4);
    TrainPassOptions options;
    options.training = false;
    const TrainOutput output = test::pass(*trained, batch, options);
    const torch::Tensor nll = -torch::log_softmax(wanted, -1).gather(2, batch.targets.unsqueeze(2)).squeeze(2);
    EXPECT_LE(test::maxDifference(output.nll, nll), 1e-4);
    EXPECT_NEAR(output.loss.item<double>(), nll.mean().item<double>(), 1e-4);
    EXPECT_FALSE(output.loss.requires_grad());
}

class Folders : public testing::TestWithParam<const char *> {};

TEST_P(Folders, LogitsEqualTheInferenceModel)
{
    expectSameLogits(test::openCheckpoint(test::modelFixture(GetParam())));
}

INSTANTIATE_TEST_SUITE_P(Families, Folders,
                         testing::Values("llama-gqa", "llama-mha-tied", "llama-rope-llama3", "llama-rope-yarn-bias", "mixtral-gqa", "mixtral-tied",
                                         "mixtral-rope-linear-fused"),
                         [](const auto &i) {
                             std::string name = i.param;
                             std::erase(name, '-');
                             return name;
                         });

struct UpcycledCase {
    const char *name;
    const char *source;
    const char *router;
    std::int64_t shared = 0;
    const char *layers = "all";
};

class Upcycled : public testing::TestWithParam<UpcycledCase> {};

TEST_P(Upcycled, LogitsEqualTheInferenceModel)
{
    UpcycleOptions options;
    options.experts = 6;
    options.topK = 2;
    options.noise = 0.5;
    options.routerJson = GetParam().router;
    options.shared = GetParam().shared;
    auto layers = LayerChoice::parse(GetParam().layers);
    ASSERT_TRUE(layers.ok());
    options.layers = *layers;
    expectSameLogits(test::upcycle(test::openCheckpoint(test::modelFixture(GetParam().source)), options));
}

INSTANTIATE_TEST_SUITE_P(Routers, Upcycled,
                         testing::Values(UpcycledCase{"softmax", "llama-gqa", test::kSoftmax}, UpcycledCase{"spectra", "llama-gqa", test::kSpectra},
                                         UpcycledCase{"spectraGrid", "llama-gqa", R"({"type":"spectra","router_dim":8,"gru_axis":"grid"})"},
                                         UpcycledCase{"shared", "llama-mha-tied", test::kSpectra, 1},
                                         UpcycledCase{"twoShared", "llama-gqa", test::kSoftmax, 2},
                                         UpcycledCase{"biasesInExperts", "llama-rope-yarn-bias", test::kSoftmax, 1},
                                         UpcycledCase{"oneLayer", "llama-rope-llama3", test::kSpectra, 0, "every:2"},
                                         UpcycledCase{"weightsOnInputs", "llama-gqa", R"({"type":"llama4"})", 1},
                                         UpcycledCase{"replacedInputs", "llama-gqa", R"({"type":"lpr"})", 1},
                                         UpcycledCase{"scaledWeights", "llama-gqa", R"({"type":"kimi_k2"})"},
                                         UpcycledCase{"expertChoice", "llama-gqa", R"({"type":"expert_choice"})"},
                                         UpcycledCase{"droppedSlots", "llama-gqa", R"({"type":"switch_top2","capacity_factor":0.6})"}),
                         [](const auto &i) { return std::string(i.param.name); });

TEST(TrainModel, ScalesOfRoutedAndSharedExpertsAreUsed)
{
    ModelConfig c = test::smallConfig(test::kSoftmax);
    c.sharedExperts = 1;
    c.sharedIntermediate = 8;
    c.routedScalingFactor = 2.5;
    c.sharedScalingFactor = 0.5;
    c.moeLayers = {1};
    c.tiedHead = false;
    const auto trained = test::freshModel(c);
    ASSERT_TRUE(trained);
    // Weights of a size at which the experts matter.
    const torch::NoGradGuard noGrad;
    for (const TrainParameter &p : trained->parameters())
        if (p.value.dim() > 1)
            p.value.mul_(15);
    const auto model = test::load(trained->snapshot(trained->config(), true));
    ASSERT_TRUE(model);
    const TrainBatch batch = test::someBatch(2, 30, 64);
    const torch::Tensor logits = test::trainLogits(*trained, batch);
    EXPECT_LE(test::maxDifference(logits, test::modelLogits(*model, batch)), 1e-4);
    c.routedScalingFactor = 1;
    const auto other = test::load(trained->snapshot(c, true));
    ASSERT_TRUE(other);
    EXPECT_GT(test::maxDifference(logits, test::modelLogits(*other, batch)), 1e-3);
}

TEST(TrainModel, SlidingWindowEqualsTheInferenceModel)
{
    ModelConfig c = test::smallConfig("");
    c.slidingWindow = 5;
    const auto trained = test::freshModel(c);
    ASSERT_TRUE(trained);
    const torch::NoGradGuard noGrad;
    for (const TrainParameter &p : trained->parameters())
        if (p.value.dim() > 1)
            p.value.mul_(20);
    const auto model = test::load(trained->snapshot(trained->config(), true));
    ASSERT_TRUE(model);
    const TrainBatch batch = test::someBatch(2, 30, 64);
    const torch::Tensor logits = test::trainLogits(*trained, batch);
    EXPECT_LE(test::maxDifference(logits, test::modelLogits(*model, batch)), 1e-4);
    c.slidingWindow = 0;
    const auto other = test::load(trained->snapshot(c, true));
    EXPECT_GT(test::maxDifference(logits, test::modelLogits(*other, batch)), 1e-3);
}

TEST(TrainModel, OneSeedGivesOneModelWhateverTheRouter)
{
    const auto a = test::freshModel(test::smallConfig(test::kSoftmax), 5), b = test::freshModel(test::smallConfig(test::kSpectra), 5),
               c = test::freshModel(test::smallConfig(""), 5), d = test::freshModel(test::smallConfig(test::kSoftmax), 6);
    ASSERT_TRUE(a && b && c && d);
    for (const TrainParameter &p : a->parameters()) {
        if (p.group == ParameterGroup::router)
            continue;
        EXPECT_TRUE(torch::equal(p.value, test::parameterOf(*b, p.name))) << p.name;
        if (p.group == ParameterGroup::other) {
            EXPECT_TRUE(torch::equal(p.value, test::parameterOf(*c, p.name))) << p.name;
        }
        if (p.value.dim() > 1) {
            EXPECT_FALSE(torch::equal(p.value, test::parameterOf(*d, p.name))) << p.name;
        }
    }
    const torch::Tensor bank = test::parameterOf(*a, "model.layers.0.mlp.experts.gate_up"), down = test::parameterOf(*a, "model.layers.1.mlp.experts.down");
    EXPECT_NEAR(bank.std().item<double>(), 0.02, 0.001);
    EXPECT_NEAR(down.std().item<double>(), 0.01, 0.001); // 0.02 / √(2·2)
    EXPECT_FALSE(torch::equal(bank[0], bank[1]));
}

TEST(TrainModel, ParametersSayWhatTheyAre)
{
    ModelConfig config = test::smallConfig(test::kSpectra);
    config.moeLayers = {1};
    config.sharedExperts = 1;
    config.sharedIntermediate = 8;
    config.attentionBias = config.mlpBias = true;
    config.tiedHead = false;
    const auto model = test::freshModel(config);
    ASSERT_TRUE(model);
    std::map<std::string, TrainParameter> by;
    for (const TrainParameter &p : model->parameters()) {
        EXPECT_TRUE(p.value.is_leaf() && p.value.requires_grad()) << p.name;
        EXPECT_TRUE(by.emplace(p.name, p).second) << p.name;
    }
    const auto is = [&](const std::string &name, ParameterGroup group, bool decays, bool hidden, std::int64_t layer) {
        ASSERT_TRUE(by.contains(name)) << name;
        const TrainParameter &p = by.at(name);
        EXPECT_EQ(p.group, group) << name;
        EXPECT_EQ(p.decays, decays) << name;
        EXPECT_EQ(p.hiddenMatrix, hidden) << name;
        EXPECT_EQ(p.layer, layer) << name;
    };
    using enum ParameterGroup;
    is("model.embed_tokens.weight", other, true, false, -1);
    is("lm_head.weight", other, true, false, -1);
    is("model.norm.weight", other, false, false, -1);
    is("model.layers.0.self_attn.qkv.weight", other, true, true, 0);
    is("model.layers.0.self_attn.qkv.bias", other, false, false, 0);
    is("model.layers.0.mlp.gate_up", other, true, true, 0);
    is("model.layers.0.input_layernorm.weight", other, false, false, 0);
    is("model.layers.1.mlp.experts.gate_up", experts, true, true, 1);
    is("model.layers.1.mlp.experts.gate_up_bias", experts, false, false, 1);
    is("model.layers.1.mlp.shared_expert.down", experts, true, true, 1);
    is("model.router.gru.weight_ih", router, true, false, -1);
    is("model.router.gru.bias_hh", router, false, false, -1);
    is("model.layers.1.mlp.router.expression_projector.weight", router, true, false, 1);
}

TEST(TrainModel, AWrittenSnapshotIsTheModel)
{
    for (const char *const router : {"", test::kSoftmax, test::kSpectra}) {
        ModelConfig c = test::smallConfig(router);
        if (c.moe()) {
            c.sharedExperts = 1;
            c.sharedIntermediate = 8;
            c.moeLayers = {1};
        }
        c.attentionBias = true;
        c.mlpBias = true;
        c.rope.scaling = "llama3";
        c.rope.factor = 4;
        c.rope.originalContext = 32;
        c.eosIds = {2};
        const auto trained = test::freshModel(c);
        ASSERT_TRUE(trained);
        const torch::NoGradGuard noGrad;
        for (const TrainParameter &p : trained->parameters())
            p.value.add_(torch::randn_like(p.value), 0.2);
        const auto snapshot = trained->snapshot(trained->config(), true);
        const test::TemporaryFolder folder("trained");
        FolderOptions options;
        options.place = folder / "model";
        ASSERT_TRUE(writeFolder(*snapshot, options, {}, {}).ok());
        const auto written = test::openCheckpoint(folder / "model");
        ASSERT_TRUE(written);
        const ModelConfig &w = written->config();
        EXPECT_EQ(w.modelType, c.moe() ? "spectra" : "llama");
        EXPECT_EQ(w.headDim, 4);
        EXPECT_EQ(w.rope.scaling, "llama3");
        EXPECT_EQ(w.eosIds, c.eosIds);
        EXPECT_EQ(w.moeLayers, c.moeLayers);
        EXPECT_EQ(w.tiedHead, c.tiedHead);
        const auto model = test::load(written);
        const auto again = test::trainModel(written);
        ASSERT_TRUE(model && again);
        const TrainBatch batch = test::someBatch(2, 20, 64);
        const torch::Tensor logits = test::trainLogits(*trained, batch);
        EXPECT_LE(test::maxDifference(logits, test::modelLogits(*model, batch)), 1e-4) << router;
        EXPECT_TRUE(torch::equal(logits, test::trainLogits(*again, batch))) << router;
        const auto second = again->snapshot(again->config(), false);
        EXPECT_EQ(*second->sha256({}), *snapshot->sha256({}));
        ASSERT_EQ(second->tensors().size(), snapshot->tensors().size());
        for (const TensorInfo &t : snapshot->tensors())
            EXPECT_TRUE(second->find(t.name) != nullptr && written->find(t.name) != nullptr) << t.name;
        // A copy stays what it was, the other form follows the parameters.
        const std::string before = *snapshot->sha256({});
        for (const TrainParameter &p : again->parameters())
            p.value.mul_(2);
        for (const TrainParameter &p : trained->parameters())
            p.value.mul_(2);
        EXPECT_EQ(*snapshot->sha256({}), before);
        EXPECT_NE(*second->sha256({}), before);
    }
}

TEST(TrainModel, WrongInputIsNamed)
{
    ModelConfig c = test::smallConfig();
    c.topK = 5;
    auto wrong = TrainModel::fresh(c, 1);
    ASSERT_FALSE(wrong.ok());
    EXPECT_EQ(wrong.error().kind, ErrorKind::usage);
    EXPECT_NE(wrong.error().where.find("top_k"), std::string::npos);
    c = test::smallConfig();
    c.kvHeads = 3;
    EXPECT_FALSE(TrainModel::fresh(c, 1).ok());
    c = test::smallConfig(R"({"type":"no such router"})");
    EXPECT_EQ(TrainModel::fresh(c, 1).error().kind, ErrorKind::usage);

    const auto model = test::freshModel(test::smallConfig());
    ASSERT_TRUE(model);
    TrainBatch batch = test::someBatch(1, 8, 64);
    batch.ids[0][3] = 64;
    auto outside = model->forward(batch, {});
    ASSERT_FALSE(outside.ok());
    EXPECT_EQ(outside.error().kind, ErrorKind::usage);
    batch = test::someBatch(1, 8, 64);
    batch.targets[0][3] = 99;
    EXPECT_FALSE(model->forward(batch, {}).ok());
    std::stop_source stop;
    stop.request_stop();
    auto stopped = model->forward(test::someBatch(1, 8, 64), {}, stop.get_token());
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
}

TEST(TrainModel, TellsWhatTheRoutersDid)
{
    const auto model = test::freshModel(test::smallConfig(R"({"type":"switch_top2","capacity_factor":0.5})"));
    ASSERT_TRUE(model);
    TrainBatch batch = test::someBatch(2, 16, 64);
    batch.mask = torch::ones({2, 16}, torch::kBool);
    batch.mask[0][3] = false;
    batch.targets[1][4] = -1;
    TrainPassOptions options;
    options.keepSteps = options.attentionLogits = true;
    const TrainOutput output = test::pass(*model, batch, options);
    ASSERT_EQ(output.loads.size(), 2u);
    ASSERT_EQ(output.steps.size(), 2u);
    EXPECT_EQ(output.maxAttentionLogits.sizes(), torch::IntArrayRef({2, 4}));
    EXPECT_TRUE(std::isnan(output.nll[1][4].item<float>()));
    EXPECT_EQ(output.nll.isnan().sum().item<std::int64_t>(), 1);
    EXPECT_NEAR(output.loss.item<double>(), output.nll.nan_to_num().sum().item<double>() / 31, 1e-5);
    for (std::size_t l = 0; l < 2; ++l) {
        const RoutingStep &step = output.steps[l];
        EXPECT_FALSE(step.logits.requires_grad());
        const torch::Tensor rows = batch.mask.view({-1}).nonzero().view({-1});
        const torch::Tensor experts = step.experts.index_select(0, rows);
        for (std::int64_t e = 0; e < 4; ++e)
            EXPECT_EQ(output.loads[l][e].item<std::int64_t>(), (experts == e).sum().item<std::int64_t>());
        const double dropped = step.dropped.index_select(0, rows).to(torch::kFloat64).sum().item<double>() / 62;
        EXPECT_NEAR(output.dropped[l], dropped, 1e-12);
        EXPECT_GT(dropped, 0);
    }
    EXPECT_TRUE(output.routerLosses.contains("balance") || !output.routerLosses.empty());
}

} // namespace
} // namespace spectra
