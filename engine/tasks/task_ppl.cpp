// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/jsonlines.h"
#include "engine/tasks/rollingscore.h"
#include "engine/tasks/tasktext.h"

namespace spectra {
namespace {

TaskItem itemOf(std::string id, std::string text)
{
    TaskItem item;
    item.id = std::move(id);
    item.words = wordCount(text);
    item.bytes = static_cast<std::int64_t>(text.size());
    item.text = std::move(text);
    return item;
}

} // namespace

Task pplTask()
{
    Task task;
    task.name = "ppl";
    task.title = "Perplexity of any text";
    task.source = "rolling log-likelihood in windows as lm-evaluation-harness 0.4.13; words are parted by white space";
    task.layout = "JSON lines with text, or any text file as one document";
    task.kind = TaskKind::rolling;
    task.metrics = perplexityMetrics();
    task.judge = judgeRolling;
    task.read = [](const TaskData &data) -> Result<std::vector<TaskItem>> {
        std::vector<TaskItem> items;
        if (data.path.extension() != ".jsonl") {
            if (stripped(data.content).empty())
                return inputError("holds no text", data.path.string());
            if (data.content.find('\0') != std::string::npos)
                return inputError("is binary (it holds a zero byte)", data.path.string(), "text in UTF-8, or JSON lines");
            items.push_back(itemOf("1", data.content));
            return items;
        }
        SPECTRA_CHECK(forEachLine(data.content, data.path.string(), [&](const JsonLine &line) -> Result<void> {
            SPECTRA_TRY(auto text, line.filledText({"text", "page", "content"}));
            items.push_back(itemOf(line.id({"id"}), std::move(text)));
            return {};
        }));
        return items;
    };
    return task;
}

} // namespace spectra
