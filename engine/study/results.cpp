// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/results.h"

#include "engine/core/files.h"
#include "engine/study/taskruns.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra::study {
namespace fs = std::filesystem;

fs::path configFile(const fs::path &study, const Cell &cell)
{
    return study / "configs" / (cell.id + ".json");
}

fs::path cellFolder(const fs::path &study, const Cell &cell)
{
    return study / "cells" / cell.id;
}

fs::path statusFile(const fs::path &study, const Cell &cell)
{
    return study / "status" / (cell.id + ".json");
}

std::optional<double> CellResult::number(const std::string &path) const
{
    return path.starts_with("config.") ? numberAt(config, std::string_view(path).substr(7)) : numberAt(result, path);
}

std::string CellResult::absence(const std::string &path) const
{
    if (!done)
        return reason;
    if (path.starts_with("tasks."))
        if (const auto task = unscored.find(path.substr(6, path.find('.', 6) - 6)); task != unscored.end())
            return task->second;
    const Json *there = valueAt(path.starts_with("config.") ? config : result, path.starts_with("config.") ? std::string_view(path).substr(7) : path);
    return there != nullptr && there->is_null() ? "not defined in this run" : "not measured by this run";
}

std::vector<Study::Row> Study::rows(const std::vector<std::string> &axes, const std::map<std::string, std::string> &where) const
{
    std::vector<Row> all;
    for (std::size_t i = 0; i < cells.size(); ++i) {
        bool shown = true;
        for (std::size_t a = 0; a < spec.axes.size(); ++a)
            if (const auto fixed = where.find(spec.axes[a].name); fixed != where.end())
                shown = shown && spec.axes[a].values[cells[i].point[a]].label == fixed->second;
        if (!shown)
            continue;
        const std::string label = cells[i].label(spec, axes);
        auto row = std::find_if(all.begin(), all.end(), [&](const Row &r) { return r.label == label; });
        if (row == all.end())
            row = all.insert(all.end(), Row{label, {}});
        row->cells.push_back(i);
    }
    return all;
}

bool isStudyFolder(const fs::path &folder)
{
    std::error_code ignored;
    return fs::is_regular_file(folder / "study.json", ignored);
}

CellResult readResult(const fs::path &study, const Cell &cell)
{
    CellResult out;
    out.config = cell.config;
    const fs::path folder = cellFolder(study, cell);
    std::error_code ignored;
    Json status = Json::object();
    if (const fs::path file = statusFile(study, cell); fs::exists(file, ignored))
        if (auto read = readJson(file, 1 << 20); read && read->is_object())
            status = std::move(*read);
    const auto word = [&](const char *key) { return status.contains(key) && status[key].is_string() ? status[key].get<std::string>() : std::string(); };
    if (!fs::exists(folder / "result.json", ignored)) {
        const std::string state = word("state"), error = word("error");
        if (state == "failed")
            out.reason = fmt::format("failed (exit {}){}", status.contains("exit") ? status["exit"].dump() : "?", error.empty() ? "" : ": " + error);
        else
            out.reason = state == "stopped" ? "stopped before its end" : state.empty() ? "not run" : "not finished";
        return out;
    }
    auto result = readJson(folder / "result.json");
    if (!result || !result->is_object()) {
        out.reason = "result.json cannot be read: " + (result ? std::string("is not an object") : result.error().what);
        return out;
    }
    if (const std::string sha = word("config_sha256"); !sha.empty() && sha != cell.sha256) {
        out.reason = "its result is of another configuration";
        return out;
    }
    if (auto config = readJson(folder / "config.json"); config && config->is_object())
        out.config = std::move(*config);
    out.result = std::move(*result);
    out.done = true;
    return out;
}

Result<Study> openStudy(const fs::path &folder)
{
    Study study;
    study.folder = folder;
    if (!isStudyFolder(folder))
        return inputError("is not the folder of a study: it has no study.json", folder.string(), "give the folder that `spectra sweep -o` wrote");
    SPECTRA_TRY(const Json json, readJson(folder / "study.json"));
    if (!json.is_object() || !json.contains("spec"))
        return inputError("has no \"spec\"", (folder / "study.json").string());
    SpecOptions options;
    options.folder = folder;
    options.keepData = true;
    auto spec = parseSpec(json["spec"], (folder / "study.json").string(), options);
    if (!spec) {
        spec.error().kind = ErrorKind::input;
        return spec.error();
    }
    study.spec = std::move(*spec);
    auto cells = makeCells(study.spec);
    if (!cells) {
        cells.error().kind = ErrorKind::input;
        return cells.error();
    }
    study.cells = std::move(*cells);
    for (const Cell &cell : study.cells) {
        CellResult result = readResult(folder, cell);
        for (const TaskSpec &task : study.spec.tasks) {
            if (!result.done)
                break;
            if (TaskResult score = readTask(folder, cell, task); score.done)
                result.result["tasks"][task.name] = std::move(score.document);
            else
                result.unscored[task.name] = std::move(score.reason);
        }
        study.results.push_back(std::move(result));
    }
    return study;
}

} // namespace spectra::study
