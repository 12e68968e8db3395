// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/runner.h"

#include "engine/core/files.h"
#include "engine/core/version.h"
#include "engine/study/taskruns.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

Result<void> writeJson(const fs::path &file, const Json &json)
{
    SPECTRA_TRY(auto out, AtomicFile::create(file, true));
    out.stream() << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return out.commit();
}

const char *name(CellState state)
{
    switch (state) {
    case CellState::waiting: return "waiting";
    case CellState::running: return "running";
    case CellState::done: return "done";
    case CellState::failed: return "failed";
    case CellState::stopped: break;
    }
    return "stopped";
}

/// Steps done by the last line of log.jsonl that has them.
std::int64_t stepsOf(const fs::path &folder)
{
    const std::string text = fileTail(folder / "log.jsonl", 16384);
    for (std::size_t end = text.size(); end > 0;) {
        const std::size_t at = text.rfind('\n', end - 1);
        const std::size_t from = at == std::string::npos ? 0 : at + 1;
        const Json line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(from), text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
        if (line.is_object() && line.contains("step") && line["step"].is_number_integer())
            return line["step"].get<std::int64_t>();
        end = at == std::string::npos ? 0 : at;
    }
    return 0;
}

class Sweep {
public:
    Sweep(const StudySpec &spec, const std::vector<Cell> &cells, fs::path folder, const SweepOptions &options, const SweepEvent &event, const ProgressFunction &progress,
          std::stop_token stop)
        : m_spec(spec), m_cells(cells), m_folder(std::move(folder)), m_options(options), m_event(event), m_progress(progress), m_stop(std::move(stop))
    {
    }

    Result<SweepReport> run()
    {
        SPECTRA_CHECK(prepareFolder());
        SPECTRA_TRY(auto lock, FolderLock::take(m_folder));
        m_lock = lock.descriptor();
        if (m_options.overwrite && !m_options.resume)
            SPECTRA_CHECK(clearFolder());
        // A study that is refused is left as it was.
        SPECTRA_CHECK(plan());
        SPECTRA_CHECK(writeStudy());
        SPECTRA_CHECK(queue());
        Result<void> ended = loop();
        if (!ended) {
            finishChildren();
            return ended.error();
        }
        return std::move(m_report);
    }

private:
    struct Running {
        std::size_t cell;
        std::optional<std::size_t> task; ///< none: the training run itself
        ChildProcess process;
        int slot = 0; ///< which of the core sets it has
        std::int64_t steps = 0;
    };

    Result<void> prepareFolder()
    {
        std::error_code error;
        const bool there = fs::exists(fs::symlink_status(m_folder, error));
        if (there && !m_options.resume && !m_options.overwrite)
            return workError("exists already", m_folder.string(), "--resume goes on with the runs that are missing, --overwrite begins anew");
        if (there && !fs::is_directory(m_folder, error))
            return workError("is not a folder", m_folder.string());
        if (there && !isStudyFolder(m_folder) && !fs::is_empty(m_folder, error)) {
            // A kill between the folder's first files and study.json leaves the lock alone.
            for (const auto &entry : fs::directory_iterator(m_folder, error))
                if (entry.path().filename() != ".lock" && !entry.path().filename().string().starts_with(".study.json."))
                    return workError("is not the folder of a study, and not empty", m_folder.string(), "choose another name");
        }
        fs::create_directories(m_folder, error);
        if (error)
            return workError("cannot be written: " + error.message(), m_folder.string());
        return {};
    }

    /// An earlier study goes, but for the file by which the folder is known as one: a kill in between leaves a folder that can be taken again.
    Result<void> clearFolder()
    {
        std::error_code error;
        for (const char *part : {"cells", "configs", "status", "logs", "tables", "figures", "table.csv", "table.tex", "table.json"})
            if (fs::remove_all(m_folder / part, error); error)
                return workError("cannot be removed: " + error.message(), (m_folder / part).string());
        return {};
    }

    /// First of all that a sweep writes: it is what makes the folder one that `resume` takes.
    Result<void> writeStudy()
    {
        std::error_code error;
        SPECTRA_CHECK(writeJson(m_folder / "study.json", {{"format", 1}, {"program", fmt::format("spectra {}", programVersion())}, {"spec", m_spec.source}}));
        for (const char *part : {"configs", "cells", "status", "logs"}) {
            fs::create_directories(m_folder / part, error);
            if (error)
                return workError("cannot be written: " + error.message(), (m_folder / part).string());
        }
        return {};
    }

    /// Finds what is done, and refuses to mix runs of two configurations.
    Result<void> plan()
    {
        std::string changed;
        std::error_code ignored;
        for (std::size_t i = 0; i < m_cells.size(); ++i) {
            const Cell &cell = m_cells[i];
            CellReport report;
            report.cell = i;
            report.tasks.resize(m_spec.tasks.size());
            for (std::size_t t = 0; t < report.tasks.size(); ++t)
                report.tasks[t].task = t;
            m_begunAnew.push_back(false);
            if (const fs::path file = configFile(m_folder, cell); fs::exists(file, ignored) || fs::exists(cellFolder(m_folder, cell), ignored)) {
                const auto config = readJson(file);
                if (!config || configSha256(*config) != cell.sha256) {
                    m_begunAnew.back() = true;
                    if (fs::exists(cellFolder(m_folder, cell), ignored))
                        changed += (changed.empty() ? "" : ", ") + cell.id;
                } else if (const CellResult result = readResult(m_folder, cell); result.done) {
                    report.state = CellState::done;
                    report.skipped = true;
                    report.heldOutLoss = result.number("held_out_loss");
                }
            }
            m_report.cells.push_back(report);
        }
        if (!changed.empty() && !m_options.overwrite)
            return usageError("runs in this folder have another configuration: " + changed, m_folder.string(),
                              "--resume --overwrite does these anew and keeps the others");
        return {};
    }

    Result<void> queue()
    {
        for (std::size_t i = 0; i < m_cells.size(); ++i) {
            if (m_report.cells[i].skipped) {
                notify(i);
                SPECTRA_CHECK(planTasks(i));
                continue;
            }
            m_queue.push_back(i);
        }
        std::reverse(m_queue.begin(), m_queue.end());
        return {};
    }

    void notify(std::size_t i) const
    {
        if (m_event)
            m_event(m_report.cells[i]);
    }

    void notify(std::size_t i, std::size_t task) const
    {
        if (m_options.taskEvent)
            m_options.taskEvent(m_report.cells[i], m_report.cells[i].tasks[task]);
    }

    /// SHA-256 of a task's data, read once; empty: it is not there.
    const Result<std::string> &dataSum(std::size_t task)
    {
        m_dataSums.resize(m_spec.tasks.size());
        std::error_code ignored;
        if (!m_dataSums[task])
            m_dataSums[task] = fs::exists(m_spec.tasks[task].data, ignored) ? sha256File(m_spec.tasks[task].data, m_stop) : Result<std::string>(std::string());
        return *m_dataSums[task];
    }

    /// Queues what a finished run has still to be scored on. Data that is not there is no failure of the run.
    Result<void> planTasks(std::size_t i)
    {
        for (std::size_t t = 0; t < m_spec.tasks.size() && !m_stop.stop_requested(); ++t) {
            const TaskSpec &task = m_spec.tasks[t];
            TaskReport &report = m_report.cells[i].tasks[t];
            const TaskResult known = readTask(m_folder, m_cells[i], task);
            const Result<std::string> &sum = dataSum(t);
            if (known.done && sum && (sum->empty() || *sum == known.dataSha256)) {
                report.state = TaskState::done;
                report.skipped = true;
            } else if (!sum && sum.error().kind == ErrorKind::cancelled) {
                return {};
            } else if (!sum || sum->empty()) {
                report.state = sum ? TaskState::missing : TaskState::failed;
                report.error = sum ? fmt::format("the data of task {} is not here: {}", task.name, task.data) : sum.error().what;
                SPECTRA_CHECK(writeTaskStatus(m_folder, m_cells[i], task, "", {sum ? "missing" : "failed", 0, report.error, 0}));
            } else {
                m_tasks.emplace_back(i, t);
                continue;
            }
            notify(i, t);
        }
        return {};
    }

    Result<void> beginTask(std::size_t i, std::size_t t)
    {
        const CellResult trained = readResult(m_folder, m_cells[i]);
        const Json *causal = valueAt(trained.result, "causal");
        SPECTRA_TRY(ProcessOptions process, taskProcess(m_folder, m_cells[i], m_spec.tasks[t], causal == nullptr || *causal != false, m_options.threads));
        process.program = m_options.program;
        process.keepOpen = m_lock;
        const int slot = freeSlot();
        process.cores = coreSet(slot, m_options.jobs, m_options.threads);
        SPECTRA_TRY(auto child, ChildProcess::start(process));
        m_running.push_back({i, t, std::move(child), slot});
        m_report.cells[i].tasks[t].state = TaskState::running;
        notify(i, t);
        return {};
    }

    Result<void> endTask(Running &run, const ChildProcess::Exit &exit)
    {
        const std::size_t t = *run.task;
        TaskReport &report = m_report.cells[run.cell].tasks[t];
        report.seconds = run.process.seconds();
        SPECTRA_TRY(const TaskOutcome outcome, finishTask(m_folder, m_cells[run.cell], m_spec.tasks[t], *dataSum(t), exit, report.seconds, m_stopping));
        report.state = outcome.state == "done" ? TaskState::done : outcome.state == "stopped" ? TaskState::stopped : TaskState::failed;
        report.exit = exit.code;
        report.error = outcome.error;
        notify(run.cell, t);
        return {};
    }

    /// The first place that no running child has.
    [[nodiscard]] int freeSlot() const
    {
        for (int slot = 0;; ++slot)
            if (std::none_of(m_running.begin(), m_running.end(), [slot](const Running &r) { return r.slot == slot; }))
                return slot;
    }

    Result<void> writeStatus(std::size_t i) const
    {
        const CellReport &r = m_report.cells[i];
        Json json{{"state", name(r.state)}, {"config_sha256", m_cells[i].sha256}, {"seconds", r.seconds}};
        if (r.state == CellState::failed || r.state == CellState::stopped) {
            json["exit"] = r.exit;
            json["error"] = r.error;
        }
        return writeJson(statusFile(m_folder, m_cells[i]), json);
    }

    Result<void> begin(std::size_t i)
    {
        const Cell &cell = m_cells[i];
        const fs::path folder = cellFolder(m_folder, cell);
        {
            SPECTRA_TRY(auto file, AtomicFile::create(configFile(m_folder, cell), true));
            file.stream() << cell.text;
            SPECTRA_CHECK(file.commit());
        }
        m_report.cells[i].state = CellState::running;
        SPECTRA_CHECK(writeStatus(i));
        std::error_code ignored;
        // A run that was killed before its folder was whole has nothing to go on with.
        const bool begun = !m_begunAnew[i] && fs::exists(folder / "config.json", ignored) && fs::exists(folder / "manifest.json", ignored);
        if (!begun)
            fs::remove_all(folder, ignored);
        ProcessOptions process;
        process.program = m_options.program;
        process.arguments = m_options.arguments;
        for (const std::string &word : {configFile(m_folder, cell).string(), std::string("-o"), folder.string(), std::string("--threads"), std::to_string(m_options.threads), std::string("--quiet")})
            process.arguments.push_back(word);
        if (begun)
            process.arguments.emplace_back("--resume");
        process.errors = m_folder / "logs" / (cell.id + ".txt");
        process.append = begun;
        process.keepOpen = m_lock;
        const int slot = freeSlot();
        process.cores = coreSet(slot, m_options.jobs, m_options.threads);
        SPECTRA_TRY(auto child, ChildProcess::start(process));
        m_running.push_back({i, std::nullopt, std::move(child), slot});
        notify(i);
        return {};
    }

    Result<void> end(Running &run, const ChildProcess::Exit &exit)
    {
        CellReport &report = m_report.cells[run.cell];
        const Cell &cell = m_cells[run.cell];
        report.seconds = run.process.seconds();
        report.exit = exit.code;
        const CellResult result = readResult(m_folder, cell);
        if (exit.code == 0 && result.done) {
            report.state = CellState::done;
            report.heldOutLoss = result.number("held_out_loss");
        } else if (m_stopping && exit.code != 0) {
            report.state = CellState::stopped;
            report.error = "stopped on request";
        } else {
            report.state = CellState::failed;
            report.error = lastError(m_folder / "logs" / (cell.id + ".txt"));
            if (exit.code == 0)
                report.error = "ended without a result: " + result.reason;
            else if (exit.signal != 0)
                report.error = fmt::format("ended by signal {}{}{}", exit.signal, exit.signal == SIGKILL ? " (out of memory?)" : "", report.error.empty() ? "" : ": " + report.error);
        }
        const Result<void> written = writeStatus(run.cell);
        notify(run.cell);
        return written && report.state == CellState::done ? planTasks(run.cell) : written;
    }

    Result<void> loop()
    {
        using Clock = std::chrono::steady_clock;
        std::mutex mutex;
        std::condition_variable_any wake;
        Clock::time_point lastProgress{}, stopSince{};
        while (!m_queue.empty() || !m_tasks.empty() || !m_running.empty()) {
            if (m_stop.stop_requested() && !m_stopping) {
                m_stopping = true;
                m_report.stopped = true;
                m_queue.clear();
                m_tasks.clear();
                stopSince = Clock::now();
                for (const Running &run : m_running)
                    run.process.send(SIGINT);
            }
            while ((!m_queue.empty() || !m_tasks.empty()) && m_running.size() < static_cast<std::size_t>(std::max(m_options.jobs, 1))) {
                if (!m_tasks.empty()) { // a run is scored before the next begins: rows of the tables fill one by one
                    const auto [cell, task] = m_tasks.front();
                    m_tasks.pop_front();
                    SPECTRA_CHECK(beginTask(cell, task));
                    continue;
                }
                const std::size_t next = m_queue.back();
                m_queue.pop_back();
                SPECTRA_CHECK(begin(next));
            }
            for (std::size_t r = 0; r < m_running.size();) {
                const auto exit = m_running[r].process.poll();
                if (!exit) {
                    ++r;
                    continue;
                }
                Running run = std::move(m_running[r]);
                m_running.erase(m_running.begin() + static_cast<std::ptrdiff_t>(r));
                SPECTRA_CHECK(run.task ? endTask(run, *exit) : end(run, *exit));
            }
            if (m_stopping && std::chrono::duration<double>(Clock::now() - stopSince).count() > m_options.graceSeconds)
                for (const Running &run : m_running)
                    run.process.send(SIGKILL);
            if (m_progress && Clock::now() - lastProgress > std::chrono::seconds(1)) {
                lastProgress = Clock::now();
                tell();
            }
            std::unique_lock guard(mutex);
            const auto pause = std::chrono::duration<double>(m_options.pollSeconds);
            if (m_stopping)
                wake.wait_for(guard, pause, [] { return false; });
            else
                wake.wait_for(guard, m_stop, pause, [] { return false; });
        }
        return {};
    }

    /// Steps of all runs together: what the remaining time follows from.
    void tell()
    {
        Progress p;
        p.stage = "sweep";
        p.unit = "steps";
        for (std::size_t i = 0; i < m_cells.size(); ++i) {
            const auto steps = static_cast<std::int64_t>(numberAt(m_cells[i].config, "training.steps").value_or(1000));
            if (m_report.cells[i].skipped || m_report.cells[i].state == CellState::failed)
                continue;
            p.total += steps;
            if (m_report.cells[i].state == CellState::done)
                p.done += steps;
        }
        for (Running &run : m_running)
            if (!run.task)
                p.done += run.steps = std::max(run.steps, stepsOf(cellFolder(m_folder, m_cells[run.cell])));
        m_progress(p);
    }

    /// After an error of our own: children end as on a stop, what they keep is kept.
    void finishChildren()
    {
        for (const Running &run : m_running)
            run.process.send(SIGINT);
        const auto since = std::chrono::steady_clock::now();
        std::mutex mutex;
        std::condition_variable wake;
        for (Running &run : m_running)
            while (!run.process.poll() && std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count() < m_options.graceSeconds) {
                std::unique_lock guard(mutex);
                wake.wait_for(guard, std::chrono::duration<double>(m_options.pollSeconds), [] { return false; });
            }
        m_running.clear();
    }

    const StudySpec &m_spec;
    const std::vector<Cell> &m_cells;
    fs::path m_folder;
    const SweepOptions &m_options;
    const SweepEvent &m_event;
    const ProgressFunction &m_progress;
    std::stop_token m_stop;
    SweepReport m_report;
    std::vector<bool> m_begunAnew;
    std::vector<std::size_t> m_queue;
    std::deque<std::pair<std::size_t, std::size_t>> m_tasks; ///< cell, task
    std::vector<std::optional<Result<std::string>>> m_dataSums;
    std::vector<Running> m_running;
    int m_lock = -1;
    bool m_stopping = false;
};

} // namespace

std::size_t SweepReport::count(CellState state) const
{
    return static_cast<std::size_t>(std::count_if(cells.begin(), cells.end(), [&](const CellReport &r) { return r.state == state; }));
}

std::size_t SweepReport::countTasks(TaskState state) const
{
    std::size_t count = 0;
    for (const CellReport &cell : cells)
        count += static_cast<std::size_t>(std::count_if(cell.tasks.begin(), cell.tasks.end(), [&](const TaskReport &r) { return r.state == state; }));
    return count;
}

Result<SweepReport> runSweep(const StudySpec &spec, const std::vector<Cell> &cells, const fs::path &folder, const SweepOptions &options, const SweepEvent &event,
                             const ProgressFunction &progress, std::stop_token stop)
{
    return Sweep(spec, cells, fs::absolute(folder), options, event, progress, std::move(stop)).run();
}

} // namespace spectra::study
