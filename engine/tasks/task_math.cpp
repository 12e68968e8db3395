// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/mathanswer.h"

namespace spectra {
namespace {

Result<Judgement> judge(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &)
{
    if (answer.texts.empty())
        return bugError("an item has no generated text", item.id);
    const auto strict = finalAnswer(answer.texts[0]);
    const auto flexible = strict ? strict : lastBoxed(answer.texts[0]);
    Judgement judgement;
    const auto matches = [&](const std::optional<std::string> &found) { return found && sameMathAnswer(*found, item.reference) ? 1.0 : 0.0; };
    judgement.measures = {{"exact_match", matches(strict), 1}, {"exact_match_flexible", matches(flexible), 1}};
    judgement.right = judgement.measures[1].value;
    judgement.answer = flexible.value_or("");
    return judgement;
}

} // namespace

Task mathTask()
{
    // Hendrycks et al. 2021, arXiv 2103.03874; prompt and answer of Minerva (Lewkowycz et al. 2022, arXiv 2206.14858), whose examples
    // end in the sentence that is looked for. Theirs are four fixed ones; here they are drawn from the data and given that sentence.
    Task task = lineTask("math", "MATH: competition problems", "problem, solution (with \\boxed answer), level, type", 4, false,
                         [](const JsonLine &line) -> Result<TaskItem> {
                             TaskItem item;
                             SPECTRA_TRY(const std::string problem, line.filledText({"problem"}));
                             SPECTRA_TRY(const std::string solution, line.filledText({"solution"}));
                             const auto boxed = lastBoxed(solution);
                             if (!boxed)
                                 return line.error("the solution has no \\boxed{answer}");
                             item.reference = *boxed;
                             item.id = line.id({"id", "unique_id"});
                             item.context = "Problem:\n" + problem + "\n\nSolution:";
                             item.solution = " " + solution + "\nFinal Answer: The final answer is $" + *boxed + "$. I hope it is correct.";
                             return item;
                         });
    task.kind = TaskKind::generate;
    task.source = "prompt, extraction and normal form of minerva_math in lm-evaluation-harness 0.4.13, without its computer algebra";
    task.generation.stop = {"Problem:"};
    task.generation.maxTokens = 256;
    task.metrics = {{"exact_match", Aggregate::proportion, true, "the answer in the sentence of the examples is right"},
                    {"exact_match_flexible", Aggregate::proportion, true, "that, or the last \\boxed answer, is right"}};
    task.judge = judge;
    return task;
}

} // namespace spectra
