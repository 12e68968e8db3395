// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/programtask.h"

namespace spectra {

Task humanevalTask()
{
    // Chen et al. 2021, arXiv 2107.03374.
    Task task = lineTask("humaneval", "HumanEval: functions by their description", "task_id, prompt, test, entry_point, canonical_solution", 0, false,
                         [](const JsonLine &line) -> Result<TaskItem> {
                             TaskItem item;
                             SPECTRA_TRY(item.context, line.filledText({"prompt"}));
                             SPECTRA_TRY(const std::string test, line.filledText({"test"}));
                             SPECTRA_TRY(const std::string entry, line.filledText({"entry_point"}));
                             item.id = line.id({"task_id", "id"});
                             item.reference = test + "\ncheck(" + entry + ")";
                             if (line.has("canonical_solution")) {
                                 SPECTRA_TRY(item.solution, line.text({"canonical_solution"}));
                             }
                             return item;
                         });
    task.kind = TaskKind::generate;
    task.programs = true;
    task.generation.stop = {"\nclass", "\ndef", "\n#", "\nif", "\nprint"};
    task.generation.maxTokens = 1024;
    task.metrics = passMetrics({1});
    task.judge = [](const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings) {
        return judgePrograms(item, answer, settings,
                             [](const TaskItem &i, const std::string &text) { return i.context + text + "\n" + i.reference; });
    };
    return task;
}

} // namespace spectra
