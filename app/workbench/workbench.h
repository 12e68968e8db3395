// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/bridge/enginebridge.h"
#include "app/bridge/traceloader.h"
#include "app/bridge/tracesaver.h"
#include "app/workbench/document/autosave.h"
#include "app/workbench/document/recentfiles.h"
#include "app/workbench/document/sessiondocument.h"
#include "app/workbench/document/undorecorder.h"
#include "app/workbench/prompt/promptrunner.h"
#include "app/workbench/shell/notice.h"
#include "app/workbench/shell/taskmodel.h"
#include "views/session.h"

#include <QObject>
#include <QSettings>
#include <QUndoStack>

#include <functional>
#include <memory>
#include <stop_token>
#include <unordered_map>
#include <vector>

namespace spectra {

/// A bundled set of sample texts.
struct PromptSet {
    QString name, title, file;
    int texts = 0;
};

/// What the program stands on; tests put their own in.
struct WorkbenchSetup {
    EngineFactory engine;
    TraceOpener opener;
    TraceSaver saver;
    /// Reads the prompts of a file; runs on a worker.
    std::function<Result<std::vector<Prompt>>(const QString &path)> readPrompts;
    std::vector<PromptSet> promptSets;
    /// The bundled trace: where it is, or where a run of the sample model will put it. Empty: none.
    QString exampleTrace;
    /// Traces that lie ready and take the place of that one: the pair of the bundled study.
    QStringList exampleTraces;
    /// Folder for autosaved sessions; empty: nothing is kept (pictures made by a script).
    QString stateFolder;
    std::shared_ptr<QSettings> settings; ///< may be null, as stateFolder
};

/// The program without its window: open traces, engine, tasks, undo, the session file. The window and its commands act
/// through it. GUI thread only. Shutdown: close() stops accepting, cancels and joins the engine, drains the loaders and
/// ends the autosave; the window closes after it.
class Workbench : public QObject {
    Q_OBJECT
public:
    explicit Workbench(WorkbenchSetup setup, QObject *parent = nullptr);
    ~Workbench() override;

    [[nodiscard]] Session &session() { return *m_session; }
    [[nodiscard]] EngineBridge &engine() { return *m_engine; }
    [[nodiscard]] TaskModel &tasks() { return *m_tasks; }
    [[nodiscard]] QUndoStack &undoStack() { return *m_undo; }
    [[nodiscard]] RecentFiles &recentFiles() { return *m_recent; }
    [[nodiscard]] PromptRunner &runner() { return *m_runner; }
    [[nodiscard]] Autosave &autosave() { return *m_autosave; }
    [[nodiscard]] QSettings *settings() { return m_setup.settings.get(); }
    [[nodiscard]] const std::vector<PromptSet> &promptSets() const { return m_setup.promptSets; }

    /// Opens what lies at these paths, each by its kind; what cannot be opened gives a notice that says why.
    void open(const QStringList &paths);
    void openTrace(const QString &path);
    /// False when it could not be read: a notice says why, and what is open stays.
    bool openSession(const QString &path, bool recovered = false);
    /// Reads a file of prompts in the background; promptsRead() or a notice follows.
    void openPrompts(const QString &path);
    void reloadCurrent();
    void closeCurrent();
    /// True for a run in memory that has ended and is not being saved yet.
    [[nodiscard]] bool canSaveTrace(quint64 trace) const;
    /// Writes a run in memory to a file on a worker, then shows the file in its place: selection and groups stay. A notice
    /// says why when it could not be written; the trace in memory and the file at `path` are then as before.
    void saveTrace(quint64 trace, const QString &path, bool overwrite);
    /// The bundled trace; made by a run of the sample model when it is not there yet.
    void openExample();
    [[nodiscard]] bool exampleIsReady() const;
    [[nodiscard]] bool exampleIsPair() const { return !m_setup.exampleTraces.isEmpty(); }
    [[nodiscard]] bool hasExample() const { return exampleIsPair() || !m_setup.exampleTrace.isEmpty(); }
    void saveSession(const QString &path);
    [[nodiscard]] QString sessionPath() const { return m_sessionPath; }
    void newSession();

    /// Hands a job to the engine and puts it into the task list.
    Result<JobId> submit(Request request, const QString &title);
    /// True when nothing is being opened or run.
    [[nodiscard]] bool isIdle() const;
    void close();

    /// The window's and the Prompt view's part of a session file.
    using SavePart = std::function<void(SessionDocument &)>;
    using RestorePart = std::function<void(const SessionDocument &)>;
    void addDocumentPart(SavePart save, RestorePart restore);
    [[nodiscard]] SessionDocument document() const;
    /// Something that the session file holds has changed.
    void touch();

    void notify(const Notice &notice) { Q_EMIT noticed(notice); }
    void notify(const Error &error);

Q_SIGNALS:
    void noticed(const spectra::Notice &notice);
    /// A trace was opened and is the current one.
    void traceShown(quint64 trace);
    void modelOpened(const QString &model);
    void promptsRead(const QString &path, std::shared_ptr<const std::vector<spectra::Prompt>> prompts);
    void sessionRestored();
    void idleChanged();

private:
    struct Loading {
        quint64 task = 0;
        quint64 reload = 0;      ///< trace to update in place; 0: a new one
        QString name = {};       ///< of a session entry
        bool ofSession = false;
    };
    void load(const QString &path, Loading loading);
    void loaded(quint64 request, const OpenedTrace &trace);
    void traceSaved(quint64 trace, quint64 task, const QString &path, const Result<void> &result);
    void loadFailed(quint64 request, const QString &path, const Error &error);
    void jobFinished(JobId job, const Result<Summary> &result);
    void applySession();
    void finishSessionTrace();
    [[nodiscard]] quint64 openTraceAt(const QString &path) const;

    WorkbenchSetup m_setup;
    std::unique_ptr<Session> m_session;
    std::unique_ptr<QUndoStack> m_undo;
    std::unique_ptr<UndoRecorder> m_recorder;
    std::unique_ptr<TaskModel> m_tasks;
    std::unique_ptr<RecentFiles> m_recent;
    std::unique_ptr<EngineBridge> m_engine;
    std::unique_ptr<TraceLoader> m_loader;
    std::unique_ptr<PromptRunner> m_runner;
    std::unique_ptr<Autosave> m_autosave;
    QThreadPool m_pool;
    int m_reading = 0;

    struct Job {
        quint64 task = 0;
        QString title;
        std::function<void(const Result<Summary> &)> finished;
    };
    std::unordered_map<JobId, Job> m_jobs;
    std::unordered_map<quint64, Loading> m_loading;
    std::unordered_map<quint64, std::stop_source> m_saving; ///< by trace
    std::vector<std::pair<SavePart, RestorePart>> m_parts;
    std::optional<SessionDocument> m_restoring; ///< its traces are still being opened
    int m_restoringLeft = 0;
    QString m_sessionPath;
    bool m_closed = false;
};

} // namespace spectra
