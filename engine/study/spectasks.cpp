// SPDX-License-Identifier: GPL-3.0-or-later
// Files and tasks that a specification names.
#include "engine/study/spec.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra::study {
namespace fs = std::filesystem;
namespace {

/// It is part of files' names and of dotted paths.
bool isTaskName(const std::string &name)
{
    return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
    });
}

Result<TaskSpec> parseTask(const Json &json, const std::string &where, const SpecOptions &options)
{
    TaskSpec task;
    SPECTRA_TRY(const Fields f, Fields::of(json, where, {"name", "task", "title", "data", "shots", "limit"}));
    SPECTRA_CHECK(f.text("task", task.task, true));
    SPECTRA_CHECK(f.text("data", task.data, true));
    SPECTRA_TRY(task.data, placedFile(std::move(task.data), true, options, f.placeOf("data")));
    task.name = task.task;
    SPECTRA_CHECK(f.text("name", task.name));
    if (!isTaskName(task.name))
        return f.wrong(f.has("name") ? "name" : "task", "is not a plain name", "use letters, digits, _ and -");
    task.title = task.name;
    SPECTRA_CHECK(f.text("title", task.title));
    SPECTRA_CHECK(f.whole("shots", task.shots, 0, 1000));
    SPECTRA_CHECK(f.whole("limit", task.limit, 0, std::int64_t(1) << 40));
    return task;
}

} // namespace

Result<std::string> placedFile(std::string text, bool isFile, const SpecOptions &options, const std::string &where)
{
    if (text == "$DATA" || text.starts_with("$DATA/")) {
        if (options.data.empty() && options.keepData)
            return text;
        if (options.data.empty())
            return usageError("the study reads its texts from a folder of yours", where + ": " + text, "give --data DIR");
        return (fs::absolute(options.data) / fs::path(text.substr(std::min<std::size_t>(text.size(), 6)))).lexically_normal().string();
    }
    if (!text.empty() && fs::path(text).is_relative()) {
        const fs::path beside = fs::absolute(options.folder.empty() ? fs::path(".") : options.folder) / text;
        std::error_code ignored;
        if (isFile || fs::exists(beside, ignored))
            return beside.lexically_normal().string();
    }
    return text;
}

Result<std::vector<TaskSpec>> parseTasks(const Fields &fields, const SpecOptions &options)
{
    std::vector<TaskSpec> tasks;
    SPECTRA_TRY(const Json *list, fields.list("tasks"));
    for (std::size_t i = 0; list != nullptr && i < list->size(); ++i) {
        const std::string where = fmt::format("{}[{}]", fields.placeOf("tasks"), i);
        SPECTRA_TRY(TaskSpec task, parseTask((*list)[i], where, options));
        if (std::any_of(tasks.begin(), tasks.end(), [&](const TaskSpec &t) { return t.name == task.name; }))
            return usageError(fmt::format("a task \"{}\" stands twice", task.name), where, "give one of them a \"name\" of its own");
        tasks.push_back(std::move(task));
    }
    return tasks;
}

} // namespace spectra::study
