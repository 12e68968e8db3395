// SPDX-License-Identifier: GPL-3.0-or-later
// The log of a run: what a continuation takes of it, what it refuses, and the curves made from it.
#include "engine/run/runlog.h"
#include "engine/trace/h5.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <fstream>

namespace spectra::test {
namespace {
namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

StepReport report(std::int64_t step)
{
    StepReport r;
    r.step = step;
    r.loss = 5 - 0.25 * static_cast<double>(step);
    r.routerLosses = {{"balance", 0.5 / static_cast<double>(step)}};
    r.gradients.router = 1;
    r.gradients.experts = 2;
    r.gradients.other = 2;
    r.gradients.all = 3;
    r.rate = 0.5;
    r.tokens = 64;
    r.seconds = 0.125;
    r.forward = 0.0625;
    r.timing.router = 0.03125;
    r.loads = {{0.5, 0.5}, {0.75, 0.25}};
    r.dropped = r.fellBack = r.violation = {0, 0.25};
    return r;
}

Evaluation evaluation(std::int64_t step, double loss = 4.5)
{
    Evaluation e;
    e.step = step;
    e.loss = loss;
    e.domainLoss = {loss - 1, loss + 1};
    e.tokens = 128;
    return e;
}

const std::vector<std::string> kDomains = {"prose", "code"};

class Log : public testing::Test {
protected:
    TemporaryFolder folder{"runlog"};
    fs::path file = folder / "log.jsonl";

    RunLog open(std::int64_t keep) const
    {
        auto log = RunLog::open(folder.path(), keep);
        if (!log)
            throw std::runtime_error(log.error().what + ": " + log.error().where);
        return std::move(*log);
    }
    void write(std::int64_t steps) const
    {
        RunLog log = open(0);
        for (std::int64_t step = 1; step <= steps; ++step) {
            EXPECT_TRUE(log.add(report(step)).ok());
            if (step % 2 == 0) {
                EXPECT_TRUE(log.add(evaluation(step), kDomains).ok());
            }
        }
    }
    [[nodiscard]] std::vector<double> column(const std::string &name, std::int64_t rows) const
    {
        const auto h5 = h5::File::open(folder / "metrics.h5", h5::File::Mode::read);
        EXPECT_TRUE(h5);
        const auto data = h5::openDataset(h5->id(), name);
        EXPECT_TRUE(data) << name;
        std::vector<double> values(static_cast<std::size_t>(rows), -1);
        EXPECT_TRUE(h5::readSlab(data->id(), {0}, {rows}, h5::Type::f64, values.data()).ok()) << name;
        return values;
    }
};

TEST_F(Log, AContinuationTakesWhatItsCheckpointHasSeen)
{
    write(5);
    {
        const RunLog log = open(3);
        EXPECT_EQ(log.steps().size(), 3u);
        EXPECT_EQ(log.evaluations().size(), 1u);
        EXPECT_TRUE(log.hasEvaluation(2));
        EXPECT_FALSE(log.hasEvaluation(4));
    }
    const std::string kept = readText(file);
    EXPECT_EQ(std::count(kept.begin(), kept.end(), '\n'), 4);
    RunLog log = open(3);
    ASSERT_TRUE(log.add(report(4)).ok());
    EXPECT_EQ(open(9).steps().back()["step"], 4);
}

TEST_F(Log, ALineThatAKillToreIsDropped)
{
    write(2);
    const std::string whole = readText(file);
    for (const std::size_t cut : {std::size_t(1), std::size_t(2), std::size_t(40)}) {
        std::ofstream(file, std::ios::binary | std::ios::trunc) << whole.substr(0, whole.size() - cut);
        const RunLog log = open(9);
        EXPECT_EQ(log.steps().size(), 2u);
        EXPECT_EQ(log.evaluations().size(), 0u) << "the last line was an evaluation";
    }
}

TEST_F(Log, TheEndOfAFinishedRunIsMadeAnew)
{
    write(2);
    {
        RunLog log = open(2);
        Evaluation last = evaluation(2);
        last.stage = "calibrated";
        ASSERT_TRUE(log.add(last, kDomains).ok());
        EXPECT_EQ(log.evaluations().size(), 2u);
    }
    EXPECT_EQ(open(2).evaluations().size(), 1u);
}

TEST_F(Log, ALossThatIsNoNumberStaysOne)
{
    {
        RunLog log = open(0);
        ASSERT_TRUE(log.add(report(1)).ok());
        ASSERT_TRUE(log.add(evaluation(1, std::nan("")), kDomains).ok());
    }
    const RunLog log = open(1);
    ASSERT_EQ(log.evaluations().size(), 1u);
    EXPECT_TRUE(std::isnan(log.evaluations()[0]["held_out_loss"].get<double>()));
    EXPECT_TRUE(log.writeMetrics().ok());
}

TEST_F(Log, LinesOfAnotherProgramAreRefusedByNumber)
{
    write(1);
    const std::string good = readText(file);
    for (const auto &[line, what] : std::vector<std::pair<std::string, std::string>>{
             {"[1]", "object"},
             {"not JSON", "object"},
             {R"({"step":1})", "loss"},
             {R"({"step":1,"loss":"low","seconds":1,"tokens":1,"time":{}})", "loss"},
             {R"({"step":1,"loss":1,"seconds":1,"tokens":1,"time":{"forward":"long"}})", "time"},
             {R"({"evaluation":1})", "held_out_loss"},
             {R"({"evaluation":1,"held_out_loss":[],"domains":{}})", "held_out_loss"},
             {R"({"evaluation":1,"held_out_loss":1,"domains":[]})", "domains"},
             {R"({"evaluation":1,"held_out_loss":1,"domains":{"a":1}})", "domains"},
             {R"({"evaluation":1,"held_out_loss":1,"domains":{},"metrics":{"load_cv":{"unit":1}}})", "metrics"},
             {R"({"evaluation":1,"held_out_loss":1,"domains":{},"metrics":{},"decoder_index":["0"]})", "decoder_index"}}) {
        std::ofstream(file, std::ios::binary | std::ios::trunc) << good << line << "\n";
        const auto log = RunLog::open(folder.path(), 9);
        ASSERT_FALSE(log) << line;
        EXPECT_EQ(log.error().kind, ErrorKind::input) << line;
        EXPECT_THAT(log.error().what, HasSubstr(what)) << line;
        EXPECT_THAT(log.error().where, HasSubstr("log.jsonl:2")) << line;
        EXPECT_EQ(readText(file), good + line + "\n") << "nothing is lost";
    }
    std::ofstream(file, std::ios::binary | std::ios::trunc) << good << R"({"step":2,"stage":7,"loss":1})" << "\n" << R"({"note":"of a person"})" << "\n";
    EXPECT_EQ(open(9).steps().size(), 1u) << "what is of no known kind is passed over";
}

TEST_F(Log, CurvesHoldWhatTheLogSays)
{
    write(4);
    ASSERT_TRUE(open(4).writeMetrics().ok());
    EXPECT_THAT(column("/training/loss", 4), ElementsAre(4.75, 4.5, 4.25, 4));
    EXPECT_THAT(column("/training/router_losses/balance", 4), ElementsAre(0.5, 0.25, 0.5 / 3, 0.125));
    EXPECT_THAT(column("/training/gradients/all", 4), ElementsAre(3, 3, 3, 3));
    EXPECT_THAT(column("/training/time/router", 4), ElementsAre(0.03125, 0.03125, 0.03125, 0.03125));
    EXPECT_THAT(column("/evaluation/held_out_loss", 2), ElementsAre(4.5, 4.5));
    const auto h5 = h5::File::open(folder / "metrics.h5", h5::File::Mode::read);
    ASSERT_TRUE(h5);
    std::vector<double> values(4);
    const auto losses = h5::openDataset(h5->id(), "/evaluation/domain_loss");
    ASSERT_TRUE(losses && h5::readSlab(losses->id(), {0, 0}, {2, 2}, h5::Type::f64, values.data()).ok());
    EXPECT_THAT(values, ElementsAre(3.5, 5.5, 3.5, 5.5));
    // Loads of 1/2 and 1/2, then of 3/4 and 1/4: CV 0 and 1/2.
    const auto cv = h5::openDataset(h5->id(), "/training/layers/load_cv");
    std::vector<double> spread(8);
    ASSERT_TRUE(cv && h5::readSlab(cv->id(), {0, 0}, {4, 2}, h5::Type::f64, spread.data()).ok());
    EXPECT_THAT(spread, ElementsAre(0, 0.5, 0, 0.5, 0, 0.5, 0, 0.5));
}

} // namespace
} // namespace spectra::test
