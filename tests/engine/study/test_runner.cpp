// SPDX-License-Identifier: GPL-3.0-or-later
// The runner against a child that trains nothing: a shell script that does what its configuration's router says.
#include "engine/study/process.h"
#include "engine/study/runner.h"
#include "engine/study/table.h"
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

#include <csignal>
#include <set>
#include <sstream>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>

namespace spectra::test {
namespace {

using study::Cell;
using study::CellState;
using study::SweepOptions;
using study::SweepReport;
using study::TaskState;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr const char *kChild = R"sh(#!/bin/sh
if [ "$1" = eval ]; then
    cell=$(basename "$(dirname "$2")"); here=$(dirname "$2")/../..; shift
    echo "eval $cell $*" >> "$here/calls.txt"
    for word; do [ "$before" = -o ] && items=$word; before=$word; done
    if [ "$3" = lambada ] && [ ! -e "$here/mended" ]; then echo '{"half": ' ; echo 'error: no last word: line 3' >&2; exit 3; fi
    if [ "$3" = boolq ]; then echo '{"n": 1}'; exit 0; fi
    if [ "$3" = piqa ]; then
        trap 'exit 130' INT TERM
        echo > "$here/scoring"
        while [ ! -e "$here/go" ]; do sleep 0.02; done
    fi
    echo item > "$items"
    echo '{"task": "'$3'", "n": 4, "metrics": {"acc": {"value": 0.75, "low": 0.2, "high": 0.9}}}'; exit 0
fi
config=$2; out=$4
here=$(dirname "$config")/..
type() { grep -q "\"type\": \"$1\"" "$config"; }
if [ "$3" = --dry-run ]; then
    if type bad; then echo 'error: unknown key "stepz": training' >&2; exit 2; fi
    echo '{"memory": {"total": 1000}, "disk": {"needed": 500}, "seconds": 60, "missing": [{"file": "x"}]}'; exit 0
fi
echo "$(basename "$out") $*" >> "$here/calls.txt"
mkdir -p "$out"
if type torn && [ ! -e "$here/mended" ]; then echo half > "$out/tokenizer.json"; kill -9 $$; fi
cp "$config" "$out/config.json"; echo '{}' > "$out/manifest.json"
echo "+" >> "$here/alive.txt"
if type fails && [ ! -e "$here/mended" ]; then
    echo 'step 6: fine' >&2; echo 'error: loss is not finite: step 7' >&2; echo 'hint: a lower rate' >&2; exit 1
fi
if type dies; then kill -9 $$; fi
if type empty; then exit 0; fi
if type slow; then
    trap 'echo saved > "$out/kept"; exit 130' INT TERM
    echo > "$out/ready"
    while [ ! -e "$here/go" ]; do sleep 0.02; done
fi
if type nap; then sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status >> "$here/cores.txt"; sleep 0.15; fi
echo "-" >> "$here/alive.txt"
echo '{"step": 9, "loss": 3.5}' > "$out/log.jsonl"
causal=true; if type early; then causal=false; fi
echo '{"held_out_loss": 3.5, "causal": '$causal'}' > "$out/result.json"
)sh";

class Runner : public StudyTest {
protected:
    void SetUp() override
    {
        StudyTest::SetUp();
        write(at("train.sh"), kChild);
        fs::permissions(at("train.sh"), fs::perms::owner_all);
        m_options.program = at("train.sh");
        m_options.pollSeconds = 0.005;
        m_options.graceSeconds = 20;
    }

    void plan(const std::vector<std::string> &routers, const std::vector<int> &seeds = {0, 1})
    {
        Json spec = parsed(R"({"name": "s", "base": {"training": {"steps": 10}}, "axes": [{"name": "router", "values": []}]})");
        spec["seeds"] = seeds;
        for (const std::string &r : routers)
            spec["axes"][0]["values"].push_back({{"label", r}, {"set", {{"router.type", r}}}});
        m_spec = *study::parseSpec(spec, "spec", {});
        m_cells = *study::makeCells(m_spec);
    }

    /// Tasks of the study, their data in m_folder/data.
    void tasks(const char *list, const std::vector<std::string> &files)
    {
        Json spec = m_spec.source;
        spec["tasks"] = parsed(list);
        for (const std::string &file : files)
            write(at("data/" + file), "items");
        study::SpecOptions options;
        options.data = at("data").string();
        auto read = study::parseSpec(spec, "spec", options);
        ASSERT_TRUE(read) << read.error().what << ": " << read.error().where;
        m_spec = std::move(*read);
        m_cells = *study::makeCells(m_spec);
    }

    Result<SweepReport> sweep(std::stop_token stop = {}, const study::SweepEvent &event = {})
    {
        return study::runSweep(m_spec, m_cells, at("study"), m_options, event, {}, std::move(stop));
    }

    [[nodiscard]] std::vector<std::string> calls() const
    {
        std::vector<std::string> lines;
        std::istringstream text(read(at("study/calls.txt")));
        for (std::string line; std::getline(text, line);)
            lines.push_back(line);
        return lines;
    }

    bool waitFor(const std::function<bool()> &condition) const
    {
        for (int i = 0; i < 2000; ++i) {
            if (condition())
                return true;
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        return false;
    }

    study::StudySpec m_spec;
    std::vector<Cell> m_cells;
    SweepOptions m_options;
};

TEST_F(Runner, aRunThatFailsIsRecordedAndTheRestGoesOn)
{
    plan({"good", "fails", "dies", "empty", "other"});
    const auto report = sweep();
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_EQ(report->count(CellState::done), 4u);
    EXPECT_EQ(report->count(CellState::failed), 6u);
    const auto study = study::openStudy(at("study"));
    ASSERT_TRUE(study);
    EXPECT_TRUE(study->results[0].done);
    EXPECT_EQ(study->results[2].reason, "failed (exit 1): loss is not finite: step 7 (a lower rate)");
    EXPECT_THAT(study->results[4].reason, HasSubstr("signal 9 (out of memory?)"));
    EXPECT_THAT(study->results[6].reason, HasSubstr("ended without a result"));
    EXPECT_EQ(report->cells[8].heldOutLoss, 3.5);
    EXPECT_THAT(calls().front(), HasSubstr("--threads 1"));
}

TEST_F(Runner, resumeDoesWhatIsMissing)
{
    plan({"good", "fails"});
    ASSERT_TRUE(sweep());
    EXPECT_EQ(calls().size(), 4u);
    EXPECT_FALSE(sweep().ok()) << "an existing study is refused";
    EXPECT_EQ(sweep().error().kind, ErrorKind::work);
    m_options.resume = true;
    write(at("study/mended"), "");
    const auto report = sweep();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->count(CellState::done), 4u);
    ASSERT_EQ(calls().size(), 6u);
    EXPECT_THAT(calls()[4], HasSubstr("fails_s0"));
    EXPECT_THAT(calls()[4], HasSubstr("--resume"));
    // More seeds in the same folder: only those are run.
    plan({"good", "fails"}, {0, 1, 2});
    ASSERT_TRUE(sweep());
    ASSERT_EQ(calls().size(), 8u);
    EXPECT_THAT(calls()[6], HasSubstr("good_s2"));
}

TEST_F(Runner, runsOfAnotherConfigurationAreNotMixedIn)
{
    plan({"good", "other"}, {0});
    ASSERT_TRUE(sweep());
    Json changed = m_spec.source;
    changed["axes"][0]["values"][1]["set"]["training.clip"] = 2;
    m_spec = *study::parseSpec(changed, "spec", {});
    m_cells = *study::makeCells(m_spec);
    m_options.resume = true;
    const auto refused = sweep();
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::usage);
    EXPECT_THAT(refused.error().what, HasSubstr("other_s0"));
    EXPECT_EQ(calls().size(), 2u);
    const auto left = study::openStudy(at("study"));
    ASSERT_TRUE(left);
    for (const study::CellResult &result : left->results)
        EXPECT_TRUE(result.done) << "a study that is refused is left as it was: " << result.reason;
    m_options.overwrite = true;
    ASSERT_TRUE(sweep());
    ASSERT_EQ(calls().size(), 3u);
    EXPECT_THAT(calls()[2], HasSubstr("other_s0"));
    EXPECT_THAT(calls()[2], Not(HasSubstr("--resume")));
}

TEST_F(Runner, aRunKilledBeforeItsFolderWasWholeIsBegunAnew)
{
    plan({"torn"}, {0});
    ASSERT_TRUE(sweep());
    EXPECT_TRUE(fs::exists(at("study/cells/torn_s0/tokenizer.json")));
    m_options.resume = true;
    write(at("study/mended"), "");
    const auto report = sweep();
    EXPECT_EQ(report->count(CellState::done), 1u);
    EXPECT_THAT(calls().back(), Not(HasSubstr("--resume")));
    EXPECT_FALSE(fs::exists(at("study/cells/torn_s0/tokenizer.json")));
}

TEST_F(Runner, foreignFoldersAreLeftAlone)
{
    plan({"good"}, {0});
    write(at("study/thesis.txt"), "mine");
    m_options.overwrite = true;
    EXPECT_FALSE(sweep().ok());
    m_options.resume = true;
    EXPECT_FALSE(sweep().ok());
    EXPECT_EQ(read(at("study/thesis.txt")), "mine");
    EXPECT_FALSE(fs::exists(at("study/study.json")));
}

TEST_F(Runner, overwriteBeginsAnewAndLeavesNothingOfTheOldStudy)
{
    plan({"good", "other"}, {0});
    ASSERT_TRUE(sweep());
    write(at("study/table.csv"), "of the old study");
    plan({"good"}, {0});
    m_options.overwrite = true;
    ASSERT_TRUE(sweep());
    EXPECT_EQ(calls().size(), 3u);
    EXPECT_FALSE(fs::exists(at("study/cells/other_s0")));
    EXPECT_FALSE(fs::exists(at("study/table.csv")));
    // Killed while the old one was being removed: known as a study still.
    fs::remove_all(at("study/configs"));
    EXPECT_TRUE(sweep());
}

TEST_F(Runner, asManyAtATimeAsJobs)
{
    plan({"nap"}, {0, 1, 2, 3, 4});
    m_options.jobs = 2;
    ASSERT_TRUE(sweep());
    int alive = 0, most = 0;
    for (const char c : read(at("study/alive.txt"))) {
        alive += c == '+' ? 1 : c == '-' ? -1 : 0;
        most = std::max(most, alive);
    }
    EXPECT_EQ(alive, 0);
    EXPECT_EQ(most, 2);
    std::set<std::string> places;
    std::istringstream text(read(at("study/cores.txt")));
    for (std::string line; std::getline(text, line);)
        places.insert(line);
    const std::vector<int> first = study::coreSet(0, 2, 1), second = study::coreSet(1, 2, 1);
    if (!first.empty() && !second.empty()) { // of one core nothing can be shared out
        EXPECT_EQ(places, (std::set<std::string>{std::to_string(first[0]), std::to_string(second[0])})) << "each on a core of its own";
    }
}

TEST_F(Runner, coresAreSharedOutWithoutOverlap)
{
    EXPECT_TRUE(study::coreSet(0, 1, 1).empty()) << "one run at a time may use all";
    EXPECT_TRUE(study::coreSet(0, 2, 1 << 20).empty()) << "more than there are";
    const int all = static_cast<int>(std::thread::hardware_concurrency());
    std::set<int> seen;
    for (int slot = 0; slot < all; ++slot)
        for (const int core : study::coreSet(slot, all, 1))
            EXPECT_TRUE(seen.insert(core).second);
}

TEST_F(Runner, aStopReachesTheChildrenAndKeepsWhatIsDone)
{
    plan({"good", "slow", "other"}, {0});
    m_options.jobs = 2;
    std::stop_source stop;
    std::jthread stopper([&] {
        EXPECT_TRUE(waitFor([&] { return fs::exists(at("study/cells/slow_s0/ready")) && fs::exists(at("study/cells/other_s0/result.json")); }));
        stop.request_stop();
    });
    const auto report = sweep(stop.get_token());
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->stopped);
    EXPECT_EQ(report->count(CellState::done), 2u);
    EXPECT_EQ(report->cells[1].state, CellState::stopped);
    EXPECT_TRUE(fs::exists(at("study/cells/slow_s0/kept"))) << "the child was asked, not killed";
    EXPECT_EQ(study::openStudy(at("study"))->results[1].reason, "stopped before its end");
    m_options.resume = true;
    write(at("study/go"), "");
    const auto again = sweep();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->count(CellState::done), 3u);
    EXPECT_THAT(calls().back(), HasSubstr("slow_s0"));
    EXPECT_THAT(calls().back(), HasSubstr("--resume"));
}

TEST_F(Runner, finishedRunsAreScored)
{
    plan({"good", "fails", "early"}, {0});
    tasks(R"([{"task": "choice", "data": "$DATA/q.jsonl", "shots": 2, "limit": 9}, {"task": "choice", "name": "again", "data": "$DATA/q.jsonl"},
              {"task": "mmlu", "data": "$DATA/nowhere.jsonl"}, {"task": "lambada", "data": "$DATA/q.jsonl"}, {"task": "boolq", "data": "$DATA/q.jsonl"}])",
          {"q.jsonl"});
    const auto report = sweep();
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_EQ(report->count(CellState::done), 2u) << "a task that fails or has no data leaves its run done";
    EXPECT_EQ(report->countTasks(TaskState::done), 4u);
    EXPECT_EQ(report->countTasks(TaskState::failed), 4u);
    EXPECT_EQ(report->countTasks(TaskState::missing), 2u);
    EXPECT_EQ(report->countTasks(TaskState::waiting), 5u) << "a run that failed is not scored";
    ASSERT_GE(calls().size(), 3u);
    EXPECT_THAT(calls()[1], AllOf(HasSubstr("eval good_s0"), HasSubstr("good_s0/final --task choice --data"), HasSubstr("q.jsonl --shots 2 --limit 9 --json -o"),
                                  HasSubstr("--threads 1"), Not(HasSubstr("--allow-noncausal"))));
    EXPECT_THAT(calls()[2], Not(HasSubstr("--shots")));
    EXPECT_THAT(calls().back(), AllOf(HasSubstr("eval early_s0"), HasSubstr("--allow-noncausal")));
    const auto study = study::openStudy(at("study"));
    ASSERT_TRUE(study) << study.error().what << ": " << study.error().where;
    EXPECT_EQ(study->results[0].number("tasks.choice.metrics.acc.value"), 0.75);
    EXPECT_EQ(study->results[0].number("tasks.again.metrics.acc.low"), 0.2);
    EXPECT_TRUE(fs::exists(at("study/cells/good_s0/tasks/choice.jsonl")));
    EXPECT_FALSE(study->results[0].number("tasks.mmlu.metrics.acc.value"));
    EXPECT_THAT(study->results[0].absence("tasks.mmlu.metrics.acc.value"), AllOf(HasSubstr("mmlu is not here"), HasSubstr("nowhere.jsonl")));
    EXPECT_EQ(study->results[0].absence("tasks.lambada.metrics.acc.value"), "task lambada failed (exit 3): no last word: line 3");
    EXPECT_THAT(study->results[0].absence("tasks.boolq.metrics.acc.value"), HasSubstr("ended without a result"));
    EXPECT_THAT(study->results[1].absence("tasks.choice.metrics.acc.value"), HasSubstr("failed (exit 1)"));
    study::TableSpec spec;
    spec.rows = {"router"};
    spec.columns = {study::Quantity{"tasks.lambada.metrics.acc.value", "acc", "", "higher", -1, 1}, study::Quantity{"tasks.choice.metrics.acc.value", "acc", "%", "higher", -1, 100}};
    const auto table = study::makeTable(*study, spec);
    ASSERT_TRUE(table);
    EXPECT_THAT(table->rows[0].cells[0].reason, HasSubstr("no last word"));
    EXPECT_EQ(table->rows[0].cells[1].mean->mean, 75);
    EXPECT_TRUE(table->rows[0].causal);
    EXPECT_FALSE(table->rows[2].causal);
}

TEST_F(Runner, scoresThatAreThereAreKept)
{
    plan({"good"}, {0});
    const char *list = R"([{"task": "choice", "data": "$DATA/q.jsonl"}, {"task": "lambada", "data": "$DATA/l.jsonl"}, {"task": "mmlu", "data": "$DATA/m.jsonl"}])";
    tasks(list, {"q.jsonl", "l.jsonl"});
    ASSERT_TRUE(sweep());
    ASSERT_EQ(calls().size(), 3u);
    m_options.resume = true;
    write(at("study/mended"), "");
    tasks(list, {"m.jsonl"});
    auto report = sweep();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->countTasks(TaskState::done), 3u);
    ASSERT_EQ(calls().size(), 5u) << "what failed and what had no data, nothing else";
    EXPECT_THAT(calls()[3], HasSubstr("--task lambada"));
    EXPECT_THAT(calls()[4], HasSubstr("--task mmlu"));
    ASSERT_TRUE(sweep());
    EXPECT_EQ(calls().size(), 5u);
    // Other data or settings: another score. Data that is gone leaves the score that is there.
    write(at("data/q.jsonl"), "other items");
    fs::remove(at("data/m.jsonl"));
    Json changed = m_spec.source;
    changed["tasks"][1]["limit"] = 3;
    m_spec = *study::parseSpec(changed, "spec", {});
    report = sweep();
    ASSERT_TRUE(report);
    EXPECT_EQ(report->countTasks(TaskState::done), 3u);
    ASSERT_EQ(calls().size(), 7u);
    EXPECT_THAT(calls()[5], HasSubstr("--task choice"));
    EXPECT_THAT(calls()[6], HasSubstr("--limit 3"));
    EXPECT_EQ(study::openStudy(at("study"))->results[0].unscored.size(), 0u);
    // Half a document is no score.
    write(at("study/cells/good_s0/tasks/choice.json"), "{\"metr");
    EXPECT_THAT(study::openStudy(at("study"))->results[0].absence("tasks.choice.metrics.acc.value"), HasSubstr("cannot be read"));
    ASSERT_TRUE(sweep());
    EXPECT_EQ(calls().size(), 8u);
}

TEST_F(Runner, aStopReachesAScoringChild)
{
    plan({"good", "other"}, {0});
    tasks(R"([{"task": "piqa", "data": "$DATA/q.jsonl"}, {"task": "choice", "data": "$DATA/q.jsonl"}])", {"q.jsonl"});
    std::stop_source stop;
    std::jthread stopper([&] {
        EXPECT_TRUE(waitFor([&] { return fs::exists(at("study/scoring")); }));
        stop.request_stop();
    });
    const auto report = sweep(stop.get_token());
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->stopped);
    EXPECT_EQ(report->count(CellState::done), 1u);
    EXPECT_EQ(report->countTasks(TaskState::stopped), 1u);
    EXPECT_THAT(study::openStudy(at("study"))->results[0].absence("tasks.piqa.metrics.acc.value"), HasSubstr("stopped"));
    m_options.resume = true;
    write(at("study/go"), "");
    const auto again = sweep();
    ASSERT_TRUE(again);
    EXPECT_EQ(again->countTasks(TaskState::done), 4u);
    EXPECT_EQ(calls().size(), 7u) << "two runs, four scores, one of them twice";
}

TEST_F(Runner, twoSweepsNeverWorkInOneFolder)
{
    plan({"good"}, {0});
    fs::create_directories(at("study"));
    {
        const auto lock = study::FolderLock::take(at("study"));
        ASSERT_TRUE(lock);
        m_options.resume = true;
        const auto refused = sweep();
        ASSERT_FALSE(refused.ok());
        EXPECT_THAT(refused.error().what, HasSubstr("another sweep"));
    }
    EXPECT_TRUE(sweep()) << "free again";
}

TEST_F(Runner, aChildHoldsTheLockAsLongAsItLives)
{
    write(at("wait.sh"), "#!/bin/sh\nwhile [ ! -e \"$1\" ]; do sleep 0.02; done\n");
    fs::permissions(at("wait.sh"), fs::perms::owner_all);
    std::optional<study::ChildProcess> child;
    {
        const auto lock = study::FolderLock::take(m_folder);
        ASSERT_TRUE(lock);
        study::ProcessOptions options;
        options.program = at("wait.sh");
        options.arguments = {at("go").string()};
        options.errors = at("log.txt");
        options.keepOpen = lock->descriptor();
        auto started = study::ChildProcess::start(options);
        ASSERT_TRUE(started);
        child.emplace(std::move(*started));
    }
    EXPECT_FALSE(study::FolderLock::take(m_folder).ok()) << "the sweep is gone, its run is not";
    write(at("go"), "");
    EXPECT_TRUE(waitFor([&] { return child->poll().has_value(); }));
    EXPECT_TRUE(study::FolderLock::take(m_folder).ok());
}

TEST_F(Runner, aKilledSweepTakesItsChildrenAlongAndCanGoOn)
{
    plan({"good", "slow"}, {0});
    const pid_t sweeper = ::fork();
    ASSERT_GE(sweeper, 0);
    if (sweeper == 0) {
        (void)sweep().ok();
        ::_exit(0);
    }
    ASSERT_TRUE(waitFor([&] { return fs::exists(at("study/cells/slow_s0/ready")); }));
    ::kill(sweeper, SIGKILL);
    ::waitpid(sweeper, nullptr, 0);
    EXPECT_TRUE(waitFor([&] { return fs::exists(at("study/cells/slow_s0/kept")); })) << "the orphan was asked to stop";
    m_options.resume = true;
    write(at("study/go"), "");
    // The lock is free as soon as the orphan is gone.
    EXPECT_TRUE(waitFor([&] { return study::FolderLock::take(at("study")).ok(); }));
    const auto report = sweep();
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_EQ(report->count(CellState::done), 2u);
    EXPECT_TRUE(report->cells[0].skipped);
}

TEST_F(Runner, aFullDiskIsAnErrorThatLeavesTheFolderUsable)
{
    plan({"good", "other"}, {0});
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
        // No file may grow beyond 8 bytes: what a full disk does to every write.
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{8, 8};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const auto report = sweep();
        ::_exit(report.ok() ? 0 : 10 + static_cast<int>(report.error().kind));
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(WEXITSTATUS(status), 10 + static_cast<int>(ErrorKind::work));
    EXPECT_FALSE(fs::exists(at("study/study.json"))) << "nothing half written";
    m_options.resume = true;
    const auto report = sweep();
    ASSERT_TRUE(report) << report.error().what;
    EXPECT_EQ(report->count(CellState::done), 2u);
}

TEST_F(Runner, aProgramThatCannotBeStartedIsNamed)
{
    plan({"good"}, {0});
    m_options.program = at("nowhere");
    const auto report = sweep();
    ASSERT_FALSE(report.ok());
    EXPECT_THAT(report.error().where, HasSubstr("nowhere"));
    EXPECT_EQ(report.error().kind, ErrorKind::work);
}

TEST_F(Runner, estimatesAreAskedForOncePerConfiguration)
{
    plan({"good", "bad", "other"}, {0, 1, 2});
    fs::create_directories(at("scratch"));
    const auto estimates = study::estimateSweep(m_cells, at("scratch"), m_options, {}, {});
    ASSERT_TRUE(estimates) << estimates.error().what;
    ASSERT_EQ(estimates->size(), 3u);
    EXPECT_EQ((*estimates)[0].runs, 3u);
    EXPECT_EQ((*estimates)[0].memoryBytes, 1000);
    EXPECT_THAT((*estimates)[0].note, HasSubstr("1 file of it not here"));
    ASSERT_TRUE((*estimates)[1].refused);
    EXPECT_THAT((*estimates)[1].refused->what, HasSubstr("stepz"));
    EXPECT_EQ(study::checkEstimates(m_cells, *estimates, 2, 1 << 30, 1 << 30).error().kind, ErrorKind::usage);
    plan({"good", "other"}, {0, 1, 2});
    const auto fine = study::estimateSweep(m_cells, at("scratch"), m_options, {}, {});
    EXPECT_TRUE(study::checkEstimates(m_cells, *fine, 2, 2000, 3000).ok());
    EXPECT_EQ(study::checkEstimates(m_cells, *fine, 2, 1999, 3000).error().kind, ErrorKind::input) << "two at a time need 2000 bytes";
    EXPECT_EQ(study::checkEstimates(m_cells, *fine, 2, 2000, 2999).error().where, "disk");
}

} // namespace
} // namespace spectra::test
