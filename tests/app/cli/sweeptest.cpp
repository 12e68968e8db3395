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

} // namespace
} // namespace spectra::test
