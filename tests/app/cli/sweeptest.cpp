// SPDX-License-Identifier: GPL-3.0-or-later
// `spectra sweep` and `spectra report` of a study, as a person runs them.
#include "tests/app/cli/program.h"

#include <gmock/gmock.h>

#include <fstream>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// Its runs fail at once: their texts are not there.
constexpr const char *kSpec = R"({"name": "tiny", "base": {"model": {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 2, "intermediate": 16, "context": 32, "experts": 4, "top_k": 2},
    "router": {"type": "spectra", "router_dim": 4}, "tokenizer": {"vocabulary": 300}, "data": {"domains": {"a": "nowhere.txt"}},
    "training": {"steps": 2, "sequence_length": 16, "batch_sequences": 2}, "schedule": {"warmup": 1}, "evaluation": {"every": 1, "tokens": 32, "trace_tokens": 0}, "checkpoint": {"every": 1}},
    "axes": [{"name": "router", "title": "Router", "values": [{"label": "SPECTRA", "set": {"router.type": "spectra"}}, {"label": "Switch top-2", "set": {"router.type": "switch_top2"}}]}],
    "seeds": [0], "baseline": "Switch top-2", "tables": [{"title": "Main", "columns": [{"path": "held_out_loss", "title": "loss", "better": "lower"}]}],
    "figures": [{"kind": "curves", "title": "Loss", "y": "loss"}]})";

TEST_F(Program, ASweepSaysWhatIsWrongWithItsFile)
{
    expect(2, {"sweep"});
    expect(3, {"sweep", "nowhere.json", "-o", "x.study"});
    std::ofstream(at("bad.json")) << R"({"name": "s", "base": {}, "axis": []})";
    EXPECT_THAT(expect(2, {"sweep", "bad.json", "-o", "x.study"}).err, HasSubstr("did you mean \"axes\""));
    std::ofstream(at("spec.json")) << kSpec;
    expect(2, {"sweep", "spec.json"});
    nlohmann::json unknown = nlohmann::json::parse(kSpec);
    unknown["tasks"] = {{{"task", "helaswag"}, {"data", "x.jsonl"}}};
    std::ofstream(at("task.json")) << unknown;
    EXPECT_THAT(expect(2, {"sweep", "task.json", "-o", "x.study"}).err, HasSubstr("did you mean \"hellaswag\""));
    expect(2, {"sweep", "spec.json", "-o", "x.study", "--set", "training.seed=3"});
    EXPECT_THAT(expect(2, {"sweep", "table1", "-o", "x.study"}).err, HasSubstr("--data"));
    EXPECT_THAT(named("x."), IsEmpty());
}

TEST_F(Program, RunsThatFailLeaveAReportThatSaysSo)
{
    std::ofstream(at("spec.json")) << kSpec;
    const Ran ran = expect(1, {"sweep", "spec.json", "-o", "failing.study"});
    EXPECT_THAT(ran.err, HasSubstr("2 of 2 runs failed"));
    EXPECT_THAT(ran.err, HasSubstr("nowhere.txt"));
    EXPECT_THAT(readText(at("failing.study/table.csv")), HasSubstr("nowhere.txt"));
    expect(1, {"sweep", "spec.json", "-o", "failing.study"}); // it is there
    EXPECT_EQ(run({"report", "failing.study", "-o", "failing.report"}).code, 0);
    const std::string page = readText(at("failing.report/index.html"));
    EXPECT_THAT(page, HasSubstr("0 of 2 done"));
    EXPECT_THAT(page, HasSubstr("no run has these numbers"));
    expect(3, {"report", "nowhere.study", "-o", "x.report"});
    fs::create_directories(at("plain"));
    expect(3, {"report", "plain", "-o", "x.report"});
    EXPECT_THAT(named("x."), IsEmpty());
}

TEST_F(Program, FinishedRunsAreScoredOnTasks)
{
    std::string text;
    for (int i = 0; i < 900; ++i)
        text += "the river number " + std::to_string(i * 7919 % 1000) + (i % 5 == 0 ? " bends twice before noon.\n" : " holds a list of stones, ");
    std::ofstream(at("stones.txt")) << text;
    std::ofstream(at("questions.jsonl")) << R"({"question": "The river", "choices": ["bends", "stones"], "answer": 0})" << '\n'
                                         << R"({"question": "A list of", "choices": ["noon", "stones"], "answer": 1})" << '\n';
    nlohmann::json spec = nlohmann::json::parse(kSpec);
    spec["base"]["data"]["domains"]["a"] = "stones.txt";
    spec["base"]["calibration"]["batches"] = 0;
    spec["axes"][0]["values"][1] = {{"label", "Expert Choice"}, {"set", {{"router.type", "expert_choice"}}}};
    spec["baseline"] = "Expert Choice";
    spec["tasks"] = {{{"task", "choice"}, {"data", "questions.jsonl"}, {"shots", 0}}, {{"task", "mmlu"}, {"data", "nowhere.jsonl"}}};
    spec["tables"][0]["columns"] = {"tasks.choice.metrics.acc.value", "tasks.mmlu.metrics.acc.value"};
    std::ofstream(at("scored.json")) << spec;
    const nlohmann::json report = json({"sweep", "scored.json", "-o", "scored.study"});
    EXPECT_EQ(report["done"], 2) << report;
    for (const nlohmann::json &cell : report["cells"]) {
        EXPECT_EQ(cell["tasks"]["choice"]["state"], "done") << cell;
        EXPECT_EQ(cell["tasks"]["mmlu"]["state"], "missing");
    }
    const auto document = nlohmann::json::parse(readText(at("scored.study/cells/expert-choice_s0/tasks/choice.json")));
    EXPECT_EQ(document["n"], 2);
    EXPECT_EQ(document["causal"], false);
    const std::string table = readText(at("scored.study/table.json"));
    const auto trained = nlohmann::json::parse(readText(at("scored.study/cells/expert-choice_s0/result.json")));
    EXPECT_TRUE(trained["held_out_loss"].is_number()) << "measured though the routing looks ahead, and marked";
    EXPECT_EQ(trained["causal"], false);
    EXPECT_THAT(table, HasSubstr("the data of task mmlu is not here"));
    EXPECT_THAT(table, HasSubstr("Not causal"));
    EXPECT_THAT(run({"sweep", "scored.json", "-o", "scored.study", "--resume"}).err, HasSubstr("task choice done before"));
}

} // namespace
} // namespace spectra::test
