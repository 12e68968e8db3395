// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicescore.h"
#include "engine/tasks/jsonlines.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra {
namespace {

/// The right choice: an index from 0, the text of a choice, or a letter from A.
Result<std::size_t> answerIndex(const JsonLine &line, const std::vector<std::string> &choices)
{
    const nlohmann::json *answer = line.find({"answer", "label", "gold"});
    if (answer == nullptr)
        return line.missing({"answer", "label", "gold"});
    if (answer->is_string()) {
        const auto &text = answer->get_ref<const std::string &>();
        if (const auto found = std::find(choices.begin(), choices.end(), text); found != choices.end())
            return static_cast<std::size_t>(found - choices.begin());
        if (text.size() == 1 && ((text[0] >= 'A' && text[0] <= 'Z') || (text[0] >= 'a' && text[0] <= 'z'))) {
            const auto letter = static_cast<std::size_t>((text[0] | 0x20) - 'a');
            if (letter < choices.size())
                return letter;
        }
    }
    const auto number = line.integer({"answer", "label", "gold"});
    if (!number || *number < 0 || *number >= static_cast<std::int64_t>(choices.size()))
        return line.error("the answer is none of the choices", fmt::format("an index from 0 to {}, a letter, or the text of a choice", choices.size() - 1));
    return static_cast<std::size_t>(*number);
}

Result<TaskItem> item(const JsonLine &line)
{
    TaskItem item;
    item.id = line.id({"id", "qid", "task_id"});
    SPECTRA_TRY(const auto choices, line.texts({"choices", "options"}));
    if (choices.size() < 2)
        return line.error(fmt::format("has {} choices: there is nothing to choose", choices.size()), "at least two in \"choices\"");
    if (std::any_of(choices.begin(), choices.end(), [](const std::string &c) { return c.empty(); }))
        return line.error("one of the choices is empty");
    SPECTRA_TRY(const std::size_t gold, answerIndex(line, choices));
    std::string context, question;
    if (line.has("context")) {
        SPECTRA_TRY(context, line.filledText({"context"}));
    }
    if (line.has("question")) {
        SPECTRA_TRY(question, line.filledText({"question"}));
    }
    if (context.empty() && question.empty())
        return line.missing({"question", "context"});
    // A context alone is continued as it stands.
    item.context = question.empty() ? context : (context.empty() ? "" : context + "\n") + "Question: " + question + "\nAnswer:";
    setChoices(item, choices, gold);
    return item;
}

} // namespace

Task choiceTask()
{
    Task task;
    task.name = "choice";
    task.title = "Multiple choice of your own";
    task.source = "scored as lm-evaluation-harness scores multiple choice";
    task.layout = "question and/or context, choices, answer (index, letter or text)";
    task.metrics = choiceMetrics(true);
    task.read = [](const TaskData &data) -> Result<std::vector<TaskItem>> {
        std::vector<TaskItem> items;
        SPECTRA_CHECK(forEachLine(data.content, data.path.string(), [&](const JsonLine &line) -> Result<void> {
            SPECTRA_TRY(auto one, item(line));
            items.push_back(std::move(one));
            return {};
        }));
        return items;
    };
    task.judge = judgeChoice;
    return task;
}

} // namespace spectra
