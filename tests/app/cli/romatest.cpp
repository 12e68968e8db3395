// SPDX-License-Identifier: GPL-3.0-or-later
// RoMA from the command line: a model, its bank, and the fine-tuning of its last routers towards it.
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <set>
#include <span>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

std::string phrases(unsigned seed, int count)
{
    static const char *const begin[] = {"the river bends", "every proof begins", "this function returns", "a theorem holds"};
    static const char *const end[] = {"twice before noon", "without an error", "a list of integers", "for all n"};
    std::string text;
    unsigned state = seed * 2654435761u + 1;
    for (int i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        text += std::string(begin[(state >> 8) % 4]) + " " + end[(state >> 20) % 4] + (i % 5 == 4 ? ".\n" : ", ");
    }
    return text;
}

class Roma : public Program {
protected:
    void SetUp() override
    {
        Program::SetUp();
        if (s_made)
            return;
        std::ofstream(at("rivers.txt")) << phrases(1, 1200);
        std::ofstream(at("proofs.txt")) << phrases(2, 1200);
        nlohmann::json config = {
            {"name", "base"},
            {"model", {{"hidden", 16}, {"layers", 3}, {"heads", 2}, {"kv_heads", 2}, {"intermediate", 16}, {"context", 64}, {"experts", 4}, {"top_k", 2}}},
            {"router", {{"type", "softmax_topk"}}},
            {"tokenizer", {{"vocabulary", 300}}},
            {"data", {{"domains", {{"rivers", "rivers.txt"}, {"proofs", "proofs.txt"}}}, {"held_out", 0.2}}},
            {"training", {{"steps", 40}, {"sequence_length", 16}, {"batch_sequences", 16}}},
            {"optimizer", {{"learning_rate", 0.02}}},
            {"schedule", {{"warmup", 2}}},
            {"evaluation", {{"every", 0}, {"tokens", 64}, {"trace_tokens", 0}}},
            {"checkpoint", {{"every", 100}}}};
        std::ofstream(at("base.json")) << config.dump(2);
        config["name"] = "aligned";
        config["model"] = {{"start", "router_only"}, {"checkpoint", "base/final"}, {"top_k", 2}};
        config["router"] = {{"type", "roma_like"}, {"manifold_layers", 2}, {"manifold_coef", 100}};
        config.erase("tokenizer");
        config["training"] = {{"steps", 24}, {"sequence_length", 16}, {"batch_sequences", 8}, {"accumulation", 2}};
        config["optimizer"] = {{"learning_rate", 0.01}, {"weight_decay", 0.1}};
        config["checkpoint"]["every"] = 8;
        config["roma"] = {{"bank", "bank"}};
        std::ofstream(at("roma.json")) << config.dump(2);
        expect(0, {"train", "base.json", "-o", "base"});
        s_bank = json({"roma-bank", "base/final", "roma.json", "-o", "bank"});
        s_made = true;
    }
    /// One of the routers' losses, or with no name the loss, by step.
    static std::vector<double> curve(const std::string &run, const std::string &name = {})
    {
        std::vector<double> list;
        std::ifstream stream(at(run) / "log.jsonl");
        for (std::string line; std::getline(stream, line);)
            if (const auto json = nlohmann::json::parse(line, nullptr, false); json.is_object() && json.contains("step"))
                list.push_back(name.empty() ? json["loss"].get<double>() : json.value("router_losses", nlohmann::json::object()).value(name, -1.0));
        return list;
    }
    static double mean(std::span<const double> values) { return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()); }
    static void copyBank(const std::string &to)
    {
        fs::remove_all(at(to));
        fs::copy(at("bank"), at(to), fs::copy_options::recursive);
    }
    /// Names of the tensors in which two runs' models differ.
    static std::set<std::string> differing(const std::string &a, const std::string &b)
    {
        const auto before = readExpectedArrays(at(a) / "final/model.safetensors"), after = readExpectedArrays(at(b) / "final/model.safetensors");
        EXPECT_EQ(before.size(), after.size());
        std::set<std::string> names;
        for (const auto &[name, array] : before) {
            const auto found = after.find(name);
            if (found == after.end() || found->second.f32 != array.f32)
                names.insert(name);
        }
        return names;
    }

    static inline bool s_made = false;
    static inline nlohmann::json s_bank;
};

TEST_F(Roma, TheRoutersOfTheLastLayersAreDrawnToTheBank)
{
    EXPECT_GT(s_bank["samples"].get<int>(), 20);
    EXPECT_LT(s_bank["samples"].get<int>(), s_bank["windows"].get<int>());
    EXPECT_EQ(s_bank["layers"], 2);
    EXPECT_EQ(s_bank["experts"], 4);
    EXPECT_EQ(s_bank["dimension"], 16);
    for (const char *name : {"embeddings.npy", "routing.npy", "queries.npy", "windows.json", "texts.jsonl", "manifest.json"})
        EXPECT_TRUE(fs::exists(at("bank") / name)) << name;
    const nlohmann::json result = json({"train", "roma.json", "-o", "aligned"});
    EXPECT_EQ(result["roma"]["samples"], s_bank["samples"]);
    EXPECT_EQ(result["roma"]["windows"], s_bank["windows"]);
    EXPECT_GT(result["roma"]["sigma"].get<double>(), 0);
    const std::vector<double> manifold = curve("aligned", "manifold");
    ASSERT_EQ(manifold.size(), 24u);
    for (const double loss : manifold)
        EXPECT_GT(loss, 0);
    // Every step has other windows: the loss is held against that of the same windows under the routers as they were.
    expect(0, {"train", "roma.json", "-o", "still", "--set", "optimizer.learning_rate=0"});
    const std::vector<double> still = curve("still", "manifold");
    ASSERT_EQ(still.size(), 24u);
    EXPECT_EQ(still[0], manifold[0]);
    EXPECT_LT(mean(std::span(manifold).last(6)), 0.85 * mean(std::span(still).last(6)));
    EXPECT_LT(mean(std::span(manifold).last(12)), 0.9 * mean(std::span(still).last(12)));
    EXPECT_EQ(differing("base", "aligned"), (std::set<std::string>{"model.layers.1.mlp.router.weight", "model.layers.2.mlp.router.weight"}))
        << "weight decay must not touch the first one either";

    // Half the sequences twice a step, all at once, and with layers run again in the backward pass: the same sum.
    expect(0, {"train", "roma.json", "-o", "once", "--set", "training.batch_sequences=16", "--set", "training.accumulation=1", "--max-steps", "5"});
    expect(0, {"train", "roma.json", "-o", "again", "--set", "training.activation_checkpointing=true", "--max-steps", "5"});
    for (const char *run : {"once", "again"}) {
        const std::vector<double> other = curve(run, "manifold");
        ASSERT_EQ(other.size(), 5u);
        for (std::size_t i = 0; i < 5; ++i)
            EXPECT_NEAR(other[i], manifold[i], 1e-4 * manifold[i]) << run << " step " << i;
    }
}

TEST_F(Roma, ARunThatGoesOnIsTheSameRun)
{
    copyBank("lent");
    const std::vector<std::string> small = {"--set", "training.steps=9", "--set", "checkpoint.every=4", "--set", "roma.bank=lent"};
    const auto train = [&](const std::string &output, std::vector<std::string> more) {
        std::vector<std::string> arguments = {"train", "roma.json", "-o", output};
        arguments.insert(arguments.end(), small.begin(), small.end());
        arguments.insert(arguments.end(), more.begin(), more.end());
        return arguments;
    };
    expect(0, train("straight", {}));
    expect(0, train("parts", {"--max-steps", "5"}));
    // What the bank gives is part of the run: another one at the same place is noticed.
    expect(0, {"roma-bank", "base/final", "roma.json", "-o", "lent", "--windows", "200", "--overwrite"});
    EXPECT_THAT(expect(3, train("parts", {"--resume"})).err, HasSubstr("another bank"));
    copyBank("lent");
    expect(0, train("parts", {"--resume"}));
    EXPECT_EQ(curve("parts", "manifold"), curve("straight", "manifold"));
    EXPECT_EQ(curve("parts"), curve("straight"));
    EXPECT_EQ(readText(at("parts/final/model.safetensors")), readText(at("straight/final/model.safetensors")));
}

TEST_F(Roma, WithoutABankItSaysSoAndTrainsAsSoftmaxTopK)
{
    const Ran ran = expect(0, {"train", "roma.json", "-o", "bare", "--set", "roma.bank=\"\"", "--max-steps", "1"});
    EXPECT_THAT(ran.err, HasSubstr("trains as softmax top-k"));
    EXPECT_EQ(curve("bare", "manifold"), std::vector<double>{-1.0});
}

TEST_F(Roma, EmbeddingsFromOutsideChooseOtherNeighbours)
{
    const auto windows = s_bank["windows"].get<std::int64_t>();
    std::vector<float> values(static_cast<std::size_t>(3 * windows));
    for (std::size_t i = 0; i < values.size(); ++i)
        values[i] = std::sin(static_cast<float>(i * i % 1009));
    writeArray(at("outside.npy"), windows, 3, values);
    expect(0, {"train", "roma.json", "-o", "own", "--max-steps", "1"});
    expect(0, {"train", "roma.json", "-o", "outside", "--set", "roma.embeddings=outside.npy", "--set", "roma.sigma=0.5", "--set", "roma.neighbours=1", "--max-steps", "1"});
    EXPECT_GT(curve("outside", "manifold")[0], 0);
    EXPECT_GT(std::abs(curve("outside", "manifold")[0] - curve("own", "manifold")[0]), 1e-6);
}

TEST_F(Roma, WhatDoesNotFitIsRefusedByName)
{
    const auto refused = [](int code, std::vector<std::string> settings) {
        std::vector<std::string> arguments = {"train", "roma.json", "-o", "never"};
        for (std::string &s : settings) {
            arguments.push_back("--set");
            arguments.push_back(std::move(s));
        }
        const Ran ran = expect(code, arguments);
        EXPECT_FALSE(fs::exists(at("never")));
        return ran.err;
    };
    EXPECT_THAT(refused(3, {"roma.bank=nowhere"}), AllOf(HasSubstr("roma.bank"), HasSubstr("nowhere"), HasSubstr("hint: make one with spectra roma-bank")));
    EXPECT_THAT(refused(3, {"training.sequence_length=24"}), HasSubstr("training.sequence_length"));
    std::ofstream(at("others.txt")) << phrases(7, 1200);
    EXPECT_THAT(refused(3, {"data.domains.proofs=others.txt"}), AllOf(HasSubstr("other texts"), HasSubstr("proofs")));
    EXPECT_THAT(refused(3, {"router.manifold_layers=1"}), HasSubstr("manifold_layers"));
    EXPECT_THAT(refused(3, {"roma.neighbours=100000"}), HasSubstr("use roma.neighbours <= "));
    EXPECT_THAT(refused(2, {"roma.neighbours=0"}), HasSubstr("1 <= x"));
    EXPECT_THAT(refused(2, {"router.type=softmax_topk"}), HasSubstr("roma_like"));
    EXPECT_THAT(refused(3, {"roma.embeddings=gone.npy"}), HasSubstr("gone.npy"));
    copyBank("broken");
    std::ofstream(at("broken/routing.npy")) << "nonsense";
    EXPECT_THAT(refused(3, {"roma.bank=broken"}), AllOf(HasSubstr("routing.npy"), HasSubstr("NumPy")));
    std::ofstream(at("broken/windows.json")) << "{";
    EXPECT_THAT(refused(3, {"roma.bank=broken"}), HasSubstr("windows.json"));

    EXPECT_THAT(expect(1, {"roma-bank", "base/final", "roma.json", "-o", "bank"}).err, HasSubstr("exists"));
    EXPECT_THAT(expect(1, {"roma-bank", "base/final", "roma.json", "-o", "base", "--overwrite"}).err, HasSubstr("not a bank"));
    EXPECT_THAT(expect(2, {"roma-bank", "base/final", "base.json", "-o", "b"}).err, HasSubstr("router.type"));
    EXPECT_THAT(expect(3, {"roma-bank", "dense", "roma.json", "-o", "b"}).err, HasSubstr("dense"));
    EXPECT_THAT(expect(3, {"roma-bank", "base/final", "gone.json", "-o", "b"}).err, HasSubstr("gone.json"));
    EXPECT_FALSE(fs::exists(at("b")));
}

/// Two processes with half of each micro-batch against one with all; what neither trains stays as it was.
TEST_F(Roma, TwoProcessesAlignAsOne)
{
    const std::string settings = " --set training.steps=4 --set training.accumulation=1 --threads 1";
    ASSERT_EQ(std::system(("cd '" + at(".").string() + "' && mpirun --allow-run-as-root --oversubscribe -n 2 '" SPECTRA_BUILD_DIR "/bin/spectra' train roma.json -o two" + settings
                           + " > two.out 2> two.err")
                              .c_str()),
              0)
        << readText(at("two.err"));
    expect(0, {"train", "roma.json", "-o", "one", "--set", "training.steps=4", "--set", "training.accumulation=1", "--set", "training.batch_sequences=16", "--threads", "1"});
    const auto one = curve("one", "manifold"), two = curve("two", "manifold");
    ASSERT_EQ(one.size(), 4u);
    ASSERT_EQ(two.size(), 4u);
    for (std::size_t i = 0; i < 4; ++i)
        EXPECT_NEAR(one[i], two[i], 1e-4 * one[i]);
    EXPECT_FALSE(differing("base", "two").contains("model.layers.0.mlp.router.weight"));
}

} // namespace
} // namespace spectra::test
