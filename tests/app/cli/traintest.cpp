// SPDX-License-Identifier: GPL-3.0-or-later
// `spectra train` as a child: runs, kills, continuations, refusals.
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <thread>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

/// Text with a grammar of its own, different in each domain.
std::string words(int seed, int count)
{
    static const char *const subject[] = {"the river", "a theorem", "this function", "the old mill", "every proof"};
    static const char *const verb[] = {"bends", "returns", "holds", "follows", "begins"};
    static const char *const rest[] = {"twice before noon", "a list of integers", "for all n", "without an error", "in the second chapter"};
    std::string text;
    unsigned state = static_cast<unsigned>(seed) * 2654435761u + 1;
    for (int i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        text += std::string(subject[(state >> 8) % 5]) + " " + verb[(state >> 16) % 5] + " " + rest[(state >> 24) % 5] + (i % 7 == 6 ? ".\n" : ", ");
    }
    return text;
}

class Train : public Program {
protected:
    void SetUp() override
    {
        Program::SetUp();
        if (fs::exists(at("train.json")))
            return;
        std::ofstream(at("rivers.txt")) << words(1, 3000);
        std::ofstream(at("proofs.txt")) << words(2, 3000);
        std::ofstream(at("train.json")) << config().dump(2);
    }
    static nlohmann::json config()
    {
        return {{"name", "tiny"},
                {"model", {{"hidden", 16}, {"layers", 2}, {"heads", 2}, {"kv_heads", 2}, {"intermediate", 16}, {"context", 64}, {"experts", 4}, {"top_k", 2}}},
                {"router", {{"type", "spectra"}, {"router_dim", 4}, {"sinkhorn_epsilon", 0.2}}},
                {"tokenizer", {{"vocabulary", 300}}},
                {"data", {{"domains", {{"rivers", "rivers.txt"}, {"proofs", "proofs.txt"}}}, {"held_out", 0.2}}},
                {"training", {{"steps", 12}, {"sequence_length", 32}, {"batch_sequences", 2}}},
                {"optimizer", {{"learning_rate", 0.003}}},
                {"schedule", {{"warmup", 2}}},
                {"evaluation", {{"every", 6}, {"tokens", 256}, {"trace_tokens", 64}}},
                {"checkpoint", {{"every", 4}}},
                {"calibration", {{"batches", 3}, {"batch_tokens", 128}}}};
    }
    /// Losses of the steps in a run's log.
    static std::vector<double> losses(const std::string &run)
    {
        std::vector<double> list;
        std::ifstream stream(at(run) / "log.jsonl");
        std::string line;
        while (std::getline(stream, line))
            if (const auto json = nlohmann::json::parse(line, nullptr, false); json.is_object() && json.contains("step"))
                list.push_back(json["loss"]);
        return list;
    }
};

TEST_F(Train, ARunLeavesAModelItsCurvesAndItsResult)
{
    const nlohmann::json result = json({"train", "train.json", "-o", "whole"});
    EXPECT_EQ(result["steps"], 12);
    EXPECT_TRUE(std::isfinite(result["held_out_loss"].get<double>()));
    EXPECT_EQ(result["domains"].size(), 2u);
    EXPECT_EQ(result["calibration"]["batches"], 3);
    EXPECT_TRUE(result["metrics"]["load_cv"]["value"].is_number());
    EXPECT_EQ(result["metrics"]["load_cv"]["by_layer"].size(), 2u);
    for (const char *share : {"10", "25", "50", "75", "100"})
        EXPECT_TRUE(result["loss_at"].contains(share)) << share;
    for (const char *name : {"config.json", "environment.json", "manifest.json", "tokenizer.json", "log.jsonl", "metrics.h5", "result.json", "final/config.json",
                             "final/model.safetensors", "traces/step-000012.h5", "checkpoints/step-000012/optimizer/numbers.json"})
        EXPECT_TRUE(fs::exists(at("whole") / name)) << name;
    EXPECT_EQ(losses("whole").size(), 12u);
    int looks = 0;
    std::ifstream log(at("whole/log.jsonl"));
    for (std::string line; std::getline(log, line);)
        if (const auto row = nlohmann::json::parse(line); row.contains("evaluation")) {
            ++looks;
            const auto &memory = row["memory_by_part"];
            EXPECT_GT(memory["weights"].get<double>(), 4 * 300 * 16) << "the embedding alone";
            EXPECT_GE(memory["optimizer"].get<double>(), 1.5 * memory["gradients"].get<double>()) << "two moments of what has a gradient";
            EXPECT_NEAR(memory["rest"].get<double>() + memory["weights"].get<double>() + memory["gradients"].get<double>() + memory["optimizer"].get<double>(),
                        memory["peak"].get<double>(), 1);
        }
    EXPECT_EQ(looks, 6);
    const nlohmann::json &kept = result["metrics"]["routing_consistency"];
    EXPECT_EQ(kept["from_step"], 9) << "the first evaluation of the last quarter";
    EXPECT_GE(kept["value"].get<double>(), 0);
    EXPECT_LE(kept["value"].get<double>(), kept["matched"].get<double>());
    EXPECT_LE(kept["value"].get<double>(), kept["saturation"].get<double>());
    EXPECT_EQ(kept["by_layer"].size(), 2u);
    EXPECT_NEAR((kept["by_layer"][0].get<double>() + kept["by_layer"][1].get<double>()) / 2, kept["value"].get<double>(), 1e-12);
    EXPECT_EQ(kept["by_step"].size(), 4u) << "steps 2, 3, 6 and 9 against 12";
    // What it leaves is a model and a trace like any other.
    expect(0, {"inspect", "whole/traces/step-000012.h5", "--validate"});
    expect(0, {"trace", "whole/final", "--text", "the river bends twice", "-o", "again.h5"});
    const nlohmann::json inspected = json({"inspect", "whole/final"});
    EXPECT_THAT(inspected.dump(), Not(HasSubstr("fresh router")));
    // An existing run is left alone.
    expect(1, {"train", "train.json", "-o", "whole"});
    EXPECT_EQ(losses("whole").size(), 12u);
}

TEST_F(Train, TheFinishedModelIsStoredAsAsked)
{
    expect(0, {"train", "train.json", "-o", "half", "--set", "checkpoint.dtype=f16", "--set", "evaluation.keep_traces=false"});
    expect(0, {"train", "train.json", "-o", "full", "--set", "evaluation.keep_traces=false"});
    EXPECT_LT(fs::file_size(at("half/final/model.safetensors")), 0.75 * static_cast<double>(fs::file_size(at("full/final/model.safetensors"))));
    EXPECT_EQ(fs::file_size(at("half/checkpoints/step-000012/model.safetensors")), fs::file_size(at("full/checkpoints/step-000012/model.safetensors")))
        << "to go on from, a checkpoint keeps every bit";
    EXPECT_EQ(nlohmann::json::parse(readText(at("half/final/config.json")))["torch_dtype"], "float16");
    EXPECT_EQ(nlohmann::json::parse(readText(at("half/checkpoints/step-000012/config.json")))["torch_dtype"], "float32");
    const auto result = nlohmann::json::parse(readText(at("half/result.json")));
    EXPECT_EQ(result["metrics"]["routing_consistency"]["absent"], "the run keeps no traces");
    expect(2, {"train", "train.json", "-o", "never", "--set", "checkpoint.dtype=f8"});
    expect(2, {"train", "train.json", "-o", "never", "--device", "cuda"});
}

TEST_F(Train, AKilledRunGoesOnWithTheSameLosses)
{
    expect(0, {"train", "train.json", "-o", "straight"});
    RunOptions kill;
    kill.whileRunning = [](pid_t child) {
        for (int i = 0; i < 600 && losses("killed").size() < 6; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
        ::kill(child, SIGKILL);
    };
    (void)run({"train", "train.json", "-o", "killed", "--set", "training.steps=12"}, kill);
    const std::size_t before = losses("killed").size();
    EXPECT_GE(before, 6u);
    expect(0, {"train", "train.json", "-o", "killed", "--resume"});
    EXPECT_EQ(losses("killed"), losses("straight"));
    expect(0, {"train", "train.json", "-o", "parts", "--max-steps", "5"});
    EXPECT_EQ(losses("parts").size(), 5u);
    EXPECT_FALSE(fs::exists(at("parts/result.json")));
    expect(0, {"train", "train.json", "-o", "parts", "--resume"});
    EXPECT_EQ(losses("parts"), losses("straight"));
    EXPECT_EQ(readText(at("parts/final/model.safetensors")), readText(at("straight/final/model.safetensors")));
}

TEST_F(Train, CtrlCKeepsWhatIsFinished)
{
    RunOptions stop;
    stop.whileRunning = [](pid_t child) {
        for (int i = 0; i < 600 && losses("stopped").size() < 2; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ::kill(child, SIGINT);
    };
    const Ran ran = run({"train", "train.json", "-o", "stopped", "--set", "training.steps=4000", "--set", "evaluation.every=0"}, stop);
    EXPECT_EQ(ran.code, 130) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("--resume"));
    const std::size_t done = losses("stopped").size();
    EXPECT_GE(done, 2u);
    EXPECT_TRUE(fs::exists(at("stopped/checkpoints")));
    expect(0, {"train", "train.json", "-o", "stopped", "--resume", "--set", "training.steps=4000", "--set", "evaluation.every=0", "--max-steps", std::to_string(done + 1)});
    EXPECT_EQ(losses("stopped").size(), done + 1);
}

TEST_F(Train, AnEvaluationThatWasCutOffIsMadeUp)
{
    expect(0, {"train", "train.json", "-o", "cut", "--max-steps", "6"});
    std::string kept;
    std::size_t dropped = 0;
    {
        std::ifstream stream(at("cut/log.jsonl"));
        for (std::string line; std::getline(stream, line);)
            if (nlohmann::json::parse(line).value("evaluation", 0) == 6)
                ++dropped;
            else
                kept += line + "\n";
    }
    ASSERT_EQ(dropped, 1u);
    std::ofstream(at("cut/log.jsonl")) << kept;
    const nlohmann::json result = json({"train", "train.json", "-o", "cut", "--resume"});
    EXPECT_TRUE(result["loss_at"].contains("50"));
}

TEST_F(Train, WhatCannotWorkIsRefusedByName)
{
    EXPECT_THAT(expect(3, {"train", "nowhere.json", "-o", "x"}).err, HasSubstr("nowhere.json"));
    EXPECT_THAT(expect(2, {"train", "train.json", "-o", "x", "--set", "training.stepz=3"}).err, HasSubstr("training.steps"));
    EXPECT_THAT(expect(2, {"train", "train.json", "-o", "x", "--set", "model.top_k=9"}).err, HasSubstr("top_k"));
    EXPECT_THAT(expect(2, {"train", "train.json", "-o", "x", "--set", "router.router_dimm=9"}).err, HasSubstr("router_dim"));
    EXPECT_THAT(expect(3, {"train", "train.json", "-o", "x", "--set", "data.domains.proofs=gone.txt"}).err, HasSubstr("gone.txt"));
    std::ofstream(at("short.txt")) << "the river bends twice\n";
    EXPECT_THAT(expect(3, {"train", "train.json", "-o", "x", "--set", "data.domains.proofs=short.txt"}).err, HasSubstr("proofs"));
    EXPECT_FALSE(fs::exists(at("x")));
    expect(0, {"train", "train.json", "-o", "shape", "--max-steps", "4"});
    EXPECT_THAT(expect(3, {"train", "train.json", "-o", "shape", "--resume", "--set", "model.experts=8"}).err, HasSubstr("model.experts"));
    std::ofstream(at("moved.txt")) << words(3, 3000);
    EXPECT_THAT(expect(3, {"train", "train.json", "-o", "shape", "--resume", "--set", "data.domains.proofs=moved.txt"}).err, HasSubstr("data.domains"));
    expect(0, {"train", "train.json", "-o", "shape", "--resume"});
    fs::create_directory(at("foreign"));
    std::ofstream(at("foreign/letter.txt")) << "mine";
    expect(1, {"train", "train.json", "-o", "foreign", "--overwrite"});
    expect(3, {"train", "train.json", "-o", "foreign", "--resume"});
    EXPECT_EQ(readText(at("foreign/letter.txt")), "mine");
}

TEST_F(Train, ADryRunSaysWhatItWouldNeed)
{
    const nlohmann::json plan = json({"train", "train.json", "--dry-run"});
    EXPECT_TRUE(plan["fits"]);
    EXPECT_GT(plan["memory"]["total"], 0);
    EXPECT_GT(plan["flops_per_token"]["router"], 0);
    const Ran large = expect(3, {"train", "train.json", "--dry-run", "--json", "--set", "model.hidden=16384", "--set", "model.heads=128", "--set", "model.kv_heads=128", "--set",
                                 "model.intermediate=65536", "--set", "model.layers=80"});
    EXPECT_FALSE(nlohmann::json::parse(large.out)["fits"]);
    EXPECT_THAT(large.err, HasSubstr("memory"));
}

TEST_F(Train, AFullDiskLeavesEarlierCheckpointsWhole)
{
    const auto train = [](std::vector<std::string> more) {
        std::vector<std::string> arguments = {"train", "train.json", "-o", "room", "--set", "model.hidden=128", "--set", "evaluation.trace_tokens=0"};
        arguments.insert(arguments.end(), more.begin(), more.end());
        return arguments;
    };
    expect(0, train({"--max-steps", "4"}));
    RunOptions small;
    small.fileLimit = 700000; // a checkpoint is larger, log and curves are not
    const Ran ran = run(train({"--resume"}), small);
    EXPECT_EQ(ran.code, 1) << ran.err;
    EXPECT_THAT(ran.err, HasSubstr("earlier checkpoints are intact"));
    EXPECT_TRUE(fs::exists(at("room/checkpoints/step-000004/model.safetensors")));
    for (const auto &entry : fs::directory_iterator(at("room/checkpoints")))
        EXPECT_EQ(entry.path().filename(), "step-000004");
    expect(0, train({"--resume"}));
}

TEST_F(Train, ADenseModelIsUpcycledAndItsRouterAloneTrained)
{
    const std::vector<std::string> start = {"--set", "model.checkpoint=dense", "--set", "training.steps=3", "--set", "calibration.batches=0", "--set", "schedule.warmup=0"};
    for (const char *kind : {"upcycle", "router_only"}) {
        std::vector<std::string> arguments = {"train", "train.json", "-o", kind, "--set", std::string("model.start=") + kind};
        arguments.insert(arguments.end(), start.begin(), start.end());
        const nlohmann::json result = json(arguments);
        EXPECT_EQ(result["steps"], 3);
    }
}

/// Two processes with half the sequences each against one with all.
TEST_F(Train, TwoProcessesTrainAsOne)
{
    const std::vector<std::string> settings = {"--set", "router.router_jitter_noise=0", "--set", "router.expert_choice_routing=false", "--set", "training.steps=6", "--set",
                                               "calibration.batches=0"};
    for (const char *scope : {"batch", "sequence"}) {
        std::vector<std::string> one = {"train", "train.json", "-o", std::string("one-") + scope, "--threads", "1", "--set", "training.batch_sequences=4", "--set",
                                        std::string("router.train_sinkhorn_scope=") + scope};
        one.insert(one.end(), settings.begin(), settings.end());
        expect(0, one);
        std::string command = "mpirun --allow-run-as-root --oversubscribe -n 2 '" SPECTRA_BUILD_DIR "/bin/spectra' train train.json --threads 1 -o two-" + std::string(scope)
            + " --set training.batch_sequences=2 --set router.train_sinkhorn_scope=" + scope;
        for (const std::string &s : settings)
            command += " " + s;
        const int code = std::system(("cd '" + at(".").string() + "' && " + command + " > two.out 2> two.err").c_str());
        ASSERT_EQ(code, 0) << readText(at("two.err"));
        const auto a = losses(std::string("one-") + scope), b = losses(std::string("two-") + scope);
        ASSERT_EQ(a.size(), 6u);
        ASSERT_EQ(b.size(), 6u);
        for (std::size_t i = 0; i < a.size(); ++i)
            EXPECT_NEAR(a[i], b[i], 1e-5) << scope << " step " << i;
    }
}

} // namespace
} // namespace spectra::test
