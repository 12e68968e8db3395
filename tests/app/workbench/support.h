// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/mainwindow.h"
#include "app/workbench/workbench.h"
#include "tests/views/sampletrace.h"

#include <QTemporaryDir>
#include <QTest>

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace spectra::shelltest {

void prepareApplication();
void installListeners();
/// qWarnings are counted instead of failing the test while one of these lives.
class ExpectWarnings {
public:
    ExpectWarnings();
    ~ExpectWarnings();
};

/// An engine that plays a script on its own thread: a live trace, then tokens, then the end. As the real one it ends each
/// job with exactly one finished, and cancels between tokens.
class FakeEngine : public EngineClient {
public:
    struct Script {
        std::shared_ptr<const TraceSource> trace;  ///< opened before the first token; may be null
        int tokens = 20;
        int tokensPerCall = 1;
        std::optional<Error> failure;              ///< instead of a result
        bool waitsForCancel = false;               ///< after the tokens, until cancelled
    };
    struct Log {
        std::mutex mutex;
        std::vector<Request> requests;
        std::atomic<int> running{0}, finished{0}, cancelled{0};
    };
    FakeEngine(std::shared_ptr<EngineSink> sink, Script script, std::shared_ptr<Log> log);
    ~FakeEngine() override;

    Result<JobId> submit(Request request) override;
    void cancel(JobId job) override;
    void cancelAll() override;
    std::vector<BundledModel> bundledModels() const override;

private:
    void run(std::stop_token stop);
    void play(JobId job, std::stop_token stop);

    std::shared_ptr<EngineSink> m_sink;
    Script m_script;
    std::shared_ptr<Log> m_log;
    std::mutex m_mutex;
    std::condition_variable_any m_wake;
    std::deque<JobId> m_queue;
    std::vector<JobId> m_cancelled;
    JobId m_next = 1;
    std::jthread m_thread;
};

/// A program on made-up files: `name.h5` opens the sample trace (a trace of its own per path) when the file is there.
class Program {
public:
    explicit Program(FakeEngine::Script script = {}, bool keepsState = false);
    ~Program();

    [[nodiscard]] QString path(const QString &name) const { return m_folder->filePath(name); }
    /// A file that looks like a trace; opening it gives the sample trace.
    QString makeTrace(const QString &name);
    QString makeFile(const QString &name, const QByteArray &content);
    /// Ends the program as a kill would: nothing is cleaned up. A new one starts on the same state.
    void start();
    void close();
    [[nodiscard]] bool settle(int ms = 30000);
    void trigger(const char *command)
    {
        window->registry().updateEnableStates(); // as the event loop would have done meanwhile
        window->registry().action(QLatin1String(command))->trigger();
    }
    [[nodiscard]] QStringList errors() const;
    /// Loading waits while this is set.
    void holdLoading(bool hold);

    std::shared_ptr<FakeEngine::Log> log = std::make_shared<FakeEngine::Log>();
    std::unique_ptr<Workbench> workbench;
    std::unique_ptr<MainWindow> window;
    FakeEngine::Script script;
    /// What saving a trace does; empty: it fails.
    std::shared_ptr<TraceSaver> saver = std::make_shared<TraceSaver>();
    QString example;

private:
    struct Gate {
        std::mutex mutex;
        std::condition_variable_any changed;
        bool closed = false;
    };
    std::shared_ptr<QTemporaryDir> m_folder = std::make_shared<QTemporaryDir>();
    std::shared_ptr<Gate> m_gate = std::make_shared<Gate>();
    bool m_keepsState;
};

} // namespace spectra::shelltest
