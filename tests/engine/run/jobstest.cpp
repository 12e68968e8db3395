// SPDX-License-Identifier: GPL-3.0-or-later
// The job queue: every accepted job ends exactly once, in order, whatever happens to it.
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>

#include <atomic>
#include <future>
#include <thread>

namespace spectra::test {
namespace {
using testing::HasSubstr;

class Jobs : public testing::Test {
protected:
    TemporaryFolder m_folder{"jobs"};
    std::string m_dense = tinyModel("llama-gqa", m_folder / "dense").string();
    std::string m_moe = tinyModel("mixtral-gqa", m_folder / "moe").string();

    [[nodiscard]] TraceRequest live(int words = 20) const
    {
        TraceRequest r;
        r.spec.model = m_moe;
        r.spec.device = "cpu";
        r.prompts = {promptOf(someText(words, 1))};
        return r;
    }
    /// Runs long enough to be stopped: 2,000 sequences.
    [[nodiscard]] TraceRequest endless() const
    {
        TraceRequest r = live(40000);
        r.sequenceLength = 64;
        return r;
    }
    [[nodiscard]] static std::size_t ends(CollectingSink &sink)
    {
        std::size_t count = 0;
        for (const auto &e : sink.events())
            count += e.kind == "finished" ? 1 : 0;
        return count;
    }
};

TEST_F(Jobs, EventsOfAJobComeInOrderAndEndOnce)
{
    Bench bench;
    const auto first = bench.engine.submit(live()), second = bench.engine.submit(live());
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_LT(*first, *second);
    ASSERT_TRUE(bench.sink->wait(*second).ok());
    std::vector<JobId> order;
    for (const auto &e : bench.sink->events())
        if (order.empty() || order.back() != e.job)
            order.push_back(e.job);
    EXPECT_EQ(order, (std::vector<JobId>{*first, *second})) << "jobs do not interleave";
    for (const JobId job : {*first, *second}) {
        const auto kinds = bench.sink->kinds(job);
        EXPECT_EQ(kinds.front(), "started");
        EXPECT_EQ(kinds.back(), "finished");
        EXPECT_EQ(std::count(kinds.begin(), kinds.end(), "started"), 1);
        EXPECT_EQ(std::count(kinds.begin(), kinds.end(), "finished"), 1);
        EXPECT_EQ(std::count(kinds.begin(), kinds.end(), "trace"), 1) << "a trace without a file is a live one";
        EXPECT_GE(std::count(kinds.begin(), kinds.end(), "progress"), 1);
    }
}

TEST_F(Jobs, AModelIsLoadedOnceAndHeld)
{
    Bench bench;
    LoadRequest load;
    load.spec.model = m_moe;
    const Summary first = bench.good(load), second = bench.good(load);
    EXPECT_GT(first.loadSeconds, 0);
    EXPECT_EQ(second.loadSeconds, 0);
    EXPECT_EQ(first.model, second.model);
    load.spec.model = m_dense;
    const Summary other = bench.good(load);
    EXPECT_NE(other.model, first.model);
    EXPECT_EQ(bench.good(UnloadRequest{first.model}).model, 0u);
    EXPECT_EQ(bench.bad(UnloadRequest{first.model}).kind, ErrorKind::usage) << "it is gone";
    load.spec.model = m_moe;
    EXPECT_GT(bench.good(load).loadSeconds, 0);
    // Written again, it is another model.
    (void)tinyModel("mixtral-tied", m_folder / "moe");
    EXPECT_GT(bench.good(load).loadSeconds, 0);
}

TEST_F(Jobs, ASecondRequestWhileTheFirstRunsWaitsForIt)
{
    Bench bench;
    std::promise<void> running;
    std::atomic<bool> told{false};
    bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.kind == "progress" && e.progress.stage == "running the model" && e.progress.done > 0 && !told.exchange(true))
            running.set_value();
    });
    const auto first = bench.engine.submit(endless());
    ASSERT_TRUE(first.ok());
    running.get_future().wait();
    LoadRequest load;
    load.spec.model = m_dense;
    const auto second = bench.engine.submit(load);
    ASSERT_TRUE(second.ok());
    EXPECT_TRUE(bench.sink->kinds(*second).empty()) << "first in, first out";
    bench.engine.cancel(*first);
    EXPECT_EQ(bench.sink->wait(*first).error().kind, ErrorKind::cancelled);
    EXPECT_TRUE(bench.sink->wait(*second).ok()) << "stopping one job does not touch the next";
    EXPECT_EQ(ends(*bench.sink), 2u);
}

TEST_F(Jobs, AJobThatWaitsCanBeCancelledWithoutStarting)
{
    Bench bench;
    const auto first = bench.engine.submit(endless());
    const auto second = bench.engine.submit(live());
    const auto third = bench.engine.submit(live());
    ASSERT_TRUE(first.ok() && second.ok() && third.ok());
    bench.engine.cancel(*second);
    bench.engine.cancel(*second);
    bench.engine.cancel(999);
    bench.engine.cancel(*first);
    EXPECT_EQ(bench.sink->wait(*second).error().kind, ErrorKind::cancelled);
    EXPECT_TRUE(bench.sink->wait(*third).ok());
    EXPECT_EQ(bench.sink->kinds(*second), std::vector<std::string>{"finished"});
    EXPECT_EQ(ends(*bench.sink), 3u);
}

TEST_F(Jobs, LoadingIsCancelledFromItsProgress)
{
    Bench bench;
    std::atomic<bool> cancelled{false};
    bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.kind == "progress" && !cancelled.exchange(true))
            bench.engine.cancel(e.job);
    });
    LoadRequest load;
    load.spec.model = m_moe;
    const auto job = bench.engine.submit(load);
    ASSERT_TRUE(job.ok());
    const auto result = bench.sink->wait(*job);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().kind, ErrorKind::cancelled);
    bench.sink->onEvent({});
    EXPECT_GT(bench.good(load).loadSeconds, 0) << "nothing half loaded is held";
}

TEST_F(Jobs, GenerationIsCancelledBetweenTokens)
{
    Bench bench;
    bench.sink->onEvent([&](const CollectingSink::Event &e) {
        if (e.kind == "tokens" && bench.sink->tokensOf(e.job).size() > 12)
            bench.engine.cancel(e.job);
    });
    GenerateRequest request;
    request.spec.model = tinyModel("mixtral-gqa", m_folder / "noend", {true, -1}).string();
    request.text = "the river";
    request.maxNewTokens = 100000;
    request.capture = Capture::minimal();
    const auto job = bench.engine.submit(request);
    ASSERT_TRUE(job.ok()) << job.error().what;
    const auto result = bench.sink->wait(*job);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().kind, ErrorKind::cancelled);
    EXPECT_LT(bench.sink->tokensOf(*job).size(), 40u);
    const auto trace = bench.sink->traceOf(*job);
    ASSERT_TRUE(trace);
    EXPECT_GT(trace->info()->tokens, 5) << "what was generated stays to be looked at";
}

TEST_F(Jobs, AFullQueueRefusesAndNeverBlocks)
{
    Bench bench;
    std::vector<JobId> accepted;
    const auto first = bench.engine.submit(endless());
    ASSERT_TRUE(first.ok());
    accepted.push_back(*first);
    std::size_t refused = 0;
    for (int i = 0; i < 80; ++i) {
        const auto job = bench.engine.submit(UnloadRequest{12345});
        if (job) {
            accepted.push_back(*job);
        } else {
            EXPECT_EQ(job.error().kind, ErrorKind::work);
            EXPECT_FALSE(job.error().mend.empty());
            ++refused;
        }
    }
    EXPECT_GE(refused, 15u);
    bench.engine.cancelAll();
    for (const JobId job : accepted)
        (void)bench.sink->wait(job);
    EXPECT_EQ(ends(*bench.sink), accepted.size());
    EXPECT_TRUE(bench.engine.submit(UnloadRequest{1}).ok()) << "there is room again";
}

TEST_F(Jobs, DestructionEndsTheRunningAndTheWaitingJobs)
{
    for (int round = 0; round < 3; ++round) {
        const auto sink = std::make_shared<CollectingSink>();
        std::vector<JobId> jobs;
        {
            Engine engine(sink, 1);
            for (int i = 0; i < 5; ++i) {
                const auto job = engine.submit(i == 0 && round > 0 ? Request(endless()) : Request(live(2000)));
                ASSERT_TRUE(job.ok());
                jobs.push_back(*job);
            }
            if (round == 2) {
                struct Running {
                    std::promise<void> promise;
                    std::atomic<bool> told{false};
                };
                const auto running = std::make_shared<Running>();
                sink->onEvent([running](const CollectingSink::Event &e) {
                    if (e.kind == "progress" && !running->told.exchange(true))
                        running->promise.set_value();
                });
                running->promise.get_future().wait();
            }
        }
        std::map<JobId, int> count;
        for (const auto &e : sink->events())
            count[e.job] += e.kind == "finished" ? 1 : 0;
        for (const JobId job : jobs)
            EXPECT_EQ(count[job], 1) << "job " << job;
    }
}

TEST_F(Jobs, ManyThreadsSubmitAndCancel)
{
    Bench bench;
    std::atomic<int> accepted{0};
    {
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t)
            threads.emplace_back([&, t] {
                for (int i = 0; i < 12; ++i) {
                    const auto job = bench.engine.submit(live(5));
                    if (!job)
                        continue;
                    ++accepted;
                    if ((i + t) % 3 == 0)
                        bench.engine.cancel(*job);
                    if (i % 4 == 0)
                        (void)bench.sink->wait(*job);
                }
            });
    }
    const auto last = bench.engine.submit(UnloadRequest{999});
    ASSERT_TRUE(last.ok());
    (void)bench.sink->wait(*last);
    EXPECT_EQ(ends(*bench.sink), static_cast<std::size_t>(accepted) + 1);
}

TEST_F(Jobs, ValuesOutOfRangeAreUsageErrorsBeforeAnythingRuns)
{
    Bench bench;
    const auto refuse = [&](const std::function<void(TraceRequest &)> &change) {
        TraceRequest r = live();
        change(r);
        const auto job = bench.engine.submit(r);
        ASSERT_FALSE(job.ok());
        EXPECT_EQ(job.error().kind, ErrorKind::usage);
        EXPECT_FALSE(job.error().where.empty());
    };
    refuse([](TraceRequest &r) { r.batch = 0; });
    refuse([](TraceRequest &r) { r.sequenceLength = 1; });
    refuse([](TraceRequest &r) { r.maxNewTokens = -1; });
    refuse([](TraceRequest &r) { r.maxTokens = -5; });
    refuse([](TraceRequest &r) { r.compress = 10; });
    refuse([](TraceRequest &r) { r.dtype = "f64"; });
    refuse([](TraceRequest &r) { r.prompts.clear(); });
    refuse([](TraceRequest &r) { r.resume = true; });
    refuse([](TraceRequest &r) { r.sampling.temperature = -1; });
    refuse([](TraceRequest &r) { r.sampling.temperature = NAN; });
    refuse([](TraceRequest &r) { r.sampling.topP = 0; });
    refuse([](TraceRequest &r) { r.spec.compute = "int8"; });
    refuse([](TraceRequest &r) { r.spec.device = "tpu"; });
    refuse([](TraceRequest &r) { r.spec.upcycle = UpcycleSettings{.experts = 0}; });
    refuse([](TraceRequest &r) { r.spec.upcycle = UpcycleSettings{.noise = NAN}; });
    EXPECT_TRUE(bench.sink->events().empty());
    CalibrateRequest calibrate;
    calibrate.spec.model = m_moe;
    calibrate.prompts = {promptOf("a")};
    EXPECT_EQ(bench.bad(calibrate).kind, ErrorKind::usage) << "no output";
    LogitsRequest logits;
    logits.spec.model = m_moe;
    logits.prompt = promptOf("a");
    EXPECT_EQ(bench.bad(logits).kind, ErrorKind::usage) << "no output";
}

TEST_F(Jobs, WhatIsNotAModelIsAnInputErrorThatSaysWhere)
{
    Bench bench;
    LoadRequest load;
    EXPECT_EQ(bench.bad(load).kind, ErrorKind::input) << "no name";
    load.spec.model = (m_folder / "nowhere").string();
    Error error = bench.bad(load);
    EXPECT_EQ(error.kind, ErrorKind::input);
    EXPECT_THAT(error.where, HasSubstr("nowhere"));
    EXPECT_FALSE(error.mend.empty());
    // A tokenizer is part of a model.
    std::filesystem::remove(m_folder / "dense" / "tokenizer.json");
    load.spec.model = m_dense;
    error = bench.bad(load);
    EXPECT_EQ(error.kind, ErrorKind::input);
    EXPECT_THAT(error.what, HasSubstr("tokenizer.json"));
    EXPECT_THAT(error.where, HasSubstr("dense"));
    // One that does not belong to it.
    std::string large = tinyTokenizerJson();
    large.insert(large.find("\"!\":3") , "\"<far>\":4000,");
    m_folder.write("dense/tokenizer.json", large);
    error = bench.bad(load);
    EXPECT_EQ(error.kind, ErrorKind::input) << error.what;
    // Weights that no machine holds: refused before anything is allocated.
    m_folder.write("dense/tokenizer.json", tinyTokenizerJson());
    std::string config = readText(m_folder / "dense" / "config.json");
    const std::string key = "\"num_hidden_layers\": 2";
    ASSERT_NE(config.find(key), std::string::npos);
    config.replace(config.find(key), key.size(), "\"num_hidden_layers\": 2000000000");
    m_folder.write("dense/config.json", config);
    error = bench.bad(load);
    EXPECT_EQ(error.kind, ErrorKind::input);
    EXPECT_FALSE(error.what.empty());
    LoadRequest good;
    good.spec.model = m_moe;
    EXPECT_TRUE(bench.run(good).ok()) << "a refused model leaves the engine as it was";
}

TEST_F(Jobs, CudaWithoutADeviceIsAUsageError)
{
    if (std::filesystem::exists("/dev/nvidiactl"))
        return; // the test is about machines without one
    Bench bench;
    LoadRequest load;
    load.spec.model = m_moe;
    load.spec.device = "cuda";
    const Error error = bench.bad(load);
    EXPECT_EQ(error.kind, ErrorKind::usage);
    EXPECT_THAT(error.mend, HasSubstr("cpu"));
}

TEST_F(Jobs, BundledModelsAreNamedWithTheirSource)
{
    for (const BundledModel &m : Engine::bundledModels()) {
        EXPECT_FALSE(m.name.empty() || m.source.empty() || m.licence.empty());
        EXPECT_EQ(m.present, std::filesystem::exists(m.path));
    }
}

} // namespace
} // namespace spectra::test
