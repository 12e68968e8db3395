// SPDX-License-Identifier: GPL-3.0-or-later
// Against transformers: fixtures made by tests/fixtures/models/make_models.py.
#include "tests/engine/model/support.h"

namespace spectra {
namespace {

class TinyModels : public testing::TestWithParam<const char *> {};

TEST_P(TinyModels, LogitsEqualTransformers)
{
    const auto folder = test::modelFixture(GetParam());
    auto expected = test::readExpected(folder / "expected.safetensors");
    auto model = test::loadModel(folder);
    ASSERT_TRUE(model);
    const torch::Tensor ids = expected.at("input_ids");
    for (std::int64_t s = 0; s < ids.size(0); ++s)
        EXPECT_LE(test::maxDifference(test::logitsOf(*model, test::idsOf(ids[s].contiguous())), expected.at("logits")[s]), 1e-4) << "sequence " << s;
}

TEST_P(TinyModels, ResidualStreamEqualsTransformers)
{
    const auto folder = test::modelFixture(GetParam());
    auto expected = test::readExpected(folder / "expected.safetensors");
    auto model = test::loadModel(folder);
    ASSERT_TRUE(model);
    std::map<int, torch::Tensor> seen;
    PassHooks hooks;
    hooks.onHidden = [&](int layer, std::int64_t, const torch::Tensor &hidden) { seen[layer] = hidden.clone(); };
    const torch::Tensor final = test::hiddenOf(*model, {test::idsOf(expected.at("input_ids")[0].contiguous())}, hooks);
    const torch::Tensor hidden = expected.at("hidden");
    const int layers = static_cast<int>(hidden.size(0)) - 1;
    ASSERT_EQ(seen.size(), static_cast<std::size_t>(layers + 1));
    for (int l = 0; l < layers; ++l)
        EXPECT_LE(test::maxDifference(seen.at(l - 1), hidden[l][0]), 1e-4) << "before layer " << l;
    EXPECT_LE(test::maxDifference(final, hidden[layers][0]), 1e-4);
}

TEST_P(TinyModels, GreedyTextEqualsTransformers)
{
    const auto folder = test::modelFixture(GetParam());
    auto expected = test::readExpected(folder / "expected.safetensors");
    auto model = test::loadModel(folder);
    ASSERT_TRUE(model);
    EXPECT_EQ(test::greedy(*model, test::idsOf(expected.at("prompt")), 64), test::idsOf(expected.at("generated")));
}

INSTANTIATE_TEST_SUITE_P(Families, TinyModels,
                         testing::Values("llama-gqa", "llama-mha-tied", "llama-rope-llama3", "llama-rope-yarn-bias", "mixtral-gqa", "mixtral-tied",
                                         "mixtral-rope-linear-fused"),
                         [](const auto &i) {
                             std::string name = i.param;
                             std::erase(name, '-');
                             return name;
                         });

class Mixtrals : public testing::TestWithParam<const char *> {};

TEST_P(Mixtrals, RoutingEqualsTransformers)
{
    const auto folder = test::modelFixture(GetParam());
    auto expected = test::readExpected(folder / "expected.safetensors");
    auto model = test::loadModel(folder);
    ASSERT_TRUE(model);
    int layers = 0;
    PassHooks hooks;
    hooks.capture.add(Field::logits).add(Field::probabilities);
    hooks.onLayer = [&](const RoutingLayer &layer) {
        const std::string suffix = "." + std::to_string(layer.decoderLayer);
        ASSERT_TRUE(expected.contains("router_logits" + suffix));
        EXPECT_LE(test::maxDifference(layer.input, expected.at("router_input" + suffix)[0]), 1e-4);
        EXPECT_LE(test::maxDifference(layer.step.logits, expected.at("router_logits" + suffix)[0]), 1e-4);
        EXPECT_LE(test::maxDifference(layer.step.weights, expected.at("weights" + suffix)[0]), 1e-4);
        // The fixtures have no ties: the chosen experts must be the same ones in the same order.
        EXPECT_TRUE(torch::equal(layer.step.experts, expected.at("experts" + suffix)[0]));
        ++layers;
    };
    test::hiddenOf(*model, {test::idsOf(expected.at("input_ids")[0].contiguous())}, hooks);
    EXPECT_EQ(layers, 2);
}

INSTANTIATE_TEST_SUITE_P(Families, Mixtrals, testing::Values("mixtral-gqa", "mixtral-tied", "mixtral-rope-linear-fused"), [](const auto &i) {
    std::string name = i.param;
    std::erase(name, '-');
    return name;
});

class SampleModel : public testing::Test {
protected:
    static void SetUpTestSuite()
    {
        s_expected = test::readExpected(test::modelFixture("smollm2_expected.safetensors"));
        s_model = test::loadModel(test::sampleModel());
    }
    static void TearDownTestSuite()
    {
        s_model.reset();
        s_expected.clear();
    }
    static std::map<std::string, torch::Tensor> s_expected;
    static std::unique_ptr<Model> s_model;
};
std::map<std::string, torch::Tensor> SampleModel::s_expected;
std::unique_ptr<Model> SampleModel::s_model;

TEST_F(SampleModel, TopLogitsEqualTransformers)
{
    ASSERT_TRUE(s_model);
    const torch::Tensor logits = test::logitsOf(*s_model, test::idsOf(s_expected.at("input_ids")));
    ASSERT_GE(logits.size(0), 150);
    EXPECT_LE(test::maxDifference(logits.gather(1, s_expected.at("top_ids")), s_expected.at("top_logits")), 2e-3);
    EXPECT_LE(test::maxDifference(logits.to(torch::kFloat64).logsumexp(1), s_expected.at("logsumexp").to(torch::kFloat64)), 2e-3);
}

TEST_F(SampleModel, GreedyTextEqualsTransformers)
{
    ASSERT_TRUE(s_model);
    EXPECT_EQ(test::greedy(*s_model, test::idsOf(s_expected.at("prompt")), 64), test::idsOf(s_expected.at("generated")));
}

TEST_F(SampleModel, ScoresEqualTheLogits)
{
    ASSERT_TRUE(s_model);
    const std::vector<std::int32_t> ids = test::idsOf(s_expected.at("input_ids"));
    std::vector<std::int32_t> targets(ids.begin() + 1, ids.end());
    targets.push_back(-1);
    const torch::Tensor hidden = test::hiddenOf(*s_model, {ids});
    auto logits = s_model->logits(hidden);
    auto scores = s_model->score(hidden, targets);
    ASSERT_TRUE(logits.ok() && scores.ok());
    const torch::Tensor logp = logits->to(torch::kFloat64).log_softmax(1);
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i);
        EXPECT_NEAR(scores->nll[i], -logp[row][targets[i]].item<double>(), 2e-5) << i;
        EXPECT_EQ(scores->top1[i], s_expected.at("top_ids")[row][0].item<std::int64_t>()) << i;
    }
    EXPECT_TRUE(std::isnan(scores->nll.back()));
}

} // namespace
} // namespace spectra
