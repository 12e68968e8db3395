// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <cmath>
#include <filesystem>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

std::vector<json> linesOf(const fs::path &file)
{
    std::vector<json> lines;
    const std::string text = readText(file);
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = text.find('\n', at);
        lines.push_back(json::parse(text.substr(at, end - at)));
        at = end == std::string::npos ? text.size() : end + 1;
    }
    return lines;
}

constexpr const char *kChoices = R"({"id": "a", "question": "One?", "choices": ["the sea", "x = 1", "no"], "answer": 0}
{"id": "b", "question": "Two and three?", "choices": ["five", "six"], "answer": "five"}
{"id": "c", "context": "It is", "choices": ["cold here", "hot", "z"], "answer": 2}
{"id": "d", "context": "Line\nof text ", "choices": ["a", "b"], "answer": "A"}
)";

class Eval : public testing::Test {
protected:
    TemporaryFolder folder{"eval"};
    Bench bench;
    fs::path moe = tinyModel("mixtral-gqa", folder / "moe");

    EvalRequest request(const std::string &task, const std::string &data, const std::string &name = "data.jsonl")
    {
        EvalRequest r;
        r.spec.model = moe.string();
        r.task = task;
        r.data = folder.write(name, data);
        return r;
    }
    std::vector<json> items(EvalRequest r, const std::string &name = "items.jsonl")
    {
        r.output = folder / name;
        r.overwrite = true;
        bench.good(r);
        return linesOf(folder / name);
    }
};

TEST_F(Eval, TheResultIsOneDocument)
{
    EvalRequest r = request("choice", kChoices);
    r.output = folder / "items.jsonl";
    const Summary summary = bench.good(r);
    const json result = json::parse(summary.document);
    EXPECT_EQ(result["task"], "choice");
    EXPECT_EQ(result["n"], 4);
    for (const char *metric : {"acc", "acc_norm", "acc_bytes"}) {
        const json &m = result["metrics"][metric];
        EXPECT_LE(m["low"].get<double>(), m["value"].get<double>()) << metric;
        EXPECT_GE(m["high"].get<double>(), m["value"].get<double>()) << metric;
        EXPECT_EQ(m["interval"], "wilson");
    }
    EXPECT_EQ(result["data"]["sha256"], *sha256File(r.data));
    EXPECT_EQ(result["shots"]["n"], 0);
    const auto lines = linesOf(r.output);
    ASSERT_EQ(lines.size(), 4u);
    EXPECT_EQ(lines[1]["id"], "b");
    EXPECT_EQ(lines[0]["loglikelihoods"].size(), 3u);
    for (const json &line : lines) {
        ASSERT_EQ(line["routing"].size(), 2u) << "one row of counts per MoE layer";
        int counted = 0;
        for (const json &count : line["routing"][0])
            counted += count.get<int>();
        EXPECT_GT(counted, 0);
    }
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::work) << "an existing file stays";
    r.limit = 2;
    r.overwrite = true;
    EXPECT_EQ(json::parse(bench.good(r).document)["n"], 2);
    EXPECT_EQ(linesOf(r.output).size(), 2u);
}

TEST_F(Eval, SharedExamplesGiveWhatTheWholePromptGives)
{
    EvalRequest shots = request("choice", kChoices);
    shots.shots = 2;
    shots.shotsInOrder = true;
    const auto with = items(shots);
    // The same prompts written out, which share nothing.
    const std::string a = "Question: One?\nAnswer: the sea\n\n", b = "Question: Two and three?\nAnswer: five\n\n", c = "It is z\n\n";
    const json whole[] = {{{"context", b + c + "Question: One?\nAnswer:"}, {"choices", {"the sea", "x = 1", "no"}}, {"answer", 0}},
                          {{"context", a + c + "Question: Two and three?\nAnswer:"}, {"choices", {"five", "six"}}, {"answer", 0}},
                          {{"context", a + b + "It is"}, {"choices", {"cold here", "hot", "z"}}, {"answer", 2}},
                          {{"context", a + b + "Line\nof text "}, {"choices", {"a", "b"}}, {"answer", 0}}};
    std::string data;
    for (const json &item : whole)
        data += item.dump() + "\n";
    const auto without = items(request("choice", data, "whole.jsonl"));
    ASSERT_EQ(with.size(), without.size());
    for (std::size_t i = 0; i < with.size(); ++i)
        for (std::size_t k = 0; k < with[i]["loglikelihoods"].size(); ++k)
            EXPECT_NEAR(with[i]["loglikelihoods"][k].get<double>(), without[i]["loglikelihoods"][k].get<double>(), 1e-3) << i << " " << k;
}

TEST_F(Eval, RunsAreCompared)
{
    EvalRequest r = request("choice", kChoices);
    items(r, "first.jsonl");
    r.against = folder / "first.jsonl";
    json same = json::parse(bench.good(r).document)["against"];
    EXPECT_EQ(same["compared"], 4);
    EXPECT_TRUE(same["flips"].empty());
    EXPECT_NEAR(same["routing_distance_of_others"].get<double>(), 0, 1e-12);
    // Turned answers: everything flips, with the routing of both runs.
    auto lines = linesOf(folder / "first.jsonl");
    std::string turned;
    for (json &line : lines) {
        line["right"] = 1 - line["right"].get<int>();
        for (json &layer : line["routing"])
            std::rotate(layer.begin(), layer.begin() + 1, layer.end());
        turned += line.dump() + "\n";
    }
    r.against = folder.write("turned.jsonl", turned);
    json other = json::parse(bench.good(r).document)["against"];
    EXPECT_EQ(other["flips"].size(), 4u);
    EXPECT_GT(other["flips"][0]["routing"]["mean_distance"].get<double>(), 0);
    EXPECT_EQ(other["flips"][0]["routing"]["distances"].size(), 2u);
    r.against = folder.write("foreign.jsonl", "{\"task\": \"piqa\", \"id\": \"a\", \"right\": 1}\n");
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::input);
}

TEST_F(Eval, PerplexityOfAText)
{
    EvalRequest r = request("ppl", someText(300, 4), "text.txt");
    r.sequenceLength = 64;
    const json result = json::parse(bench.good(r).document);
    EXPECT_EQ(result["resampled"], "windows");
    const json &m = result["metrics"];
    const double bytes = static_cast<double>(fs::file_size(r.data));
    EXPECT_NEAR(m["bits_per_byte"]["value"].get<double>() * std::log(2.0) * bytes, std::log(m["byte_perplexity"]["value"].get<double>()) * bytes, 1e-6 * bytes);
    // The same −log p lies behind all of them, and the file of items has it.
    EvalRequest kept = r;
    const auto lines = items(kept);
    ASSERT_EQ(lines.size(), 1u);
    const double nll = -lines[0]["loglikelihood"].get<double>();
    EXPECT_GT(nll, 0);
    EXPECT_EQ(lines[0]["bytes"].get<double>(), bytes);
    EXPECT_NEAR(std::log(m["token_perplexity"]["value"].get<double>()), nll / lines[0]["tokens"].get<double>(), 1e-6);
    EXPECT_NEAR(std::log(m["word_perplexity"]["value"].get<double>()), nll / lines[0]["words"].get<double>(), 1e-6);
    EXPECT_NEAR(std::log(m["byte_perplexity"]["value"].get<double>()), nll / bytes, 1e-6);
    EXPECT_LT(m["token_perplexity"]["low"].get<double>(), m["token_perplexity"]["high"].get<double>());
    r.shots = 1;
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::usage);
}

TEST_F(Eval, GenerationIsSeeded)
{
    const std::string data = R"({"question": "How many?", "answer": "One and one.\n#### 2"}
{"question": "And now?", "answer": "Two and one.\n#### 3"})";
    EvalRequest r = request("gsm8k", data);
    r.shots = 1;
    r.maxNewTokens = 12;
    const auto a = items(r), b = items(r);
    ASSERT_EQ(a.size(), 2u);
    EXPECT_EQ(a, b);
    r.temperature = 2;
    const auto warm = items(r), again = items(r);
    EXPECT_EQ(warm, again);
    r.spec.seed = 9;
    EXPECT_NE(items(r), warm);
}

TEST_F(Eval, WhatIsWrongIsSaid)
{
    EXPECT_EQ(bench.bad(request("no_such_task", kChoices)).kind, ErrorKind::usage);
    EvalRequest r = request("choice", kChoices);
    r.data = folder / "nowhere.jsonl";
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::input);
    EXPECT_EQ(bench.bad(request("choice", "")).kind, ErrorKind::input);
    EXPECT_EQ(bench.bad(request("piqa", kChoices)).kind, ErrorKind::input);
    r = request("choice", kChoices);
    r.samples = 4;
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::usage);
    r = request("choice", kChoices);
    r.shots = 9;
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::input);
    r = request("choice", kChoices);
    r.sequenceLength = 2;
    EXPECT_EQ(bench.bad(r).kind, ErrorKind::input) << "a choice that does not fit";
    r = request("choice", kChoices);
    r.spec.upcycle = UpcycleSettings{};
    r.spec.upcycle->router = "expert_choice";
    r.spec.upcycle->experts = 4;
    const Error refused = bench.bad(r);
    EXPECT_EQ(refused.kind, ErrorKind::usage);
    EXPECT_THAT(refused.mend, HasSubstr("--allow-noncausal"));
    r.allowNonCausal = true;
    EXPECT_FALSE(json::parse(bench.good(r).document)["causal"].get<bool>());
}

TEST_F(Eval, AStopKeepsTheItemsThatAreFinished)
{
    std::string data;
    for (int i = 0; i < 2000; ++i)
        data += "{\"id\": \"" + std::to_string(i) + "\", \"question\": \"What is it?\", \"choices\": [\"one\", \"two\"], \"answer\": 0}\n";
    EvalRequest r = request("choice", data);
    r.output = folder / "items.jsonl";
    auto job = bench.engine.submit(r);
    ASSERT_TRUE(job.ok());
    bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.progress.unit == "items" && e.progress.done == 3)
            bench.engine.cancel(*job);
    });
    const auto result = bench.sink->wait(*job);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().kind, ErrorKind::cancelled);
    EXPECT_FALSE(fs::exists(r.output));
    ASSERT_TRUE(fs::exists(folder / "items.jsonl.part"));
    EXPECT_GE(linesOf(folder / "items.jsonl.part").size(), 3u);
}

/// What lm-evaluation-harness says of the sample model on the same items (tests/fixtures/tasks/make_tasks.py).
class HarnessParity : public testing::TestWithParam<const char *> {};

TEST_P(HarnessParity, LogLikelihoodsAndScoresAreTheSame)
{
    static Bench bench;
    const fs::path place = fs::path(SPECTRA_TEST_DIR) / "fixtures" / "tasks";
    const json expected = json::parse(readText(place / "expected.json"))["tasks"][GetParam()];
    const fs::path model = cacheFolder() / "models" / "smollm2-135m.gguf";
    ASSERT_TRUE(fs::exists(model)) << "packaging/setup --model fetches the sample model";
    const TemporaryFolder folder("harness");
    const std::string name = GetParam();
    const bool second = name == "truthfulqa_mc2", truth = name.starts_with("truthfulqa");
    EvalRequest r;
    r.spec.model = model.string();
    r.task = truth ? "truthfulqa" : name;
    r.data = place / expected["data"].get<std::string>();
    r.shots = expected["shots"];
    r.shotsInOrder = true;
    if (expected["shots_data"].is_string())
        r.shotsData = place / expected["shots_data"].get<std::string>();
    r.sequenceLength = 2048;
    r.output = folder / "items.jsonl";
    const Summary summary = bench.good(r);
    const auto lines = linesOf(r.output);
    ASSERT_EQ(lines.size(), expected["items"].size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const json &theirs = expected["items"][i], &ours = lines[i];
        if (theirs.contains("text")) {
            EXPECT_EQ(ours["texts"][0], theirs["text"]) << i;
            continue;
        }
        if (theirs.contains("loglikelihood")) {
            EXPECT_NEAR(ours["loglikelihood"].get<double>(), theirs["loglikelihood"].get<double>(), 1e-2) << i;
            continue;
        }
        const std::size_t first = second ? ours["loglikelihoods"].size() - theirs["loglikelihoods"].size() : 0;
        for (std::size_t k = 0; k < theirs["loglikelihoods"].size(); ++k) {
            EXPECT_NEAR(ours["loglikelihoods"][first + k].get<double>(), theirs["loglikelihoods"][k].get<double>(), 1e-2) << i << " " << k;
            EXPECT_EQ(ours["greedy"][first + k], theirs["greedy"][k]) << i << " " << k;
        }
    }
    const json metrics = json::parse(summary.document)["metrics"];
    int compared = 0;
    for (const auto &[key, value] : metrics.items()) {
        const std::map<std::string, std::string> names = {{"exact_match", "exact_match,strict-match"}, {"exact_match_flexible", "exact_match,flexible-extract"},
                                                          {second ? "mc2" : "mc1", "acc"}};
        const std::string theirs = names.contains(key) ? names.at(key) : key;
        if (!expected["scores"].contains(theirs))
            continue;
        const double score = expected["scores"][theirs];
        EXPECT_NEAR(value["value"].get<double>(), score, 1e-3 * std::max(1.0, score)) << key;
        ++compared;
    }
    EXPECT_GE(compared, 1);
}

TEST(HarnessWindows, PagesThatTheContextDoesNotHoldScoreTheSame)
{
    Bench bench;
    const fs::path place = fs::path(SPECTRA_TEST_DIR) / "fixtures" / "tasks";
    const json expected = json::parse(readText(place / "expected.json"))["tasks"]["wikitext2"]["short_context"];
    const fs::path model = cacheFolder() / "models" / "smollm2-135m.gguf";
    ASSERT_TRUE(fs::exists(model)) << "packaging/setup --model fetches the sample model";
    const TemporaryFolder folder("windows");
    EvalRequest r;
    r.spec.model = model.string();
    r.task = "wikitext2";
    r.data = place / "wikitext.jsonl";
    r.sequenceLength = expected["tokens"];
    r.output = folder / "items.jsonl";
    bench.good(r);
    const auto lines = linesOf(r.output);
    ASSERT_EQ(lines.size(), expected["loglikelihoods"].size());
    for (std::size_t i = 0; i < lines.size(); ++i)
        EXPECT_NEAR(lines[i]["loglikelihood"].get<double>(), expected["loglikelihoods"][i].get<double>(), 1e-2) << i;
}

INSTANTIATE_TEST_SUITE_P(SampleModel, HarnessParity,
                         testing::Values("mmlu", "hellaswag", "arc_easy", "arc_challenge", "piqa", "boolq", "pubmedqa", "truthfulqa_mc1", "truthfulqa_mc2",
                                         "lambada", "wikitext2", "gsm8k"),
                         [](const auto &i) { return std::string(i.param); });

} // namespace
} // namespace spectra::test
