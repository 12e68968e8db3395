// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/taskruns.h"

#include "engine/core/files.h"
#include "engine/study/results.h"

#include <fmt/format.h>

#include <csignal>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

fs::path place(const fs::path &study, const Cell &cell, const TaskSpec &task, const char *ending)
{
    return cellFolder(study, cell) / "tasks" / (task.name + ending);
}

/// What a child writes until it has ended well.
fs::path partFile(const fs::path &study, const Cell &cell, const TaskSpec &task)
{
    return place(study, cell, task, ".out");
}

fs::path logFile(const fs::path &study, const Cell &cell, const TaskSpec &task)
{
    return study / "logs" / fmt::format("{}.{}.txt", cell.id, task.name);
}

Result<void> writeJson(const fs::path &file, const Json &json)
{
    SPECTRA_TRY(auto out, AtomicFile::create(file, true));
    out.stream() << json.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    return out.commit();
}

Json settings(const TaskSpec &task)
{
    return {{"task", task.task}, {"shots", task.shots}, {"limit", task.limit}};
}

/// An object, empty when there is none.
Json readObject(const fs::path &file)
{
    std::error_code ignored;
    if (!fs::exists(file, ignored))
        return Json::object();
    auto json = readJson(file);
    return json && json->is_object() ? std::move(*json) : Json::object();
}

} // namespace

fs::path taskFile(const fs::path &study, const Cell &cell, const TaskSpec &task)
{
    return place(study, cell, task, ".json");
}

TaskResult readTask(const fs::path &study, const Cell &cell, const TaskSpec &task)
{
    TaskResult out;
    const Json status = readObject(place(study, cell, task, ".status.json"));
    const auto word = [&](const char *key) { return status.contains(key) && status[key].is_string() ? status[key].get<std::string>() : std::string(); };
    const std::string state = word("state"), error = word("error");
    if (state.empty()) {
        out.reason = fmt::format("task {} was not run", task.name);
    } else if (!status.contains("settings") || status["settings"] != settings(task)) {
        out.reason = fmt::format("task {} was scored with other settings", task.name);
    } else if (state == "done") {
        out.dataSha256 = word("data_sha256");
        auto document = readJson(taskFile(study, cell, task));
        out.done = document && document->is_object();
        if (out.done)
            out.document = std::move(*document);
        else
            out.reason = fmt::format("the result of task {} cannot be read", task.name);
    } else if (state == "failed") {
        out.reason = fmt::format("task {} failed (exit {}){}", task.name, status.contains("exit") ? status["exit"].dump() : "?", error.empty() ? "" : ": " + error);
    } else {
        out.reason = state == "missing" ? error : fmt::format("task {} was stopped before its end", task.name);
    }
    return out;
}

Result<void> writeTaskStatus(const fs::path &study, const Cell &cell, const TaskSpec &task, const std::string &dataSha256, const TaskOutcome &outcome)
{
    std::error_code error;
    const fs::path file = place(study, cell, task, ".status.json");
    fs::create_directories(file.parent_path(), error);
    if (error)
        return workError("cannot be written: " + error.message(), file.parent_path().string());
    Json json{{"state", outcome.state}, {"settings", settings(task)}, {"data", task.data}, {"data_sha256", dataSha256}, {"seconds", outcome.seconds}};
    if (outcome.state != "done") {
        json["exit"] = outcome.exit;
        json["error"] = outcome.error;
    }
    return writeJson(file, json);
}

Result<ProcessOptions> taskProcess(const fs::path &study, const Cell &cell, const TaskSpec &task, bool causal, int threads)
{
    std::error_code error;
    const fs::path document = taskFile(study, cell, task), items = place(study, cell, task, ".jsonl");
    fs::create_directories(document.parent_path(), error);
    if (error)
        return workError("cannot be written: " + error.message(), document.parent_path().string());
    for (const fs::path &old : {place(study, cell, task, ".status.json"), document, items, partFile(study, cell, task)})
        fs::remove(old, error);
    ProcessOptions process;
    process.arguments = {"eval", (cellFolder(study, cell) / "final").string(), "--task", task.task, "--data", task.data};
    if (task.shots >= 0)
        process.arguments.insert(process.arguments.end(), {"--shots", std::to_string(task.shots)});
    if (task.limit > 0)
        process.arguments.insert(process.arguments.end(), {"--limit", std::to_string(task.limit)});
    process.arguments.insert(process.arguments.end(), {"--json", "-o", items.string(), "--threads", std::to_string(threads), "--quiet"});
    if (!causal)
        process.arguments.emplace_back("--allow-noncausal");
    process.output = partFile(study, cell, task);
    process.errors = logFile(study, cell, task);
    return process;
}

Result<TaskOutcome> finishTask(const fs::path &study, const Cell &cell, const TaskSpec &task, const std::string &dataSha256, const ChildProcess::Exit &exit, double seconds,
                               bool stopping)
{
    TaskOutcome outcome{"done", exit.code, {}, seconds};
    const fs::path part = partFile(study, cell, task);
    if (exit.code == 0) {
        auto document = readJson(part);
        if (document && document->is_object() && document->contains("metrics"))
            SPECTRA_CHECK(writeJson(taskFile(study, cell, task), *document));
        else
            outcome = {"failed", 0, "ended without a result" + (document ? std::string() : ": " + document.error().what), seconds};
    } else if (stopping) {
        outcome.state = "stopped";
        outcome.error = "stopped on request";
    } else {
        outcome.state = "failed";
        outcome.error = lastError(logFile(study, cell, task));
        if (exit.signal != 0)
            outcome.error = fmt::format("ended by signal {}{}{}", exit.signal, exit.signal == SIGKILL ? " (out of memory?)" : "", outcome.error.empty() ? "" : ": " + outcome.error);
    }
    std::error_code ignored;
    fs::remove(part, ignored);
    // Last of all: a document without it does not count.
    SPECTRA_CHECK(writeTaskStatus(study, cell, task, dataSha256, outcome));
    return outcome;
}

} // namespace spectra::study
