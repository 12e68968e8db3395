// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"

namespace spectra {

Task lambadaTask()
{
    // Paperno et al. 2016, arXiv 1606.06031: the last word of a passage, parted from the rest by the last space.
    Task task = lineTask("lambada", "LAMBADA: the last word of a passage", "text", 0, false, [](const JsonLine &line) -> Result<TaskItem> {
        TaskItem item;
        SPECTRA_TRY(const std::string text, line.filledText({"text"}));
        const std::size_t space = text.rfind(' ');
        if (space == std::string::npos || space + 1 == text.size())
            return line.error("ends in no word of its own", "a passage whose last word follows a space");
        item.id = line.id({"id"});
        item.context = text.substr(0, space);
        item.choices = {text.substr(space + 1)};
        item.continuations = {text.substr(space)};
        item.gold = {0};
        item.solution = item.continuations.front();
        return item;
    });
    task.metrics = {{"acc", Aggregate::proportion, true, "every token of the word is the most likely one"},
                    {"perplexity", Aggregate::perplexity, false, "exp of −log p of the word, mean over items"}};
    task.judge = [](const TaskItem &item, const TaskAnswer &answer, const TaskSettings &) -> Result<Judgement> {
        if (answer.scores.size() != 1)
            return bugError("an item's scores do not fit its choices", item.id);
        Judgement judgement;
        judgement.right = answer.scores[0].greedy ? 1 : 0;
        judgement.answer = answer.scores[0].greedy ? item.choices[0] : std::string();
        judgement.measures = {{"acc", judgement.right, 1}, {"perplexity", -answer.scores[0].logp, 1}};
        return judgement;
    };
    return task;
}

} // namespace spectra
