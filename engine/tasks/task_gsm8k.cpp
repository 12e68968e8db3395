// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/numbertext.h"
#include "engine/tasks/tasktext.h"

namespace spectra {
namespace {

constexpr const char *kInvalid = "[invalid]";

Result<Judgement> judge(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &)
{
    if (answer.texts.empty())
        return bugError("an item has no generated text", item.id);
    const std::string gold = comparableNumber(item.reference);
    const auto matches = [&](const std::optional<std::string> &found) { return comparableNumber(stripped(found.value_or(kInvalid))) == gold ? 1.0 : 0.0; };
    const auto strict = strictNumber(answer.texts[0]), flexible = flexibleNumber(answer.texts[0]);
    Judgement judgement;
    judgement.measures = {{"exact_match", matches(strict), 1}, {"exact_match_flexible", matches(flexible), 1}};
    judgement.right = judgement.measures[1].value; // what a person would read as the answer
    judgement.answer = flexible.value_or("");
    return judgement;
}

} // namespace

Task gsm8kTask()
{
    // Cobbe et al. 2021, arXiv 2110.14168.
    Task task = lineTask("gsm8k", "GSM8K: grade-school word problems", "question, answer (ending in #### NUMBER)", 8, false,
                         [](const JsonLine &line) -> Result<TaskItem> {
                             TaskItem item;
                             SPECTRA_TRY(const std::string question, line.filledText({"question"}));
                             SPECTRA_TRY(item.reference, line.filledText({"answer"}));
                             if (!strictNumber(item.reference))
                                 return line.error("the answer does not end in '#### NUMBER'");
                             item.id = line.id({"id"});
                             item.context = "Question: " + question + "\nAnswer:";
                             item.solution = " " + item.reference;
                             return item;
                         });
    task.kind = TaskKind::generate;
    task.generation.stop = {"Question:", "</s>", "<|im_end|>"};
    task.generation.maxTokens = 256;
    task.metrics = {{"exact_match", Aggregate::proportion, true, "the number after #### is right"},
                    {"exact_match_flexible", Aggregate::proportion, true, "the last number of the answer is right"}};
    task.judge = judge;
    return task;
}

} // namespace spectra
