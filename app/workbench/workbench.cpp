// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/workbench.h"

#include "app/workbench/document/filekind.h"

#include <QDir>
#include <QFileInfo>
#include <QFutureWatcher>
#include <QLocale>
#include <QtConcurrent>

namespace spectra {

Workbench::Workbench(WorkbenchSetup setup, QObject *parent)
    : QObject(parent)
    , m_setup(std::move(setup))
    , m_session(std::make_unique<Session>())
    , m_undo(std::make_unique<QUndoStack>())
    , m_recorder(std::make_unique<UndoRecorder>(*m_session, *m_undo))
    , m_tasks(std::make_unique<TaskModel>())
    , m_recent(std::make_unique<RecentFiles>(m_setup.settings.get()))
    , m_engine(std::make_unique<EngineBridge>(m_setup.engine))
    , m_loader(std::make_unique<TraceLoader>(m_setup.opener))
{
    m_undo->setUndoLimit(100);
    m_pool.setObjectName(QStringLiteral("prompt and trace files"));
    m_pool.setMaxThreadCount(1);
    m_runner = std::make_unique<PromptRunner>(
        *m_session, *m_engine, [this](Request request, const QString &title) { return submit(std::move(request), title); });
    m_autosave = std::make_unique<Autosave>(m_setup.stateFolder, [this] { return document(); });

    connect(m_loader.get(), &TraceLoader::loaded, this, &Workbench::loaded);
    connect(m_loader.get(), &TraceLoader::failed, this, &Workbench::loadFailed);
    connect(m_engine.get(), &EngineBridge::jobStarted, this, [this](JobId job) { m_tasks->setRunning(m_jobs[job].task); });
    connect(m_engine.get(), &EngineBridge::jobProgress, this, [this](JobId job, const Progress &p) {
        m_tasks->setProgress(m_jobs[job].task, QString::fromStdString(p.stage), p.done, p.total, QString::fromStdString(p.unit));
    });
    connect(m_engine.get(), &EngineBridge::jobFinished, this,
            [this](JobId job, const std::shared_ptr<const Result<Summary>> &result) { jobFinished(job, *result); });
    connect(m_runner.get(), &PromptRunner::failed, this, [this](const Error &error) { notify(error); });
    connect(m_runner.get(), &PromptRunner::traceAdded, this, &Workbench::traceShown);
    connect(m_autosave.get(), &Autosave::failed, this, [this](const Error &error) { notify(error); });
    connect(m_session.get(), &Session::readFailed, this, [this](quint64 id, const QString &message) {
        const auto trace = m_session->trace(id);
        notify(inputError(message.toStdString(), trace ? trace->name.toStdString() : std::string(),
                          "The file may have changed on disk: reload it."));
    });

    const auto changed = [this] { touch(); };
    connect(m_session.get(), &Session::tracesChanged, this, changed);
    connect(m_session.get(), &Session::currentChanged, this, changed);
    connect(m_session.get(), &Session::layerChanged, this, changed);
    connect(m_session.get(), &Session::focusChanged, this, changed);
    connect(m_session.get(), &Session::expertsChanged, this, changed);
    connect(m_session.get(), &Session::domainsChanged, this, changed);
    connect(m_session.get(), &Session::groupsChanged, this, changed);
    connect(m_session.get(), &Session::rowsChanged, this, [this](RowLayer layer) {
        if (layer != RowLayer::highlight)
            touch();
    });
}

Workbench::~Workbench()
{
    close();
}

void Workbench::close()
{
    if (std::exchange(m_closed, true))
        return;
    m_engine->close();
    m_loader->close();
    for (auto &[trace, stop] : m_saving)
        stop.request_stop();
    m_pool.clear();
    m_pool.waitForDone();
    m_autosave->close();
}

void Workbench::notify(const Error &error)
{
    if (error.kind != ErrorKind::cancelled)
        Q_EMIT noticed(noticeOf(error));
}

void Workbench::open(const QStringList &paths)
{
    for (const QString &path : paths) {
        const auto kind = fileKind(path);
        if (!kind) {
            notify(kind.error());
            continue;
        }
        switch (*kind) {
        case FileKind::trace: openTrace(path); break;
        case FileKind::session: openSession(path); break;
        case FileKind::prompts: openPrompts(path); break;
        case FileKind::gguf:
        case FileKind::modelFolder:
            m_recent->add(path);
            Q_EMIT modelOpened(QFileInfo(path).absoluteFilePath());
            break;
        }
    }
}

quint64 Workbench::openTraceAt(const QString &path) const
{
    const QString wanted = QFileInfo(path).canonicalFilePath();
    if (wanted.isEmpty())
        return 0; // no such file: not to be taken for another that is gone as well
    for (const auto &trace : m_session->traces())
        if (!trace->info->file.empty() && QFileInfo(QString::fromStdString(trace->info->file)).canonicalFilePath() == wanted)
            return trace->id;
    return 0;
}

void Workbench::openTrace(const QString &path)
{
    if (const quint64 open = openTraceAt(path)) {
        m_session->setCurrent(open);
        Q_EMIT traceShown(open);
        return;
    }
    load(QFileInfo(path).absoluteFilePath(), {});
}

void Workbench::load(const QString &path, Loading loading)
{
    if (m_closed)
        return;
    const quint64 request = m_loader->load(path);
    loading.task = m_tasks->start(tr("Open %1").arg(QFileInfo(path).fileName()), [this, request] { m_loader->cancel(request); });
    m_tasks->setRunning(loading.task);
    m_loading[request] = loading;
}

void Workbench::loaded(quint64 request, const OpenedTrace &trace)
{
    const Loading loading = m_loading.extract(request).mapped();
    const auto info = trace.source->info();
    m_tasks->finish(loading.task, TaskState::done, tr("%1 tokens").arg(QLocale(QLocale::English).toString(qlonglong(info->tokens))));
    if (loading.reload != 0 && m_session->trace(loading.reload)) {
        m_session->updateTrace(loading.reload, trace.source);
        touch(); // a run that was saved becomes part of the session file
        Q_EMIT traceShown(loading.reload);
    } else {
        const QString name = loading.name.isEmpty() ? QFileInfo(trace.path).fileName() : loading.name;
        const quint64 id = m_session->addTrace(trace.source, name);
        if (!loading.ofSession) {
            m_session->setCurrent(id);
            m_recent->add(trace.path);
            Q_EMIT traceShown(id);
        }
        if (!info->complete)
            Q_EMIT noticed({Notice::Kind::warning, tr("This trace was cut off: it shows what was saved until then"), trace.path,
                          tr("'spectra trace --resume' goes on where it stopped.")});
    }
    if (loading.ofSession)
        finishSessionTrace();
    Q_EMIT idleChanged();
}

void Workbench::loadFailed(quint64 request, const QString &path, const Error &error)
{
    const Loading loading = m_loading.extract(request).mapped();
    const bool cancelled = error.kind == ErrorKind::cancelled;
    m_tasks->finish(loading.task, cancelled ? TaskState::cancelled : TaskState::failed, cancelled ? QString() : QString::fromStdString(error.what));
    Error shown = error;
    if (shown.where.empty())
        shown.where = path.toStdString();
    notify(shown);
    if (loading.ofSession)
        finishSessionTrace();
    Q_EMIT idleChanged();
}

void Workbench::reloadCurrent()
{
    const auto trace = m_session->current();
    if (trace && !trace->info->file.empty())
        load(QString::fromStdString(trace->info->file), {.reload = trace->id});
}

void Workbench::closeCurrent()
{
    if (const auto trace = m_session->current())
        m_session->removeTrace(trace->id);
}

bool Workbench::canSaveTrace(quint64 id) const
{
    const auto trace = m_session->trace(id);
    return m_setup.saver && trace && trace->info->file.empty() && trace->info->complete && trace->info->tokens > 0 && !m_saving.contains(id);
}

void Workbench::saveTrace(quint64 id, const QString &path, bool overwrite)
{
    if (m_closed || !canSaveTrace(id))
        return;
    const QString file = QFileInfo(path).absoluteFilePath();
    if (openTraceAt(file) != 0) {
        notify(usageError("is open in this window", file.toStdString(), "Close that trace first, or choose another name."));
        return;
    }
    const std::stop_token stop = m_saving[id].get_token();
    const quint64 task = m_tasks->start(tr("Save %1").arg(QFileInfo(file).fileName()), [this, id] {
        if (const auto found = m_saving.find(id); found != m_saving.end())
            found->second.request_stop();
    });
    m_tasks->setRunning(task);
    using Saved = std::shared_ptr<const Result<void>>;
    auto *watcher = new QFutureWatcher<Saved>(this);
    connect(watcher, &QFutureWatcher<Saved>::finished, this, [this, watcher, id, task, file] {
        watcher->deleteLater();
        traceSaved(id, task, file, *watcher->result());
    });
    watcher->setFuture(QtConcurrent::run(&m_pool, [saver = m_setup.saver, source = m_session->trace(id)->source, file, overwrite, stop]() -> Saved {
        return std::make_shared<const Result<void>>(stop.stop_requested() ? Result<void>(cancelledError()) : saver(source, file, overwrite, stop));
    }));
}

void Workbench::traceSaved(quint64 id, quint64 task, const QString &path, const Result<void> &result)
{
    m_saving.erase(id);
    if (result.ok()) {
        m_tasks->finish(task, TaskState::done);
        m_recent->add(path);
        if (m_session->trace(id)) // not closed meanwhile
            load(path, {.reload = id});
    } else {
        const bool cancelled = result.error().kind == ErrorKind::cancelled;
        m_tasks->finish(task, cancelled ? TaskState::cancelled : TaskState::failed, cancelled ? QString() : QString::fromStdString(result.error().what));
        notify(result.error());
    }
    Q_EMIT idleChanged();
}

bool Workbench::exampleIsReady() const
{
    return exampleIsPair() || (hasExample() && QFileInfo::exists(m_setup.exampleTrace));
}

void Workbench::openExample()
{
    if (exampleIsPair()) {
        open(m_setup.exampleTraces);
        return;
    }
    if (exampleIsReady()) {
        openTrace(m_setup.exampleTrace);
        return;
    }
    if (!hasExample() || m_setup.promptSets.empty())
        return;
    // The example is a run of the sample model over the bundled texts: made once, then kept.
    ++m_reading;
    using Read = std::shared_ptr<Result<std::vector<Prompt>>>;
    auto *watcher = new QFutureWatcher<Read>(this);
    connect(watcher, &QFutureWatcher<Read>::finished, this, [this, watcher] {
        watcher->deleteLater();
        --m_reading;
        const Read read = watcher->result();
        if (!read->ok()) {
            notify(read->error());
            return;
        }
        QDir().mkpath(QFileInfo(m_setup.exampleTrace).absolutePath());
        TraceRequest request;
        request.spec = modelSpecOf(PromptSettings());
        request.prompts = std::move(**read);
        request.output = m_setup.exampleTrace.toStdString();
        request.overwrite = true;
        request.capture = *Capture::parse("standard,+hidden");
        const auto job = submit(std::move(request), tr("Trace the sample model on the bundled texts"));
        if (!job)
            notify(job.error());
        else
            m_jobs[*job].finished = [this](const Result<Summary> &result) {
                if (result.ok())
                    openTrace(m_setup.exampleTrace);
                else
                    notify(result.error());
            };
    });
    watcher->setFuture(QtConcurrent::run(&m_pool, [reader = m_setup.readPrompts, sets = m_setup.promptSets]() -> Read {
        std::vector<Prompt> all;
        for (const PromptSet &set : sets) {
            auto prompts = reader(set.file);
            if (!prompts)
                return std::make_shared<Result<std::vector<Prompt>>>(std::move(prompts.error()));
            std::move(prompts->begin(), prompts->end(), std::back_inserter(all));
        }
        return std::make_shared<Result<std::vector<Prompt>>>(std::move(all));
    }));
}

void Workbench::openPrompts(const QString &path)
{
    if (m_closed)
        return;
    using Read = std::shared_ptr<Result<std::vector<Prompt>>>;
    ++m_reading;
    auto *watcher = new QFutureWatcher<Read>(this);
    const quint64 task = m_tasks->start(tr("Read %1").arg(QFileInfo(path).fileName()));
    m_tasks->setRunning(task);
    connect(watcher, &QFutureWatcher<Read>::finished, this, [this, watcher, path, task] {
        watcher->deleteLater();
        --m_reading;
        const Read read = watcher->result();
        if (read->ok()) {
            m_tasks->finish(task, TaskState::done, tr("%n text(s)", nullptr, static_cast<int>((*read)->size())));
            m_recent->add(path);
            Q_EMIT promptsRead(path, std::make_shared<const std::vector<Prompt>>(std::move(**read)));
        } else {
            m_tasks->finish(task, TaskState::failed, QString::fromStdString(read->error().what));
            notify(read->error());
        }
        Q_EMIT idleChanged();
    });
    watcher->setFuture(QtConcurrent::run(&m_pool, [reader = m_setup.readPrompts, path]() -> Read {
        return std::make_shared<Result<std::vector<Prompt>>>(reader(path));
    }));
}

Result<JobId> Workbench::submit(Request request, const QString &title)
{
    Result<JobId> job = m_engine->submit(std::move(request));
    if (job) {
        const JobId id = *job;
        m_jobs[id] = {m_tasks->start(title, [this, id] { m_engine->cancel(id); }), title, {}};
    }
    return job;
}

void Workbench::jobFinished(JobId id, const Result<Summary> &result)
{
    auto node = m_jobs.extract(id);
    if (node.empty())
        return;
    const Job &job = node.mapped();
    if (result.ok()) {
        QString outcome;
        if (result->tokens > 0)
            outcome = tr("%1 tokens, %2 tokens/s").arg(QLocale(QLocale::English).toString(qlonglong(result->tokens)), rateText(result->tokensPerSecond));
        m_tasks->finish(job.task, TaskState::done, outcome);
        for (const std::string &warning : result->warnings)
            Q_EMIT noticed({Notice::Kind::warning, QString::fromStdString(warning), job.title, {}});
    } else if (result.error().kind == ErrorKind::cancelled) {
        m_tasks->finish(job.task, TaskState::cancelled);
    } else {
        m_tasks->finish(job.task, TaskState::failed, QString::fromStdString(result.error().what));
    }
    if (job.finished)
        job.finished(result);
    Q_EMIT idleChanged();
}

bool Workbench::isIdle() const
{
    return m_loading.empty() && m_jobs.empty() && m_saving.empty() && m_reading == 0;
}

void Workbench::newSession()
{
    m_runner->stop();
    while (!m_session->traces().empty())
        m_session->removeTrace(m_session->traces().back()->id);
    m_undo->clear();
    m_sessionPath.clear();
}

bool Workbench::openSession(const QString &path, bool recovered)
{
    auto read = SessionDocument::read(path);
    if (!read) {
        notify(read.error()); // what is open stays as it was
        return false;
    }
    newSession();
    if (!recovered) {
        m_sessionPath = QFileInfo(path).absoluteFilePath();
        m_recent->add(path);
    }
    m_restoring = std::move(*read);
    m_restoringLeft = static_cast<int>(m_restoring->traces.size()) + 1;
    for (const auto &entry : std::vector(m_restoring->traces)) {
        const auto kind = fileKind(entry.path);
        if (kind.ok() && *kind == FileKind::trace) {
            load(entry.path, {.name = entry.name, .ofSession = true});
        } else {
            notify(kind.ok() ? inputError("the session names a file that is no trace", entry.path.toStdString()) : kind.error());
            --m_restoringLeft;
        }
    }
    finishSessionTrace(); // the one too many: a session without traces is complete now
    return true;
}

void Workbench::finishSessionTrace()
{
    if (m_restoring && --m_restoringLeft == 0)
        applySession();
}

void Workbench::applySession()
{
    const SessionDocument document = *std::exchange(m_restoring, std::nullopt);
    m_session->restoreState(document.linked);
    m_undo->clear();
    for (const auto &[save, restore] : m_parts)
        restore(document);
    m_undo->clear();
    Q_EMIT sessionRestored();
}

SessionDocument Workbench::document() const
{
    SessionDocument document;
    for (const auto &trace : m_session->traces())
        if (!trace->info->file.empty())
            document.traces.push_back({QFileInfo(QString::fromStdString(trace->info->file)).absoluteFilePath(), trace->name,
                                       QString::fromStdString(trace->info->uuid)});
    document.linked = m_session->saveState();
    for (const auto &[save, restore] : m_parts)
        save(document);
    return document;
}

void Workbench::saveSession(const QString &path)
{
    if (const auto written = document().write(path); !written) {
        notify(written.error());
        return;
    }
    m_sessionPath = path;
    m_recent->add(path);
    qsizetype live = 0;
    for (const auto &trace : m_session->traces())
        live += trace->info->file.empty();
    if (live > 0)
        Q_EMIT noticed({Notice::Kind::information, tr("Runs of the Prompt view are not part of the session file"),
                      tr("%n live trace(s)", nullptr, static_cast<int>(live)),
                      tr("Save them with Save trace as… first, or run the prompt again: it is saved with its settings.")});
}

void Workbench::addDocumentPart(SavePart save, RestorePart restore)
{
    m_parts.emplace_back(std::move(save), std::move(restore));
}

void Workbench::touch()
{
    if (!m_closed && !m_restoring)
        m_autosave->touch();
}

} // namespace spectra
