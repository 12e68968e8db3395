// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/bridge/engineclient.h"

#include <QElapsedTimer>
#include <QObject>
#include <QTimer>

#include <memory>
#include <mutex>
#include <vector>

namespace spectra {

/// Carries an engine's events to the GUI thread. Events of one job arrive as signals in the order in which the engine
/// sent them: started, then progress, tokens and traceOpened, then one finished. Tokens and progress are gathered and
/// delivered at most 30 times a second; of gathered progress only the last is delivered. Owns the engine: close() (or the
/// destructor) cancels all jobs and joins the engine thread; no signal comes afterwards.
/// Lives on the GUI thread; the EngineSink functions are called by the engine thread.
class EngineBridge : public QObject, private EngineSink {
    Q_OBJECT
public:
    explicit EngineBridge(EngineFactory factory, QObject *parent = nullptr);
    ~EngineBridge() override;

    [[nodiscard]] Result<JobId> submit(Request request);
    void cancel(JobId job);
    void cancelAll();
    void close();
    [[nodiscard]] std::vector<BundledModel> bundledModels() const;
    /// Jobs that were accepted and have not finished yet.
    [[nodiscard]] const std::vector<JobId> &openJobs() const { return m_openJobs; }

    static constexpr int deliveryIntervalMs = 34;

Q_SIGNALS:
    void jobStarted(spectra::JobId job);
    void jobProgress(spectra::JobId job, const spectra::Progress &progress);
    void jobTokens(spectra::JobId job, std::shared_ptr<const std::vector<spectra::TokenEvent>> tokens);
    void jobTraceOpened(spectra::JobId job, std::shared_ptr<const spectra::TraceSource> trace);
    void jobFinished(spectra::JobId job, std::shared_ptr<const spectra::Result<spectra::Summary>> result);

private:
    struct Event {
        enum class Kind { started, progress, tokens, trace, finished } kind;
        JobId job = 0;
        Progress progress = {};
        std::vector<TokenEvent> tokens = {};
        std::shared_ptr<const TraceSource> trace = {};
        std::shared_ptr<const Result<Summary>> result = {};
    };

    void started(JobId job) override;
    void progress(JobId job, const Progress &progress) override;
    void tokens(JobId job, std::span<const TokenEvent> tokens) override;
    void traceOpened(JobId job, std::shared_ptr<const TraceSource> trace) override;
    void finished(JobId job, Result<Summary> result) override;

    void post(Event event);
    void wake();
    void deliver();

    std::mutex m_mutex;
    std::vector<Event> m_events; ///< guarded by m_mutex
    bool m_woken = false;        ///< guarded by m_mutex: a wake() is on its way or the timer runs

    std::unique_ptr<EngineClient> m_client;
    std::vector<JobId> m_openJobs;
    QTimer m_timer;
    QElapsedTimer m_sinceDelivery;
};

} // namespace spectra
