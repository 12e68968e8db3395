// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/grid.h"
#include "engine/study/process.h"

#include <filesystem>
#include <optional>

namespace spectra::study {

// Scores of the tasks of a study. Beside a finished run's files, in cells/ID/tasks:
//   NAME.json            what `spectra eval --json` said, NAME.jsonl its items
//   NAME.status.json     {"state": "done" | "failed" | "missing", the settings, the data's SHA-256, "exit", "error", "seconds"}

[[nodiscard]] std::filesystem::path taskFile(const std::filesystem::path &study, const Cell &cell, const TaskSpec &task);

/// A task of a run as far as it came.
struct TaskResult {
    bool done = false;
    std::string reason;              ///< why there is no score, for a person
    Json document = Json::object();
    std::string dataSha256;          ///< of the data file it was scored on
};
/// A score of other settings (task, shots, limit) is none.
[[nodiscard]] TaskResult readTask(const std::filesystem::path &study, const Cell &cell, const TaskSpec &task);

/// How a task came out, for its status file.
struct TaskOutcome {
    std::string state;               ///< done | failed | missing | stopped
    int exit = 0;
    std::string error;
    double seconds = 0;
};
/// Notes a task that was not run at all. Errors (work).
[[nodiscard]] Result<void> writeTaskStatus(const std::filesystem::path &study, const Cell &cell, const TaskSpec &task, const std::string &dataSha256, const TaskOutcome &outcome);

/// What an earlier try left of this task goes, and the child that will do it is described: `PROGRAM eval CELL/final --task …`.
/// A model whose inference is not causal is scored all the same: its document says so. Errors (work).
[[nodiscard]] Result<ProcessOptions> taskProcess(const std::filesystem::path &study, const Cell &cell, const TaskSpec &task, bool causal, int threads);

/// Keeps the document of a child that ended well, else says why there is none. `stopping`: we asked it to stop.
/// Errors (work): the folder cannot be written.
[[nodiscard]] Result<TaskOutcome> finishTask(const std::filesystem::path &study, const Cell &cell, const TaskSpec &task, const std::string &dataSha256,
                                             const ChildProcess::Exit &exit, double seconds, bool stopping);

} // namespace spectra::study
