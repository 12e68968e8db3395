// SPDX-License-Identifier: GPL-3.0-or-later
// Runs of the Prompt view on a scripted engine.
#include "support.h"

#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"

#include <QSignalSpy>

namespace spectra {

using namespace shelltest;

namespace {

FakeEngine::Script script(int tokens)
{
    FakeEngine::Script played;
    played.trace = viewtest::sampleTrace();
    played.tokens = tokens;
    return played;
}

void startRun(Program &program)
{
    program.trigger("run.edit");
    QTest::keyClicks(program.window->promptView().editor(), QStringLiteral("hello"));
    QTest::mouseClick(program.window->promptView().runButton(), Qt::LeftButton);
}

} // namespace

TEST(Bridge, DeliversInOrderAndGathersTokens)
{
    auto log = std::make_shared<FakeEngine::Log>();
    EngineBridge bridge([&](std::shared_ptr<EngineSink> sink) { return std::make_unique<FakeEngine>(std::move(sink), script(10'000), log); });
    QStringList order;
    qint64 tokens = 0, next = 0;
    int deliveries = 0;
    QElapsedTimer clock;
    clock.start();
    QObject::connect(&bridge, &EngineBridge::jobStarted, [&] { order << QStringLiteral("started"); });
    QObject::connect(&bridge, &EngineBridge::jobTraceOpened, [&] { order << QStringLiteral("trace"); });
    QObject::connect(&bridge, &EngineBridge::jobTokens, [&](JobId, const auto &events) {
        ++deliveries;
        for (const TokenEvent &event : *events)
            EXPECT_EQ(event.token, next++) << "tokens come once and in order";
        tokens += static_cast<qint64>(events->size());
    });
    QObject::connect(&bridge, &EngineBridge::jobFinished, [&] { order << QStringLiteral("finished"); });
    const auto job = bridge.submit(GenerateRequest{});
    ASSERT_TRUE(job.ok());
    EXPECT_EQ(bridge.openJobs().size(), 1u);
    ASSERT_TRUE(QTest::qWaitFor([&] { return order.contains(QStringLiteral("finished")); }, 30000));
    EXPECT_EQ(tokens, 10'000) << "finished comes after the last token";
    EXPECT_EQ(order, (QStringList{QStringLiteral("started"), QStringLiteral("trace"), QStringLiteral("finished")}));
    EXPECT_LE(deliveries, 31 * clock.elapsed() / 1000 + 2) << "at most 31 deliveries a second";
    EXPECT_TRUE(bridge.openJobs().empty());
}

TEST(Bridge, NothingArrivesAfterClose)
{
    auto log = std::make_shared<FakeEngine::Log>();
    auto bridge = std::make_unique<EngineBridge>([&](std::shared_ptr<EngineSink> sink) { return std::make_unique<FakeEngine>(std::move(sink), script(1'000'000), log); });
    bool closed = false;
    QObject::connect(bridge.get(), &EngineBridge::jobTokens, [&] { EXPECT_FALSE(closed); });
    QObject::connect(bridge.get(), &EngineBridge::jobFinished, [&] { EXPECT_FALSE(closed); });
    ASSERT_TRUE(bridge->submit(GenerateRequest{}).ok());
    QTest::qWait(30);
    bridge->close();
    closed = true;
    EXPECT_EQ(log->running, 0) << "the engine has been joined";
    QTest::qWait(60);
    const auto refused = bridge->submit(GenerateRequest{});
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::work);
}

TEST(Run, TokensStreamAndTheTraceJoinsTheSession)
{
    Program program(script(200));
    startRun(program);
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.log->finished == 1; }, 10000));
    ASSERT_TRUE(program.settle());
    Session &session = program.workbench->session();
    ASSERT_EQ(session.traces().size(), 1u);
    EXPECT_EQ(session.current()->id, program.workbench->runner().trace());
    EXPECT_EQ(program.window->workspace(), Workspace::explore);
    EXPECT_EQ(program.workbench->runner().tokens(), 200);
    EXPECT_EQ(program.window->promptView().runButton()->text(), QStringLiteral("Run"));
    const std::lock_guard lock(program.log->mutex);
    const auto *request = std::get_if<GenerateRequest>(&program.log->requests.front());
    ASSERT_TRUE(request);
    EXPECT_EQ(request->text, "hello");
    ASSERT_TRUE(request->spec.upcycle);
    EXPECT_EQ(request->spec.upcycle->experts, 8);
    EXPECT_EQ(request->spec.upcycle->set, std::vector<std::string>{"router_dim=32"});
    EXPECT_TRUE(program.errors().isEmpty());
}

TEST(Run, StopEndsARunningJobAndKeepsWhatIsThere)
{
    FakeEngine::Script played = script(50);
    played.waitsForCancel = true;
    Program program(played);
    startRun(program);
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.workbench->runner().tokens() == 50; }, 10000));
    EXPECT_EQ(program.window->promptView().runButton()->text(), QStringLiteral("Stop"));
    EXPECT_FALSE(program.window->isIdle());
    QTest::mouseClick(program.window->promptView().runButton(), Qt::LeftButton);
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.log->cancelled, 1);
    EXPECT_EQ(program.workbench->session().traces().size(), 1u) << "what was routed stays";
    EXPECT_TRUE(program.errors().isEmpty()) << "stopping is no error";
    // And the next run works.
    program.trigger("run.run");
    EXPECT_TRUE(program.workbench->runner().isRunning());
    program.trigger("run.cancelAll");
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.log->cancelled, 2);
}

TEST(Run, ClosingWhileGeneratingIsClean)
{
    FakeEngine::Script played = script(20);
    played.waitsForCancel = true;
    Program program(played);
    startRun(program);
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.workbench->runner().tokens() == 20; }, 10000));
    program.close();
    EXPECT_EQ(program.log->running, 0);
    EXPECT_EQ(program.log->finished, 1) << "cancelled, not abandoned";
}

TEST(Run, AFailureIsABannerAndTheWindowGoesOn)
{
    FakeEngine::Script played;
    played.tokens = 0;
    played.failure = inputError("the model needs 9 GB of memory", "big.gguf", "Choose a smaller model.");
    Program program(played);
    startRun(program);
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.log->finished == 1; }, 10000));
    ASSERT_TRUE(program.settle());
    ASSERT_EQ(program.errors().size(), 1);
    EXPECT_EQ(program.errors().front(), QStringLiteral("the model needs 9 GB of memory\nbig.gguf\nChoose a smaller model."));
    EXPECT_FALSE(program.workbench->runner().isRunning());
}

TEST(Run, AnEmptyPromptIsRefusedBeforeTheEngineHearsOfIt)
{
    Program program(script(5));
    program.trigger("run.run");
    EXPECT_EQ(program.errors().size(), 1);
    const std::lock_guard lock(program.log->mutex);
    EXPECT_TRUE(program.log->requests.empty());
}

TEST(Run, AFileOfPromptsIsRunAsAWhole)
{
    Program program(script(5));
    program.workbench->open({program.makeFile(QStringLiteral("set.jsonl"), "one\ntwo\nthree\n")});
    ASSERT_TRUE(program.settle());
    program.trigger("run.run");
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.log->finished == 1; }, 10000));
    ASSERT_TRUE(program.settle());
    const std::lock_guard lock(program.log->mutex);
    const auto *request = std::get_if<TraceRequest>(&program.log->requests.front());
    ASSERT_TRUE(request);
    EXPECT_EQ(request->prompts.size(), 3u);
    EXPECT_TRUE(request->output.empty());
}

TEST(Run, ALongStreamKeepsTheWindowAnswering)
{
    FakeEngine::Script played = script(10'000);
    Program program(played);
    QSignalSpy flushes(&program.workbench->engine(), &EngineBridge::jobTokens);
    QElapsedTimer clock;
    clock.start();
    int turns = 0;
    QTimer heart;
    QObject::connect(&heart, &QTimer::timeout, [&] { ++turns; });
    heart.start(0);
    startRun(program);
    ASSERT_TRUE(QTest::qWaitFor([&] { return program.log->finished == 1 && !program.workbench->runner().isRunning(); }, 60000));
    EXPECT_LE(flushes.count(), 31 * clock.elapsed() / 1000 + 2);
    EXPECT_GT(turns, flushes.count()) << "the event loop turns between deliveries";
    EXPECT_EQ(program.workbench->runner().tokens(), 10'000);
    ASSERT_TRUE(program.settle());
}

} // namespace spectra
