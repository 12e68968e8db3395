// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "engine/core/closestname.h"
#include "engine/core/files.h"
#include "engine/run/catalog.h"
#include "engine/run/prompts.h"
#include "engine/study/outputs.h"
#include "engine/study/runner.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <thread>
#include <unistd.h>

namespace spectra::cli {
namespace fs = std::filesystem;
namespace {

struct Flags {
    std::string spec, output, data;
    std::vector<std::string> set;
    int jobs = 1;
    bool resume = false, dryRun = false, tablesOnly = false, json = false;
};

/// A file, or the name of a study that comes with the program.
fs::path specFile(const std::string &given)
{
    std::error_code ignored;
    const fs::path bundled = resourceFolder() / "studies" / (given + ".json");
    return !fs::exists(given, ignored) && isPlainFileName(given) && fs::exists(bundled, ignored) ? bundled : fs::path(given);
}

Result<std::vector<study::Claim>> bundledClaims()
{
    const fs::path file = resourceFolder() / "studies" / "reference.json";
    std::error_code ignored;
    if (!fs::exists(file, ignored))
        return std::vector<study::Claim>{};
    return study::readClaims(file);
}

std::string duration(double seconds)
{
    return seconds >= 7200 ? fmt::format("{:.1f} h", seconds / 3600) : seconds >= 120 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.0f} s", seconds);
}

std::string size(const std::optional<double> &bytes)
{
    return !bytes ? "?" : *bytes >= 1e9 ? fmt::format("{:.1f} GB", *bytes / 1e9) : fmt::format("{:.0f} MB", *bytes / 1e6);
}

fs::path ownProgram()
{
    std::error_code ignored;
    return fs::read_symlink("/proc/self/exe", ignored);
}

study::SweepOptions optionsOf(const Common &common, const Flags &flags)
{
    study::SweepOptions options;
    options.program = ownProgram();
    options.jobs = flags.jobs;
    const int cores = common.threads > 0 ? common.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    options.threads = std::max(1, cores / flags.jobs);
    options.resume = flags.resume;
    options.overwrite = common.overwrite;
    return options;
}

/// Tables and figures fail here, before hours of training, if the specification names a row that is none.
Result<void> checkOutputs(const study::StudySpec &spec, const std::vector<study::Cell> &cells)
{
    study::Study empty;
    empty.spec = spec;
    empty.cells = cells;
    for (const study::Cell &cell : cells)
        empty.results.push_back({false, "not run", study::Json::object(), cell.config});
    for (const study::TableSpec &table : spec.tables)
        if (auto made = study::makeTable(empty, table); !made)
            return made.error();
    if (auto effects = study::factorialEffects(empty); !effects)
        return effects.error();
    return {};
}

/// A task that nobody knows fails here too.
Result<void> checkTasks(const study::StudySpec &spec)
{
    std::vector<std::string> names;
    for (const TaskEntry &task : taskCatalog())
        names.push_back(task.name);
    for (const study::TaskSpec &task : spec.tasks)
        if (std::find(names.begin(), names.end(), task.task) == names.end())
            return usageError(fmt::format("unknown task '{}'", task.task), "tasks", fmt::format("did you mean \"{}\"? `spectra eval --help` lists them", closestName(task.task, names)));
    return {};
}

std::string taskText(const study::TaskReport &report, const study::TaskSpec &task)
{
    switch (report.state) {
    case study::TaskState::running: return fmt::format("task {} begins", task.name);
    case study::TaskState::done: return fmt::format("task {} done{}", task.name, report.skipped ? " before" : fmt::format(" in {}", duration(report.seconds)));
    case study::TaskState::missing: return "no score: " + report.error;
    case study::TaskState::failed: return fmt::format("task {} failed (exit {}): {}", task.name, report.exit, report.error);
    case study::TaskState::stopped: return fmt::format("task {} stopped, --resume goes on", task.name);
    case study::TaskState::waiting: break;
    }
    return {};
}

const char *name(study::TaskState state)
{
    using study::TaskState;
    return state == TaskState::done ? "done" : state == TaskState::missing ? "missing" : state == TaskState::failed ? "failed" : "open";
}

Result<void> dryRun(const Common &common, const Flags &flags, const study::StudySpec &spec, const std::vector<study::Cell> &cells)
{
    const study::SweepOptions options = optionsOf(common, flags);
    const fs::path scratch = fs::temp_directory_path() / fmt::format("spectra-sweep-{}", ::getpid());
    std::error_code error;
    fs::create_directories(scratch, error);
    if (error)
        return workError("cannot be written: " + error.message(), scratch.string());
    InterruptGuard interrupt;
    auto estimates = study::estimateSweep(cells, scratch, options, progressPrinter(common), interrupt.token());
    fs::remove_all(scratch, error);
    if (!estimates)
        return estimates.error();
    double seconds = 0;
    bool timed = true;
    study::Json list = study::Json::array();
    std::string text = fmt::format("{}: {} runs, {} at a time with {} threads each\n", spec.title, cells.size(), options.jobs, options.threads);
    std::vector<std::string> axes;
    for (const study::Axis &axis : spec.axes)
        axes.push_back(axis.name);
    const auto json = [](const std::optional<double> &v) { return v ? study::Json(*v) : study::Json(nullptr); };
    for (const study::Estimate &e : *estimates) {
        const std::string label = cells[e.cell].label(spec, axes);
        timed = timed && e.seconds;
        seconds += e.seconds.value_or(0) * static_cast<double>(e.runs);
        text += e.refused ? fmt::format("  {:<40} refused: {}\n", label, e.refused->what)
                          : fmt::format("  {:<40} {} × memory {}, disk {}, {}{}\n", label, e.runs, size(e.memoryBytes), size(e.diskBytes), e.seconds ? duration(*e.seconds) : "?",
                                        e.note.empty() ? "" : "; " + e.note);
        study::Json entry{{"label", label}, {"runs", e.runs}, {"memory_bytes", json(e.memoryBytes)}, {"disk_bytes", json(e.diskBytes)}, {"seconds", json(e.seconds)}};
        if (e.refused)
            entry["refused"] = e.refused->what + ": " + e.refused->where;
        list.push_back(std::move(entry));
    }
    for (const study::TaskSpec &task : spec.tasks)
        if (!fs::exists(task.data, error))
            text += fmt::format("  task {}: {} is not here, there will be no score of it\n", task.name, task.data);
    fs::path place = fs::absolute(flags.output.empty() ? "." : flags.output);
    while (!fs::exists(place, error) && place.has_relative_path())
        place = place.parent_path();
    const auto space = fs::space(place, error);
    const auto checked = study::checkEstimates(cells, *estimates, options.jobs, availableMemory(), error ? UINT64_MAX : space.available);
    if (flags.json) {
        outJson({{"name", spec.name}, {"runs", cells.size()}, {"jobs", options.jobs}, {"threads", options.threads}, {"fits", checked.ok()},
                 {"seconds", timed ? study::Json(seconds / options.jobs) : study::Json(nullptr)}, {"configurations", list}});
    } else {
        if (timed)
            text += fmt::format("about {} in all\n", duration(seconds / options.jobs));
        out(text);
    }
    return checked;
}

Result<void> writeTables(const Common &common, const Flags &flags)
{
    if (flags.output.empty())
        return usageError("no folder for the study", "command line", "give -o DIR");
    SPECTRA_TRY(const study::Study study, study::openStudy(flags.output));
    SPECTRA_TRY(const auto claims, bundledClaims());
    SPECTRA_TRY(const auto outputs, study::makeOutputs(study, claims));
    SPECTRA_CHECK(study::writeOutputs(study, outputs, flags.output));
    note(common, fmt::format("wrote {}/table.csv, .tex, .json and {}/tables; `spectra report {}` draws the figures", flags.output, flags.output, flags.output));
    return {};
}

Result<void> sweep(const Common &common, const Flags &flags)
{
    if (flags.tablesOnly)
        return writeTables(common, flags);
    study::SpecOptions options;
    options.data = flags.data;
    options.settings = flags.set;
    SPECTRA_TRY(const study::StudySpec spec, study::readSpec(specFile(flags.spec), options));
    SPECTRA_TRY(const auto cells, study::makeCells(spec));
    SPECTRA_CHECK(checkOutputs(spec, cells));
    SPECTRA_CHECK(checkTasks(spec));
    if (flags.dryRun)
        return dryRun(common, flags, spec, cells);
    if (flags.output.empty())
        return usageError("no folder for the study", "command line", "give -o DIR");
    study::SweepReport report;
    {
        InterruptGuard interrupt;
        const auto event = [&](const study::CellReport &r) {
            const std::string head = fmt::format("[{}/{}] {}", r.cell + 1, cells.size(), cells[r.cell].id);
            const std::string loss = r.heldOutLoss ? fmt::format(", held-out loss {:.4f}", *r.heldOutLoss) : "";
            switch (r.state) {
            case study::CellState::running: note(common, head + ": begins"); break;
            case study::CellState::done: note(common, head + (r.skipped ? ": done before" : fmt::format(": done in {}", duration(r.seconds))) + loss); break;
            case study::CellState::failed: note(common, fmt::format("{}: failed (exit {}): {}", head, r.exit, r.error)); break;
            case study::CellState::stopped: note(common, head + ": stopped, --resume goes on"); break;
            case study::CellState::waiting: break;
            }
        };
        study::SweepOptions how = optionsOf(common, flags);
        how.taskEvent = [&](const study::CellReport &r, const study::TaskReport &task) {
            note(common, fmt::format("[{}/{}] {}: {}", r.cell + 1, cells.size(), cells[r.cell].id, taskText(task, spec.tasks[task.task])));
        };
        SPECTRA_TRY(report, study::runSweep(spec, cells, flags.output, how, event, progressPrinter(common), interrupt.token()));
    }
    SPECTRA_CHECK(writeTables(common, flags));
    const std::size_t done = report.count(study::CellState::done), failed = report.count(study::CellState::failed);
    const std::size_t tasksFailed = report.countTasks(study::TaskState::failed), tasksMissing = report.countTasks(study::TaskState::missing);
    if (flags.json) {
        study::Json runs = study::Json::array();
        for (const study::CellReport &r : report.cells) {
            runs.push_back({{"id", cells[r.cell].id}, {"done", r.state == study::CellState::done}, {"error", r.error.empty() ? study::Json(nullptr) : study::Json(r.error)}});
            for (const study::TaskReport &task : r.tasks)
                runs.back()["tasks"][spec.tasks[task.task].name] = {{"state", name(task.state)}, {"error", task.error.empty() ? study::Json(nullptr) : study::Json(task.error)}};
        }
        outJson({{"output", flags.output}, {"runs", cells.size()}, {"done", done}, {"failed", failed}, {"stopped", report.stopped}, {"cells", runs}});
    } else {
        out(fmt::format("{} of {} runs done, {} failed\n", done, cells.size(), failed));
        if (!spec.tasks.empty())
            out(fmt::format("{} task scores, {} failed, {} without their data\n", report.countTasks(study::TaskState::done), tasksFailed, tasksMissing));
    }
    if (report.stopped)
        return cancelledError("stopped on request: what is finished is kept, --resume goes on");
    if (failed > 0)
        return workError(fmt::format("{} of {} runs failed", failed, cells.size()), flags.output, fmt::format("see {}/logs; --resume tries them again", flags.output));
    if (tasksFailed > 0)
        return workError(fmt::format("{} tasks failed", tasksFailed), flags.output, fmt::format("see {}/logs; --resume tries them again", flags.output));
    return {};
}

} // namespace

Command sweepCommand()
{
    return {"sweep", "A study: a grid of training runs over routers, settings and seeds, with its tables", "spectra sweep table1 --data texts -o study --jobs 2",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("SPEC", flags->spec, "Specification (JSON), or the name of a bundled one: table1, table2_ablations, factorial …")->required();
                app.add_option("-o,--output", flags->output, "Folder of the study");
                app.add_option("--data", flags->data, "Folder that takes the place of $DATA in the specification")->check(CLI::ExistingDirectory);
                app.add_option("--set", flags->set, "Setting a.b=value of every run (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_option("--jobs", flags->jobs, "Runs at a time; the threads are shared among them")->check(CLI::Range(1, 1024))->capture_default_str();
                app.add_flag("--resume", flags->resume, "Go on: only what is not done is run");
                app.add_flag("--dry-run", flags->dryRun, "Only say what the runs need: memory, disk, time");
                app.add_flag("--tables", flags->tablesOnly, "Only make the tables anew from the runs in the folder");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return sweep(common, *flags); };
            }};
}

} // namespace spectra::cli
