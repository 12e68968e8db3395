// SPDX-License-Identifier: GPL-3.0-or-later
// What a bank holds against the model run window by window, and against the routing that a training pass forms.
#include "engine/core/npy.h"
#include "engine/run/engine.h"
#include "engine/run/romatargets.h"
#include "engine/run/romawindows.h"
#include "engine/train/trainer.h"
#include "engine/train/upcycle.h"
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <fstream>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;

class Bank : public testing::Test {
protected:
    static constexpr std::int64_t kLength = 6;

    void SetUp() override
    {
        std::string text;
        for (unsigned i = 0; i < 3500; ++i)
            text += std::string(1 + i * 7 % 5, static_cast<char>('a' + i * i % 23)) + (i % 10 == 0 ? "\n" : i % 3 == 0 ? " " : "") + someText(2, i);
        std::ofstream(m_folder / "text.txt") << text;
        m_request.spec.model = m_model.string();
        m_request.spec.device = "cpu";
        m_request.where = "roma.json";
        m_request.folder = m_folder.path();
        m_request.config = nlohmann::json{{"model", {{"start", "router_only"}, {"checkpoint", m_model.string()}, {"top_k", 0}}},
                                          {"router", {{"type", "roma_like"}, {"manifold_layers", 2}}},
                                          {"data", {{"domains", {{"text", "text.txt"}}}, {"held_out", 0.1}}},
                                          {"training", {{"sequence_length", kLength}}}}
                               .dump();
        m_request.output = m_folder / "bank";
    }
    TemporaryFolder m_folder{"romabank"};
    fs::path m_model = tinyModel("mixtral-tied", m_folder / "model");
    Bench m_bench;
    RomaBankRequest m_request;
};

TEST_F(Bank, HoldsTheWindowsOfSuccessAndTheRoutingThatTrainingForms)
{
    const Summary summary = m_bench.good(m_request);
    const auto document = nlohmann::json::parse(summary.document);
    const auto told = RomaWindows::read(m_request.output);
    ASSERT_TRUE(told.ok()) << told.error().what;
    const auto bank = RomaBank::open(m_request.output);
    ASSERT_TRUE(bank.ok()) << bank.error().what;
    EXPECT_EQ(document["windows"], told->windows.size());
    EXPECT_EQ(document["of"], told->windows.size());
    EXPECT_EQ(told->successes(), bank->samples);
    ASSERT_GT(bank->samples, 8);
    ASSERT_LT(bank->samples, static_cast<std::int64_t>(told->windows.size()));
    EXPECT_EQ(bank->layers, 2);
    EXPECT_EQ(bank->experts, 6);
    EXPECT_EQ(bank->dimension, 32);

    const auto checkpoint = Checkpoint::open(m_model);
    ASSERT_TRUE(checkpoint.ok());
    const auto model = Model::load(*checkpoint, {});
    ASSERT_TRUE(model.ok());
    const auto trained = TrainModel::load(*checkpoint, 0, {}, {});
    ASSERT_TRUE(trained.ok());
    CorpusOptions texts;
    texts.domains = {{"text", {m_folder / "text.txt"}, 1}};
    texts.heldOut = 0.1;
    const auto tokenizer = Tokenizer::fromJsonFile(m_model / "tokenizer.json");
    ASSERT_TRUE(tokenizer.ok());
    const auto corpus = Corpus::open(texts, *tokenizer, kLength + 1, m_folder / "cache", {}, {});
    ASSERT_TRUE(corpus.ok()) << corpus.error().what;
    const BatchSampler sampler(*corpus, kLength, 9, BatchSampler::Cut::fixed);
    EXPECT_EQ(sampler.windows(0), static_cast<std::int64_t>(told->windows.size()));
    const auto queries = readNpy(m_request.output / "queries.npy");
    ASSERT_TRUE(queries.ok());
    for (std::size_t i = 0; i < told->windows.size(); i += 1 + i % 3) {
        const RomaWindow &w = told->windows[i];
        const auto tokens = sampler.window(w.domain, w.number).tokens;
        ASSERT_EQ(tokens.size(), static_cast<std::size_t>(kLength) + 1);
        PassInput input;
        input.sequences.push_back({tokens.first(kLength), {}, nullptr});
        const auto hidden = (*model)->forward(input);
        ASSERT_TRUE(hidden.ok());
        const auto logits = (*model)->logits(hidden->narrow(0, kLength - 1, 1));
        ASSERT_TRUE(logits.ok());
        ASSERT_EQ(logits->argmax(-1).item<std::int64_t>() == tokens.back(), w.row >= 0) << i;
        const torch::Tensor mean = hidden->mean(0);
        for (std::int64_t k = 0; k < 32; k += 5)
            ASSERT_NEAR(queries->values[i * 32 + static_cast<std::size_t>(k)], mean[k].item<float>(), 1e-4) << i;
        if (w.row < 0)
            continue;
        ASSERT_EQ(bank->embeddings[static_cast<std::size_t>(w.row * 32)], queries->values[i * 32]);
        TrainBatch batch;
        batch.ids = torch::zeros({1, kLength}, torch::kInt64);
        batch.targets = torch::zeros({1, kLength}, torch::kInt64);
        for (std::int64_t t = 0; t < kLength; ++t) {
            batch.ids[0][t] = tokens[static_cast<std::size_t>(t)];
            batch.targets[0][t] = tokens[static_cast<std::size_t>(t + 1)];
        }
        TrainPassOptions options;
        options.keepSteps = true;
        options.training = false;
        const auto output = (*trained)->forward(batch, options);
        ASSERT_TRUE(output.ok());
        for (std::int64_t l = 0; l < 2; ++l)
            for (std::int64_t e = 0; e < 6; ++e)
                ASSERT_NEAR(bank->routing[static_cast<std::size_t>((w.row * 2 + l) * 6 + e)], output->steps[static_cast<std::size_t>(l)].probabilities[kLength - 1][e].item<float>(), 1e-4)
                    << "window " << i << " layer " << l;
    }
    std::ifstream stream(m_request.output / "texts.jsonl");
    std::size_t lines = 0;
    for (std::string line; std::getline(stream, line); ++lines) {
        const auto json = nlohmann::json::parse(line);
        ASSERT_EQ(json["success"], told->windows[lines].row >= 0);
        ASSERT_FALSE(json["text"].get<std::string>().empty());
    }
    EXPECT_EQ(lines, told->windows.size());
}

/// Micro-batches each have targets of their own, and a layer that is run again in the backward pass sees them once more.
TEST_F(Bank, EveryMicroBatchIsDrawnToItsOwnNeighbours)
{
    const auto step = [&](const std::vector<ManifoldTargets> &manifold, bool together, bool again) {
        const auto checkpoint = Checkpoint::open(m_model);
        UpcycleOptions upcycle;
        upcycle.topK = 3;
        upcycle.routerJson = R"({"type":"roma_like","manifold_layers":2})";
        auto model = TrainModel::load(*upcycled(*checkpoint, upcycle), 0, {}, {});
        TrainerOptions options;
        options.routerOnly = true;
        options.clip = 0;
        options.optimizer.weightDecay = 0;
        options.pass.activationCheckpointing = again;
        auto trainer = Trainer::create(std::move(*model), options);
        EXPECT_TRUE(trainer.ok());
        torch::manual_seed(4);
        const auto ids = torch::randint(3, 120, {4, 7}, torch::kInt64);
        std::vector<TrainBatch> batches;
        for (int b = 0; b < (together ? 1 : 2); ++b) {
            TrainBatch batch;
            const auto part = together ? ids : ids.narrow(0, 2 * b, 2);
            batch.ids = part.narrow(1, 0, 6).contiguous();
            batch.targets = part.narrow(1, 1, 6).contiguous();
            batch.manifold = manifold[static_cast<std::size_t>(b)];
            batches.push_back(batch);
        }
        const auto report = (*trainer)->step(batches);
        EXPECT_TRUE(report.ok());
        std::vector<torch::Tensor> gradients;
        for (const TrainParameter &p : (*trainer)->model().parameters())
            if (p.group == ParameterGroup::router)
                gradients.push_back(p.value.grad().clone());
        return std::pair(report->routerLosses.count("manifold") ? report->routerLosses.at("manifold") : -1.0, gradients);
    };
    torch::manual_seed(2);
    const ManifoldTargets all{torch::softmax(torch::randn({4, 3}), -1), torch::softmax(5 * torch::randn({4, 3, 2, 6}), -1)};
    const auto half = [&](int b) { return ManifoldTargets{all.weights.narrow(0, 2 * b, 2), all.routing.narrow(0, 2 * b, 2)}; };
    const auto [whole, wholeGradient] = step({all}, true, false);
    EXPECT_GT(whole, 0.01);
    for (const bool again : {false, true}) {
        const auto [parts, gradient] = step({half(0), half(1)}, false, again);
        EXPECT_NEAR(parts, whole, 1e-5) << again;
        ASSERT_EQ(gradient.size(), wholeGradient.size());
        for (std::size_t i = 0; i < gradient.size(); ++i)
            EXPECT_LT((gradient[i] - wholeGradient[i]).abs().max().item<double>(), 1e-5 * (1 + wholeGradient[i].abs().max().item<double>())) << again << " " << i;
        const auto [swapped, other] = step({half(1), half(0)}, false, again);
        EXPECT_GT(std::abs(swapped - whole), 1e-3);
        EXPECT_EQ(step({half(0), {}}, false, again).first > 0, true) << "what the second lacks is not the first's";
        EXPECT_LT(step({half(0), {}}, false, again).first, parts - 1e-3);
    }
    EXPECT_EQ(step({ManifoldTargets{}}, true, false).first, -1);
}

TEST_F(Bank, SomeWindowsAreDrawnBySeedAndEmbeddingsCanComeFromOutside)
{
    m_request.windows = 300;
    m_request.spec.seed = 3;
    const Summary one = m_bench.good(m_request);
    const auto told = RomaWindows::read(m_request.output);
    ASSERT_TRUE(told.ok());
    EXPECT_EQ(told->windows.size(), 300u);
    EXPECT_GT(nlohmann::json::parse(one.document)["of"], 300);
    m_request.output = m_folder / "again";
    (void)m_bench.good(m_request);
    EXPECT_EQ(readText(m_request.output / "windows.json"), readText(m_folder / "bank" / "windows.json"));
    EXPECT_EQ(readText(m_request.output / "routing.npy"), readText(m_folder / "bank" / "routing.npy"));
    m_request.spec.seed = 4;
    m_request.output = m_folder / "other";
    m_request.embeddings = m_folder / "e.npy";
    {
        std::ofstream stream(m_request.embeddings, std::ios::binary);
        std::vector<float> values(600);
        for (std::size_t i = 0; i < values.size(); ++i)
            values[i] = static_cast<float>(i);
        writeNpy(stream, std::vector<std::int64_t>{300, 2}, values);
    }
    (void)m_bench.good(m_request);
    EXPECT_NE(readText(m_request.output / "windows.json"), readText(m_folder / "bank" / "windows.json"));
    const auto bank = RomaBank::open(m_request.output);
    const auto others = RomaWindows::read(m_request.output);
    ASSERT_TRUE(bank.ok() && others.ok());
    ASSERT_EQ(bank->dimension, 2);
    for (std::size_t i = 0; i < 300; ++i)
        if (others->windows[i].row >= 0) {
            EXPECT_EQ(bank->embeddings[static_cast<std::size_t>(others->windows[i].row) * 2], static_cast<float>(2 * i));
        }
}

TEST_F(Bank, WhatGivesNoBankIsRefusedByName)
{
    const RomaBankRequest right = m_request;
    m_request.spec.model = tinyModel("llama-gqa", m_folder / "dense").string();
    Error error = m_bench.bad(m_request);
    EXPECT_EQ(error.kind, ErrorKind::input);
    EXPECT_THAT(error.what + error.mend, testing::AllOf(HasSubstr("dense"), HasSubstr("softmax_topk")));
    m_request.spec.model = tinyModel("mixtral-gqa", m_folder / "four").string();
    EXPECT_THAT(m_bench.bad(m_request).what, HasSubstr("other experts"));
    m_request.spec.model = tinyModel("mixtral-tied", m_folder / "speaker", {.bos = false}).string();
    EXPECT_THAT(m_bench.bad(m_request).what, HasSubstr("another tokenizer"));
    m_request = right;
    m_request.set = {"router.type=softmax_topk"};
    error = m_bench.bad(m_request);
    EXPECT_EQ(error.kind, ErrorKind::usage);
    EXPECT_EQ(error.where, "roma.json: router.type");
    m_request = right;
    m_request.embeddings = m_folder / "none.npy";
    EXPECT_THAT(m_bench.bad(m_request).where, HasSubstr("none.npy"));
    {
        std::ofstream stream(m_request.embeddings, std::ios::binary);
        writeNpy(stream, std::vector<std::int64_t>{3, 2}, std::vector<float>(6));
    }
    error = m_bench.bad(m_request);
    EXPECT_THAT(error.where + error.mend, testing::AllOf(HasSubstr("none.npy"), HasSubstr("texts.jsonl")));
    m_request = right;
    m_request.windows = -1;
    EXPECT_EQ(m_bench.bad(m_request).kind, ErrorKind::usage);
    EXPECT_FALSE(fs::exists(right.output)) << "nothing half-made is left";
    m_request = right;
    fs::create_directory(right.output);
    std::ofstream(right.output / "letter.txt") << "mine";
    EXPECT_EQ(m_bench.bad(m_request).kind, ErrorKind::work);
    m_request.overwrite = true;
    EXPECT_EQ(m_bench.bad(m_request).kind, ErrorKind::work) << "another folder is no bank to replace";
    EXPECT_EQ(readText(right.output / "letter.txt"), "mine");
}

} // namespace
} // namespace spectra::test
