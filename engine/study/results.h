// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/grid.h"

#include <filesystem>
#include <map>
#include <memory>

namespace spectra::study {

// The folder of a study:
//   study.json           the specification as it was run
//   configs/ID.json      configuration of each run, cells/ID/ what `spectra train` wrote, logs/ID.txt what it said
//   status/ID.json       {"state": "running" | "done" | "failed" | "stopped", "exit", "error", "seconds", "config_sha256"}
//   cells/ID/tasks/      scores of the run (taskruns.h)
//   tables/, figures/    made from the above at any time

[[nodiscard]] std::filesystem::path configFile(const std::filesystem::path &study, const Cell &cell);
[[nodiscard]] std::filesystem::path cellFolder(const std::filesystem::path &study, const Cell &cell);
[[nodiscard]] std::filesystem::path statusFile(const std::filesystem::path &study, const Cell &cell);

/// A run as far as it came.
struct CellResult {
    bool done = false;
    std::string reason;              ///< why there is no result, for a person: "not run", "failed (exit 1): …"
    Json result = Json::object();    ///< result.json, with the documents of its tasks at "tasks.NAME"
    Json config = Json::object();    ///< config.json of the run with every default, else the cell's

    std::map<std::string, std::string> unscored = {}; ///< tasks without a score → why

    /// A number of the result, or of the configuration when the path begins with "config.".
    [[nodiscard]] std::optional<double> number(const std::string &path) const;
    /// Why there is no such number, for a person.
    [[nodiscard]] std::string absence(const std::string &path) const;
};

/// A study with all its results. Numbers come from the runs' files alone.
struct Study {
    std::filesystem::path folder;
    StudySpec spec;
    std::vector<Cell> cells;
    std::vector<CellResult> results; ///< parallel to cells

    /// Indices of the cells that `where` leaves, by label of `rows` in grid order, seeds ascending as declared.
    struct Row {
        std::string label;
        std::vector<std::size_t> cells;
    };
    [[nodiscard]] std::vector<Row> rows(const std::vector<std::string> &rows, const std::map<std::string, std::string> &where) const;
};

[[nodiscard]] bool isStudyFolder(const std::filesystem::path &folder);
/// Errors (input): no study.json, or one that this version cannot read. A damaged result is no error: its cell has a reason.
[[nodiscard]] Result<Study> openStudy(const std::filesystem::path &folder);
/// The result of one run. `study` is the folder of the study.
[[nodiscard]] CellResult readResult(const std::filesystem::path &study, const Cell &cell);

} // namespace spectra::study
