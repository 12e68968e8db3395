// SPDX-License-Identifier: GPL-3.0-or-later
// Every fixture opens, and every tensor has the values that gguf and safetensors give it under its internal name.
#include "checkpointtest.h"

#include "engine/core/parallel.h"

#include <gmock/gmock.h>

#include <cmath>
#include <set>

namespace spectra::test {
namespace {

std::string shaOf(std::span<const float> values)
{
    Sha256 sum;
    sum.add(std::as_bytes(values));
    return sum.hex();
}

const nlohmann::json &expected()
{
    static const nlohmann::json json = nlohmann::json::parse(readFile(fixtures() / "checkpoint" / "expected.json"));
    return json;
}

class EveryFixture : public testing::TestWithParam<std::string> {};

TEST_P(EveryFixture, HasTheValuesOfTheReference)
{
    const auto opened = Checkpoint::open(fixtures() / "checkpoint" / GetParam());
    ASSERT_TRUE(opened.ok()) << errorText(opened);
    const Checkpoint &c = **opened;
    const nlohmann::json &want = expected()[GetParam()];
    ASSERT_GT(want.size(), 10u);
    std::set<std::string> names;
    for (const TensorInfo &tensor : c.tensors()) {
        names.insert(tensor.name);
        ASSERT_TRUE(want.contains(tensor.name)) << tensor.name;
        EXPECT_EQ(c.find(tensor.name), &tensor);
        std::vector<float> values(static_cast<std::size_t>(tensor.elements()));
        ASSERT_TRUE(c.readF32(tensor, values).ok());
        EXPECT_EQ(shaOf(values), want[tensor.name]) << tensor.name;

        // Row by row is the same as whole.
        if (tensor.shape.size() == 2) {
            std::vector<float> rows;
            for (std::int64_t r = 0; r < tensor.shape[0]; r += 3) {
                const std::int64_t n = std::min<std::int64_t>(3, tensor.shape[0] - r);
                std::vector<float> part(static_cast<std::size_t>(n * tensor.shape[1]));
                ASSERT_TRUE(c.readF32(tensor, part, r, n).ok());
                rows.insert(rows.end(), part.begin(), part.end());
            }
            EXPECT_EQ(rows, values) << tensor.name;
        }
        if (const auto raw = c.raw(tensor); !raw.empty() && tensor.dtype == DType::f32) {
            EXPECT_EQ(raw.size(), values.size() * 4);
            EXPECT_EQ(std::memcmp(raw.data(), values.data(), raw.size()), 0) << tensor.name;
        }
        c.release(tensor);
        std::vector<float> again(values.size());
        ASSERT_TRUE(c.readF32(tensor, again).ok());
        EXPECT_EQ(again, values) << "after release: " << tensor.name;
    }
    EXPECT_EQ(names.size(), want.size());
    EXPECT_EQ(c.find("model.no.such.tensor"), nullptr);
}

INSTANTIATE_TEST_SUITE_P(Checkpoint, EveryFixture, testing::ValuesIn([] {
                             std::vector<std::string> names;
                             for (const auto &[name, tensors] : expected().items())
                                 names.push_back(name);
                             return names;
                         }()),
                         [](const testing::TestParamInfo<std::string> &fixture) {
                             std::string name = fixture.param;
                             std::replace_if(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
                             return name;
                         });

TEST(Checkpoint, AllPartsOfASplitFileOpenFromAnyPart)
{
    const auto first = Checkpoint::open(fixtures() / "checkpoint" / "llama-gqa-q8_0-00001-of-00003.gguf");
    const auto last = Checkpoint::open(fixtures() / "checkpoint" / "llama-gqa-q8_0-00003-of-00003.gguf");
    ASSERT_TRUE(first.ok() && last.ok()) << errorText(last);
    EXPECT_EQ((*first)->tensors().size(), (*last)->tensors().size());
    EXPECT_EQ(*(*first)->sha256(), *(*last)->sha256());
}

TEST(Checkpoint, ReadsOutsideATensorAreRefused)
{
    const auto opened = Checkpoint::open(fixtures() / "models" / "llama-gqa");
    ASSERT_TRUE(opened.ok());
    const TensorInfo &t = *(*opened)->find("model.embed_tokens.weight");
    std::vector<float> out(32);
    EXPECT_FALSE((*opened)->readF32(t, out, 128, 1).ok());
    EXPECT_FALSE((*opened)->readF32(t, out, -1, 1).ok());
    EXPECT_FALSE((*opened)->readF32(t, out, 0, 2).ok()) << "two rows do not fit in 32 values";
    EXPECT_TRUE((*opened)->readF32(t, out, 127, 1).ok());
    EXPECT_TRUE((*opened)->readF32(t, std::span<float>(), 128, 0).ok());
}

TEST(Config, OfTheLlamaFolders)
{
    const auto config = [](const std::string &name) {
        const auto opened = Checkpoint::open(fixtures() / "models" / name);
        EXPECT_TRUE(opened.ok()) << errorText(opened);
        return opened.ok() ? (*opened)->config() : ModelConfig();
    };
    ModelConfig c = config("llama-gqa");
    EXPECT_EQ(c.architecture, "llama");
    EXPECT_EQ(c.hidden, 32);
    EXPECT_EQ(c.kvHeads, 2);
    EXPECT_EQ(c.headDim, 8);
    EXPECT_EQ(c.normEpsilon, 1e-5);
    EXPECT_FALSE(c.tiedHead || c.moe());
    EXPECT_EQ(c.rope.scaling, "none");
    EXPECT_THAT(c.eosIds, testing::ElementsAre(2));
    c = config("llama-mha-tied"); // rope_parameters and dtype, as transformers 5 writes them
    EXPECT_TRUE(c.tiedHead);
    EXPECT_EQ(c.rope.theta, 500);
    c = config("llama-rope-llama3");
    EXPECT_EQ(c.headDim, 16);
    EXPECT_EQ(c.rope.scaling, "llama3");
    EXPECT_EQ(c.rope.factor, 8);
    EXPECT_EQ(c.rope.originalContext, 32);
    c = config("llama-rope-yarn-bias");
    EXPECT_TRUE(c.attentionBias && c.mlpBias);
    EXPECT_EQ(c.rope.scaling, "yarn");
    EXPECT_EQ(c.rope.originalContext, 64);
    c = config("mixtral-tied");
    EXPECT_EQ(c.architecture, "mixtral");
    EXPECT_EQ(c.experts, 6);
    EXPECT_EQ(c.topK, 3);
    EXPECT_THAT(c.moeLayers, testing::ElementsAre(0, 1));
    EXPECT_EQ(c.routerJson, R"({"type":"softmax_topk"})");
    c = config("mixtral-rope-linear-fused");
    EXPECT_EQ(c.rope.scaling, "linear");
    EXPECT_EQ(c.rope.factor, 2);
}

TEST(Config, OfAGgufFileEqualsThatOfTheFolder)
{
    const auto gguf = Checkpoint::open(fixtures() / "checkpoint" / "mixtral-gqa-f16.gguf");
    const auto folder = Checkpoint::open(fixtures() / "models" / "mixtral-gqa");
    ASSERT_TRUE(gguf.ok() && folder.ok());
    const ModelConfig &a = (*gguf)->config(), &b = (*folder)->config();
    EXPECT_EQ(a.architecture, "mixtral") << "arch llama with experts is Mixtral";
    EXPECT_EQ(a.modelType, "llama");
    for (const auto member : {&ModelConfig::vocabulary, &ModelConfig::hidden, &ModelConfig::intermediate, &ModelConfig::layers, &ModelConfig::heads,
                              &ModelConfig::kvHeads, &ModelConfig::headDim, &ModelConfig::context, &ModelConfig::experts, &ModelConfig::topK,
                              &ModelConfig::expertIntermediate})
        EXPECT_EQ(a.*member, b.*member);
    EXPECT_FLOAT_EQ(static_cast<float>(a.normEpsilon), static_cast<float>(b.normEpsilon));
    EXPECT_EQ(a.tiedHead, b.tiedHead);
    const auto vocabulary = (*gguf)->vocabulary();
    ASSERT_TRUE(vocabulary.has_value());
    EXPECT_EQ(vocabulary->tokens.size(), 128u);
    EXPECT_EQ(vocabulary->pre, "smollm");
    EXPECT_EQ(vocabulary->types[2], 3);
    EXPECT_THAT(vocabulary->merges, testing::ElementsAre("a b", "ab c"));
    EXPECT_EQ(vocabulary->addBos, 0);
    EXPECT_EQ(vocabulary->addEos, -1);
    EXPECT_FALSE((*folder)->vocabulary().has_value());
}

TEST(Config, RopeFrequencyFactorsSurviveTheWayThroughConfigJson)
{
    const auto gguf = Checkpoint::open(fixtures() / "checkpoint" / "llama-rope-llama3-f32.gguf");
    ASSERT_TRUE(gguf.ok()) << errorText(gguf);
    const std::vector<float> &factors = (*gguf)->config().rope.frequencyFactors;
    ASSERT_EQ(factors.size(), 8u);
    EXPECT_EQ(factors.front(), 1) << "the quickest frequency is not scaled";
    EXPECT_EQ(factors.back(), 8) << "the slowest is scaled by the whole factor";
    // The tied folder of the same weights, opened with the GGUF's configuration.
    const fs::path folder = fixtures() / "models" / "llama-rope-llama3";
    const auto again = openSafetensors(folder, (*gguf)->configJson(), {dataFile("model.safetensors", readFile(folder / "model.safetensors"))}, "");
    ASSERT_TRUE(again.ok()) << errorText(again);
    EXPECT_EQ((*again)->config().rope.frequencyFactors, factors);
}

TEST(Config, OfAFolderWithExperts)
{
    const auto opened = Checkpoint::open(fixtures() / "checkpoint" / "spectra-tiny");
    ASSERT_TRUE(opened.ok()) << errorText(opened);
    const ModelConfig &c = (*opened)->config();
    EXPECT_EQ(c.architecture, "llama");
    EXPECT_EQ(c.modelType, "spectra");
    EXPECT_THAT(c.moeLayers, testing::ElementsAre(1));
    EXPECT_EQ(c.experts, 3);
    EXPECT_EQ(c.sharedIntermediate, 24);
    EXPECT_EQ(c.routedScalingFactor, 0.5);
    EXPECT_EQ(nlohmann::json::parse(c.routerJson)["router_dim"], 4);
    EXPECT_EQ(c.trainingStep, 7);
    EXPECT_TRUE(c.routerCalibrated && !c.routerTrained);
    EXPECT_EQ(c.upcyclingNote, "from a random model");

    // What folderConfigJson() writes is read back as the same configuration.
    const fs::path folder = fixtures() / "checkpoint" / "spectra-tiny";
    const auto again = openSafetensors(folder, folderConfigJson(c, R"({"hidden_size":16,"intermediate_size":24,"num_hidden_layers":2,"num_attention_heads":2,
        "num_key_value_heads":1,"vocab_size":32,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true})"),
                                       {dataFile("model.safetensors", readFile(folder / "model.safetensors"))}, "");
    ASSERT_TRUE(again.ok()) << errorText(again);
    const ModelConfig &d = (*again)->config();
    EXPECT_EQ(d.moeLayers, c.moeLayers);
    EXPECT_EQ(nlohmann::json::parse(d.routerJson), nlohmann::json::parse(c.routerJson));
    EXPECT_EQ(d.sharedScalingFactor, c.sharedScalingFactor);
    EXPECT_EQ(d.upcyclingNote, c.upcyclingNote);
    EXPECT_EQ((*again)->tensors().size(), (*opened)->tensors().size());
}

TEST(Config, EstimatedWeightsAreTheStoredElements)
{
    for (const std::string name : {"llama-gqa", "llama-mha-tied", "llama-rope-llama3", "llama-rope-yarn-bias", "mixtral-gqa", "mixtral-tied"}) {
        const auto opened = Checkpoint::open(fixtures() / "models" / name);
        ASSERT_TRUE(opened.ok());
        std::uint64_t elements = 0;
        for (const TensorInfo &tensor : (*opened)->tensors())
            elements += static_cast<std::uint64_t>(tensor.elements());
        EXPECT_EQ(estimateMemory((*opened)->config(), 0).weights, 4 * elements) << name;
    }
    ModelConfig c;
    c.layers = 2;
    c.kvHeads = 3;
    c.headDim = 8;
    EXPECT_EQ(estimateMemory(c, 10).kvCache, 4u * 2 * 2 * 3 * 8 * 10);
    c.layers = c.kvHeads = c.headDim = std::int64_t(1) << 40;
    EXPECT_EQ(estimateMemory(c, 1 << 20).kvCache, std::numeric_limits<std::uint64_t>::max()) << "saturates";
}

TEST(Checkpoint, ReadingIsTheSameAtAnyNumberOfThreads)
{
    const auto opened = Checkpoint::open(fixtures() / "checkpoint" / "llama-kquants.gguf");
    ASSERT_TRUE(opened.ok());
    const TensorInfo &t = *(*opened)->find("model.layers.0.self_attn.q_proj.weight");
    std::vector<float> one(static_cast<std::size_t>(t.elements())), four(one.size());
    setThreadCount(1);
    ASSERT_TRUE((*opened)->readF32(t, one).ok());
    setThreadCount(4);
    ASSERT_TRUE((*opened)->readF32(t, four).ok());
    setThreadCount(0);
    EXPECT_EQ(one, four);
}

} // namespace
} // namespace spectra::test
