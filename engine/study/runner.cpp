// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/runner.h"

#include "engine/core/files.h"
#include "engine/core/version.h"
#include "engine/study/process.h"

#include <fmt/format.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <fstream>
#include <map>
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

/// The last bytes of a file that grows.
std::string tail(const fs::path &file, std::streamoff bytes)
{
    std::ifstream stream(file, std::ios::binary);
    if (!stream)
        return {};
    stream.seekg(0, std::ios::end);
    const std::streamoff size = stream.tellg();
    stream.seekg(std::max<std::streamoff>(0, size - bytes));
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// What a run said of its failure: its last "error: …" line with the hint, else its last line.
std::string errorText(const fs::path &log)
{
    const std::string text = tail(log, 8192);
    std::string error, hint, last;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        const std::string line = text.substr(at, end - at);
        if (line.starts_with("error: ")) {
            error = line.substr(7);
            hint.clear();
        } else if (line.starts_with("hint: ")) {
            hint = line.substr(6);
        }
        if (!line.empty())
            last = line;
        at = end + 1;
    }
    const std::string said = error.empty() ? last : hint.empty() ? error : error + " (" + hint + ")";
    return printableUtf8(said.substr(0, 1000));
}

/// Steps done by the last line of log.jsonl that has them.
std::int64_t stepsOf(const fs::path &folder)
{
    const std::string text = tail(folder / "log.jsonl", 16384);
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
        SPECTRA_CHECK(clearFolder());
        SPECTRA_CHECK(plan());
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
        ChildProcess process;
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

    Result<void> clearFolder()
    {
        std::error_code error;
        if (m_options.overwrite && !m_options.resume)
            for (const char *part : {"study.json", "configs", "cells", "status", "logs", "tables", "figures"})
                fs::remove_all(m_folder / part, error);
        // First of all: it is what makes the folder one that `resume` takes.
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
        for (std::size_t i = 0; i < m_cells.size(); ++i) {
            if (m_report.cells[i].skipped) {
                notify(i);
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
        SPECTRA_TRY(auto child, ChildProcess::start(process));
        m_running.push_back({i, std::move(child)});
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
            report.error = errorText(m_folder / "logs" / (cell.id + ".txt"));
            if (exit.code == 0)
                report.error = "ended without a result: " + result.reason;
            else if (exit.signal != 0)
                report.error = fmt::format("ended by signal {}{}{}", exit.signal, exit.signal == SIGKILL ? " (out of memory?)" : "", report.error.empty() ? "" : ": " + report.error);
        }
        const Result<void> written = writeStatus(run.cell);
        notify(run.cell);
        return written;
    }

    Result<void> loop()
    {
        using Clock = std::chrono::steady_clock;
        std::mutex mutex;
        std::condition_variable_any wake;
        Clock::time_point lastProgress{}, stopSince{};
        while (!m_queue.empty() || !m_running.empty()) {
            if (m_stop.stop_requested() && !m_stopping) {
                m_stopping = true;
                m_report.stopped = true;
                m_queue.clear();
                stopSince = Clock::now();
                for (const Running &run : m_running)
                    run.process.send(SIGINT);
            }
            while (!m_queue.empty() && m_running.size() < static_cast<std::size_t>(std::max(m_options.jobs, 1))) {
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
                SPECTRA_CHECK(end(run, *exit));
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
    std::vector<Running> m_running;
    int m_lock = -1;
    bool m_stopping = false;
};

} // namespace

std::size_t SweepReport::count(CellState state) const
{
    return static_cast<std::size_t>(std::count_if(cells.begin(), cells.end(), [&](const CellReport &r) { return r.state == state; }));
}

Result<SweepReport> runSweep(const StudySpec &spec, const std::vector<Cell> &cells, const fs::path &folder, const SweepOptions &options, const SweepEvent &event,
                             const ProgressFunction &progress, std::stop_token stop)
{
    return Sweep(spec, cells, fs::absolute(folder), options, event, progress, std::move(stop)).run();
}

Result<std::vector<Estimate>> estimateSweep(const std::vector<Cell> &cells, const fs::path &scratch, const SweepOptions &options, const ProgressFunction &progress,
                                            std::stop_token stop)
{
    std::vector<Estimate> all;
    std::map<std::vector<std::size_t>, std::size_t> known;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        const auto [at, fresh] = known.emplace(cells[i].point, all.size());
        if (fresh) {
            Estimate estimate;
            estimate.cell = i;
            all.push_back(std::move(estimate));
        }
        ++all[at->second].runs;
    }
    for (std::size_t e = 0; e < all.size(); ++e) {
        Estimate &estimate = all[e];
        if (stop.stop_requested())
            return cancelledError();
        if (progress)
            progress({"estimating", static_cast<std::int64_t>(e), static_cast<std::int64_t>(all.size()), "configurations"});
        const Cell &cell = cells[estimate.cell];
        const fs::path config = scratch / (cell.id + ".json"), output = scratch / (cell.id + ".out"), errors = scratch / (cell.id + ".err");
        {
            SPECTRA_TRY(auto file, AtomicFile::create(config, true));
            file.stream() << cell.text;
            SPECTRA_CHECK(file.commit());
        }
        ProcessOptions process;
        process.program = options.program;
        process.arguments = options.arguments;
        for (const std::string &word : {config.string(), std::string("--dry-run"), std::string("--json"), std::string("--quiet"), std::string("--threads"), std::to_string(options.threads)})
            process.arguments.push_back(word);
        process.output = output;
        process.errors = errors;
        SPECTRA_TRY(auto child, ChildProcess::start(process));
        std::mutex mutex;
        std::condition_variable_any wake;
        std::optional<ChildProcess::Exit> exit;
        while (!(exit = child.poll())) {
            std::unique_lock guard(mutex);
            wake.wait_for(guard, stop, std::chrono::duration<double>(options.pollSeconds), [] { return false; });
            if (stop.stop_requested())
                return cancelledError(); // the child goes with its object
        }
        if (exit->code != 0) {
            Error error = exit->code == 2 ? usageError(errorText(errors), cell.id) : exit->code == 3 ? inputError(errorText(errors), cell.id) : workError(errorText(errors), cell.id);
            estimate.refused = std::move(error);
            continue;
        }
        if (const auto json = readJson(output); json) {
            estimate.memoryBytes = numberAt(*json, "memory.total");
            estimate.diskBytes = numberAt(*json, "disk.needed");
            estimate.seconds = numberAt(*json, "seconds");
            if (const Json *missing = valueAt(*json, "missing"); missing != nullptr && missing->is_array() && !missing->empty())
                estimate.note = fmt::format("{} file{} of it not here", missing->size(), missing->size() == 1 ? "" : "s");
        }
    }
    return all;
}

Result<void> checkEstimates(const std::vector<Cell> &cells, const std::vector<Estimate> &estimates, int jobs, std::uint64_t memory, std::uint64_t disk)
{
    std::vector<double> needs;
    double diskNeeded = 0;
    for (const Estimate &e : estimates) {
        if (e.refused)
            return *e.refused;
        for (std::size_t r = 0; r < e.runs && needs.size() < cells.size(); ++r)
            needs.push_back(e.memoryBytes.value_or(0));
        diskNeeded += e.diskBytes.value_or(0) * static_cast<double>(e.runs);
    }
    std::sort(needs.rbegin(), needs.rend());
    double memoryNeeded = 0;
    for (std::size_t i = 0; i < std::min(needs.size(), static_cast<std::size_t>(std::max(jobs, 1))); ++i)
        memoryNeeded += needs[i];
    constexpr double gib = 1024.0 * 1024 * 1024;
    if (memoryNeeded > static_cast<double>(memory))
        return inputError(fmt::format("{} at a time need {:.1f} GiB of memory, {:.1f} GiB are free", std::min<std::size_t>(needs.size(), static_cast<std::size_t>(std::max(jobs, 1))),
                                      memoryNeeded / gib, static_cast<double>(memory) / gib),
                          "memory", "use fewer --jobs or smaller models");
    if (diskNeeded > static_cast<double>(disk))
        return inputError(fmt::format("the runs need {:.1f} GiB of disk, {:.1f} GiB are free", diskNeeded / gib, static_cast<double>(disk) / gib), "disk",
                          "choose another folder, keep fewer checkpoints or traces");
    return {};
}

} // namespace spectra::study
