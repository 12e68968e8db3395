// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/study/results.h"

#include <functional>
#include <stop_token>

namespace spectra::study {

enum class CellState { waiting, running, done, failed, stopped };
enum class TaskState { waiting, running, done, missing, failed, stopped };

struct TaskReport {
    std::size_t task = 0;            ///< index in the specification
    TaskState state = TaskState::waiting;
    bool skipped = false;            ///< was done before
    int exit = 0;
    std::string error;               ///< of the evaluation, in its own words; missing: which data
    double seconds = 0;
};
struct CellReport;

/// How the runs of a study are done. A run is `PROGRAM ARGUMENTS… CONFIG -o FOLDER --threads N [--resume]`: with --resume
/// where FOLDER holds a run that was begun (config.json and manifest.json are there), else into no folder. When it has ended well and the study has tasks,
/// `PROGRAM eval FOLDER/final --task … --json -o …` scores it, one process for each task that has no score on the same data yet.
struct SweepOptions {
    std::filesystem::path program;   ///< this program itself; tests put a script here
    std::vector<std::string> arguments = {"train"};
    int jobs = 1;                    ///< runs at a time
    int threads = 1;                 ///< of each
    bool resume = false;             ///< go on in a folder that is there
    bool overwrite = false;          ///< begin anew in one; with resume: only runs whose configuration changed
    double graceSeconds = 120;       ///< a child that does not end this long after SIGINT is killed
    double pollSeconds = 0.05;
    std::function<void(const CellReport &, const TaskReport &)> taskEvent; ///< as SweepEvent, of a run's task
};

struct CellReport {
    std::size_t cell = 0;            ///< index
    CellState state = CellState::waiting;
    bool skipped = false;            ///< was done before
    int exit = 0;
    std::string error;               ///< of the run, in its own words
    double seconds = 0;
    std::optional<double> heldOutLoss;
    std::vector<TaskReport> tasks;   ///< parallel to the specification's
};

struct SweepReport {
    std::vector<CellReport> cells;
    bool stopped = false;            ///< on request

    [[nodiscard]] std::size_t count(CellState state) const;
    [[nodiscard]] std::size_t countTasks(TaskState state) const;
};

/// Called when a run begins, ends or is skipped.
using SweepEvent = std::function<void(const CellReport &)>;

/// Runs what is not done, `jobs` at a time, each as a process of its own; a run or a task that fails is recorded and the rest goes on.
/// On a stop the children get SIGINT and are waited for. Whatever happens to this process, the folder stays one that
/// `resume` goes on with; two sweeps never work in one folder. Errors: work (the folder exists without resume or overwrite, is in
/// use, cannot be written), usage (resume with runs of another configuration). A stop is no error: `stopped` says it.
[[nodiscard]] Result<SweepReport> runSweep(const StudySpec &spec, const std::vector<Cell> &cells, const std::filesystem::path &folder,
                                           const SweepOptions &options, const SweepEvent &event, const ProgressFunction &progress, std::stop_token stop);

/// What a run will take, as `PROGRAM ARGUMENTS… CONFIG --dry-run --json` says it.
struct Estimate {
    std::size_t cell = 0;            ///< the first of those with this configuration, seeds apart
    std::size_t runs = 0;
    std::optional<double> memoryBytes, diskBytes, seconds; ///< of one run
    std::optional<Error> refused;
    std::string note;                ///< what is missing: texts that are not there yet
};
/// One estimate per distinct configuration. Errors: work, cancelled. `scratch` is a folder for files of the moment.
[[nodiscard]] Result<std::vector<Estimate>> estimateSweep(const std::vector<Cell> &cells, const std::filesystem::path &scratch, const SweepOptions &options,
                                                          const ProgressFunction &progress, std::stop_token stop);
/// Errors (input): a configuration that was refused, or what `jobs` runs need together and the machine does not have.
[[nodiscard]] Result<void> checkEstimates(const std::vector<Cell> &cells, const std::vector<Estimate> &estimates, int jobs, std::uint64_t memory, std::uint64_t disk);

} // namespace spectra::study
