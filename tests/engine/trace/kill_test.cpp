// SPDX-License-Identifier: GPL-3.0-or-later
// Runs that end badly: killed, out of disk, cancelled, continued.
#include "engine/trace/validator.h"
#include "tests/engine/trace/tracefixture.h"

#include "engine/core/random.h"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <fstream>
#include <spawn.h>
#include <sys/wait.h>
#include <thread>

extern "C" char **environ;

namespace spectra::test {
namespace {

class KillTest : public TraceTest {
protected:
    static std::string program()
    {
        const char *given = std::getenv("SPECTRA_TEST_WRITER");
        return given != nullptr ? given : std::string(SPECTRA_BUILD_DIR) + "/bin/trace_writer_program";
    }
    pid_t start(std::vector<std::string> arguments, const std::filesystem::path &output = "/dev/null")
    {
        arguments.insert(arguments.begin(), program());
        std::vector<char *> pointers;
        for (std::string &a : arguments)
            pointers.push_back(a.data());
        pointers.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
        pid_t child = 0;
        EXPECT_EQ(posix_spawn(&child, program().c_str(), &actions, nullptr, pointers.data(), environ), 0);
        posix_spawn_file_actions_destroy(&actions);
        return child;
    }
    static int wait(pid_t child)
    {
        int status = 0;
        ::waitpid(child, &status, 0);
        return status;
    }
};

SyntheticOptions childOptions(std::uint64_t seed, std::int64_t tokens)
{
    SyntheticOptions o;
    o.seed = seed;
    o.tokens = tokens;
    o.flushSeconds = 0.02;
    return o;
}

/// Sanitizers slow the writer down: moments are drawn from as much of its work.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kSlowness = 5;
#else
constexpr double kSlowness = 1;
#endif

TEST_F(KillTest, everyPartOfFiftyKilledRunsOpensAndHoldsEveryCommittedToken)
{
    Random random(11);
    int existed = 0, committed = 0, early = 0;
    for (int i = 0; i < 50; ++i) {
        const std::string name = "k" + std::to_string(i) + ".h5";
        const pid_t child = start({place(name), std::to_string(i), "200000"});
        // A fifth of the kills come while the file is being made, the rest at any moment of its first half second.
        const bool making = i % 5 == 0;
        for (int wait_ = 0; wait_ < 10'000 && !making && !std::filesystem::exists(place(name + ".part")); ++wait_)
            std::this_thread::sleep_for(std::chrono::milliseconds(2));
        std::this_thread::sleep_for(std::chrono::duration<double>(kSlowness * (making ? random.uniform(0, 0.05) : random.uniform(0, 0.7))));
        ::kill(child, SIGKILL);
        ASSERT_TRUE(WIFSIGNALED(wait(child))) << "the run ended by itself";
        ASSERT_FALSE(std::filesystem::exists(place(name)));
        if (!std::filesystem::exists(place(name + ".part"))) {
            ++early;
            continue;
        }
        ++existed;
        auto reader = openTrace(place(name + ".part"));
        ASSERT_TRUE(reader.ok()) << i << ": " << why(reader);
        const auto info = (*reader)->info();
        EXPECT_FALSE(info->complete);
        if (info->tokens > 0) {
            ++committed;
            const SyntheticRun run(childOptions(static_cast<std::uint64_t>(i), 200'000));
            expectRun(**reader, run, info->tokens);
            ASSERT_FALSE(HasFatalFailure()) << "kill " << i;
        }
        std::filesystem::remove(place(name + ".part"));
    }
    EXPECT_GE(existed, 40);
    EXPECT_GE(committed, 10) << "of " << existed;
    std::printf("%d files, %d with committed tokens, %d killed before there was one\n", existed, committed, early);
}

TEST_F(KillTest, aRunKilledAgainAndAgainEndsAsIfItHadNotBeen)
{
    const SyntheticOptions o = childOptions(5, 30000);
    ASSERT_TRUE(writeSyntheticTrace(place("whole.h5"), o).ok());
    Random random(4);
    std::string mode = "new";
    int kills = 0;
    std::int64_t last = 0;
    for (int i = 0; i < 60 && !std::filesystem::exists(place("cut.h5")); ++i) {
        const pid_t child = start({place("cut.h5"), "5", "30000", mode});
        if (i < 6) {
            std::this_thread::sleep_for(std::chrono::duration<double>(kSlowness * random.uniform(0.1, 0.45)));
            ::kill(child, SIGKILL);
        }
        const int status = wait(child);
        kills += WIFSIGNALED(status) ? 1 : 0;
        ASSERT_TRUE(!WIFEXITED(status) || WEXITSTATUS(status) == 0);
        if (std::filesystem::exists(place("cut.h5.part"))) {
            mode = "resume";
            auto reader = TraceReader::open(place("cut.h5.part"));
            ASSERT_TRUE(reader.ok()) << why(reader);
            last = std::max(last, (*reader)->info()->tokens);
        }
    }
    ASSERT_TRUE(std::filesystem::exists(place("cut.h5")));
    EXPECT_GE(kills, 2);
    EXPECT_GT(last, 0);
    expectSameDatasets(place("whole.h5"), place("cut.h5"));
    EXPECT_FALSE(hasErrors(validateTrace(place("cut.h5"))));
}

TEST_F(KillTest, aCancelledRunKeepsItsTokensAndGoesOnFromItsLastWholeSequence)
{
    SyntheticOptions o;
    o.tokens = 3000;
    const SyntheticRun run(o);
    ASSERT_TRUE(writeSyntheticTrace(place("whole.h5"), o).ok());
    std::vector<LayerTables> sums;
    {
        auto writer = TraceWriter::create(place("t.h5"), run.spec(), false);
        ASSERT_TRUE(writer.ok());
        for (std::int64_t s = 0; s < 15; ++s)
            ASSERT_TRUE(run.feed(**writer, s, sums).ok());
        // In the middle of sequence 15, with its last layers not there yet.
        SequenceInfo info = run.info(15);
        ASSERT_TRUE((*writer)->beginSequence(info).ok());
        ASSERT_TRUE((*writer)->addTokens(run.tokens(15, 0, 50)).ok());
        for (int layer = 0; layer < o.layers; ++layer)
            ASSERT_TRUE((*writer)->addRouting(run.routing(15, layer, 0, layer < 2 ? 50 : 30, (*writer)->wantsHidden(15, info.length))).ok());
        auto cancelled = (*writer)->cancel(run.tables(sums));
        ASSERT_TRUE(cancelled.ok()) << why(cancelled);
        EXPECT_EQ((*writer)->committed(), run.offset(15) + 30);
    }
    EXPECT_FALSE(std::filesystem::exists(place("t.h5")));
    {
        auto reader = TraceReader::open(place("t.h5.part"));
        ASSERT_TRUE(reader.ok()) << why(reader);
        expectRun(**reader, run, run.offset(15) + 30);
        EXPECT_TRUE((*reader)->info()->has(Table::gramExpression));
        EXPECT_FALSE(hasErrors(validateTrace(place("t.h5.part"))));
    }
    auto resumed = TraceWriter::resume(place("t.h5"), run.spec());
    ASSERT_TRUE(resumed.ok()) << why(resumed);
    EXPECT_EQ(resumed->sequencesDone, 15);
    EXPECT_EQ(resumed->tokensDone, run.offset(15));
    for (std::int64_t s = resumed->sequencesDone; s < run.sequences(); ++s)
        ASSERT_TRUE(run.feed(*resumed->writer, s, resumed->sums).ok());
    auto finished = resumed->writer->finish(run.tables(resumed->sums), 1.5);
    ASSERT_TRUE(finished.ok()) << why(finished);
    expectSameDatasets(place("whole.h5"), place("t.h5"));
}

TEST_F(KillTest, otherSettingsAreNotContinued)
{
    SyntheticOptions o;
    o.tokens = 1500;
    const SyntheticRun run(o);
    {
        auto writer = TraceWriter::create(place("t.h5"), run.spec(), false);
        ASSERT_TRUE(writer.ok());
        std::vector<LayerTables> sums;
        for (std::int64_t s = 0; s < 12; ++s)
            ASSERT_TRUE(run.feed(**writer, s, sums).ok());
        ASSERT_TRUE((*writer)->cancel().ok());
    }
    const auto refused = [&](const TraceSpec &spec, const std::string &what) {
        auto resumed = TraceWriter::resume(place("t.h5"), spec);
        ASSERT_FALSE(resumed.ok()) << what;
        EXPECT_EQ(resumed.error().kind, ErrorKind::input) << what;
        EXPECT_NE(resumed.error().what.find(what), std::string::npos) << resumed.error().what;
    };
    TraceSpec other = run.spec();
    other.capture.drop(Field::logits);
    refused(other, "capture");
    other = run.spec();
    other.model.config = "{}";
    refused(other, "model");
    other = run.spec();
    other.model.seed = 77;
    refused(other, "seed");
    other = run.spec();
    other.f16 = false;
    refused(other, "type");
    other = run.spec();
    other.decoderIndex[0] = 0;
    refused(other, "layers");
    auto none = TraceWriter::resume(place("nothing.h5"), run.spec());
    ASSERT_FALSE(none.ok());
    EXPECT_EQ(none.error().kind, ErrorKind::input);
    auto same = TraceWriter::resume(place("t.h5"), run.spec());
    ASSERT_TRUE(same.ok()) << why(same);
    EXPECT_GT(same->sequencesDone, 0);
}

TEST_F(KillTest, aFullDiskIsAnErrorAndNothingIsLost)
{
    Random random(9);
    for (int i = 0; i < 8; ++i) {
        const std::string name = "d" + std::to_string(i) + ".h5";
        const std::int64_t limit = 1'500'000 + static_cast<std::int64_t>(random.below(7'000'000));
        const pid_t child = start({place(name), std::to_string(100 + i), "6000", "limit", std::to_string(limit)}, place("said"));
        const int status = wait(child);
        ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
        ASSERT_EQ(WEXITSTATUS(status), 1);
        std::string said;
        std::getline(std::ifstream(place("said")), said);
        EXPECT_EQ(said.substr(0, 5), "work:") << said;
        EXPECT_NE(said.find("File too large"), std::string::npos) << said;
        ASSERT_FALSE(std::filesystem::exists(place(name)));
        if (!std::filesystem::exists(place(name + ".part")))
            continue; // not even the empty file had room
        {
            auto reader = openTrace(place(name + ".part"));
            ASSERT_TRUE(reader.ok()) << limit << ": " << why(reader);
            const SyntheticRun run(childOptions(static_cast<std::uint64_t>(100 + i), 6'000));
            expectRun(**reader, run, (*reader)->info()->tokens);
            ASSERT_FALSE(HasFatalFailure());
        }
        // With room again it goes on.
        const pid_t again = start({place(name), std::to_string(100 + i), "6000", "resume"}, place("said"));
        const int ended = wait(again);
        std::getline(std::ifstream(place("said")), said);
        ASSERT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == 0) << said;
        EXPECT_FALSE(hasErrors(validateTrace(place(name))));
    }
}

TEST_F(KillTest, aFullQueueHoldsTheProducerBack)
{
    SyntheticOptions o;
    o.tokens = 4000;
    SyntheticRun run(o);
    TraceSpec spec = run.spec();
    spec.queueBytes = 200'000;
    spec.compress = 9;
    auto writer = TraceWriter::create(place("t.h5"), spec, false);
    ASSERT_TRUE(writer.ok());
    std::vector<LayerTables> sums;
    for (std::int64_t s = 0; s < run.sequences(); ++s)
        ASSERT_TRUE(run.feed(**writer, s, sums).ok());
    // What the producer is ahead of the file is bounded by the queue and the blocks that are not whole.
    EXPECT_GT((*writer)->committed() + 2048, run.tokens() / 4) << "the producer was not held back";
    ASSERT_TRUE((*writer)->finish(run.tables(sums), 1.5).ok());
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok());
    expectRun(**reader, run, run.tokens());
}

} // namespace
} // namespace spectra::test
