// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/choicescore.h"
#include "engine/tasks/jsonlines.h"
#include "engine/tasks/task.h"

#include <functional>
#include <string>

namespace spectra {

/// Reads every line of the data by `item`.
[[nodiscard]] inline Result<std::vector<TaskItem>> readLines(const TaskData &data, const std::function<Result<TaskItem>(const JsonLine &)> &item)
{
    std::vector<TaskItem> items;
    SPECTRA_CHECK(forEachLine(data.content, data.path.string(), [&](const JsonLine &line) -> Result<void> {
        SPECTRA_TRY(auto one, item(line));
        items.push_back(std::move(one));
        return {};
    }));
    return items;
}

/// A multiple-choice task whose items are single lines.
[[nodiscard]] inline Task lineTask(const std::string &name, const std::string &title, const std::string &layout, int shots, bool normalised,
                                   std::function<Result<TaskItem>(const JsonLine &)> item)
{
    Task task;
    task.name = name;
    task.title = title;
    task.source = "prompt and scores as lm-evaluation-harness 0.4.13";
    task.layout = layout;
    task.shots = shots;
    task.metrics = choiceMetrics(normalised);
    task.read = [item = std::move(item)](const TaskData &data) { return readLines(data, item); };
    task.judge = judgeChoice;
    return task;
}

/// An index among `count` choices: a number from `first`, or a letter from A. Errors (input).
[[nodiscard]] inline Result<std::size_t> choiceNumber(const JsonLine &line, std::initializer_list<const char *> keys, std::size_t count, std::int64_t first = 0)
{
    const nlohmann::json *value = line.find(keys);
    if (value != nullptr && value->is_string() && value->get_ref<const std::string &>().size() == 1) {
        const char letter = value->get_ref<const std::string &>()[0];
        if (letter >= 'A' && letter <= 'Z' && static_cast<std::size_t>(letter - 'A') < count)
            return static_cast<std::size_t>(letter - 'A');
    }
    if (value != nullptr && value->is_boolean() && count == 2)
        return static_cast<std::size_t>(value->get<bool>() ? 1 : 0);
    SPECTRA_TRY(const std::int64_t number, line.integer(keys));
    if (number < first || number - first >= static_cast<std::int64_t>(count))
        return line.error("the answer " + std::to_string(number) + " is none of the " + std::to_string(count) + " choices",
                          "test splits often come without answers (-1): use a split that has them");
    return static_cast<std::size_t>(number - first);
}

} // namespace spectra
