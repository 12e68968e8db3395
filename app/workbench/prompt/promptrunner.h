// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/bridge/enginebridge.h"
#include "app/workbench/document/sessiondocument.h"
#include "views/session.h"

#include <QElapsedTimer>
#include <QObject>

#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace spectra {

/// The model part of a request, from the settings of the Prompt view.
[[nodiscard]] ModelSpec modelSpecOf(const PromptSettings &settings);
/// Errors (usage): a value out of range, a capture set that does not exist.
[[nodiscard]] Result<void> checkSettings(const PromptSettings &settings);

/// Runs a prompt, or a set of prompts, and puts the trace of the run into the Session while it grows, so that every view
/// follows. One run at a time. Widget-free; GUI thread only.
class PromptRunner : public QObject {
    Q_OBJECT
public:
    /// Hands a request to the engine under a title of the task list.
    using Submit = std::function<Result<JobId>(Request request, const QString &title)>;

    PromptRunner(Session &session, EngineBridge &bridge, Submit submit, QObject *parent = nullptr);

    Result<void> runText(const QString &text, const PromptSettings &settings);
    Result<void> runPrompts(std::vector<Prompt> prompts, const PromptSettings &settings, const QString &title);
    void stop();
    [[nodiscard]] bool isRunning() const { return m_job.has_value(); }
    /// The trace of the last run in the session; 0: none.
    [[nodiscard]] quint64 trace() const { return m_trace; }
    [[nodiscard]] qint64 tokens() const { return m_tokens; }

    /// Views are told of a growing trace at most this often.
    static constexpr int growthIntervalMs = 200;

Q_SIGNALS:
    void runningChanged(bool running);
    void started();
    void stageChanged(const QString &stage);
    void tokensCame(std::shared_ptr<const std::vector<spectra::TokenEvent>> tokens);
    void traceAdded(quint64 trace);
    void done(const spectra::Summary &summary);
    void failed(const spectra::Error &error);

private:
    Result<void> run(Request request, const QString &title);
    void grow(bool now);
    void finish(const Result<Summary> &result);

    Session &m_session;
    EngineBridge &m_bridge;
    Submit m_submit;
    std::optional<JobId> m_job;
    QString m_title;
    quint64 m_trace = 0;
    std::shared_ptr<const TraceSource> m_source;
    qint64 m_tokens = 0;
    int m_runs = 0;
    QElapsedTimer m_sinceGrowth;
};

} // namespace spectra
