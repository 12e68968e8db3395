// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

namespace spectra {

Task mmluTask()
{
    // Hendrycks et al. 2021, arXiv 2009.03300. The answer is a letter; examples come from the question's own subject.
    Task task = lineTask("mmlu", "MMLU: knowledge in 57 subjects", "question, choices (4), answer (0 to 3 or A to D), subject", 5, false,
                         [](const JsonLine &line) -> Result<TaskItem> {
                             TaskItem item;
                             SPECTRA_TRY(const std::string question, line.filledText({"question", "input"}));
                             SPECTRA_TRY(const auto choices, line.texts({"choices", "options"}));
                             if (choices.size() != 4)
                                 return line.error(fmt::format("has {} choices, MMLU has 4", choices.size()));
                             if (line.has("subject")) {
                                 SPECTRA_TRY(item.group, line.text({"subject"}));
                             }
                             SPECTRA_TRY(const std::size_t gold, choiceNumber(line, {"answer", "target"}, 4));
                             item.id = line.id({"id"});
                             if (!item.group.empty())
                                 item.description = "The following are multiple choice questions (with answers) about " + replaced(item.group, "_", " ") + ".\n\n";
                             item.context = fmt::format("{}\nA. {}\nB. {}\nC. {}\nD. {}\nAnswer:", stripped(question), choices[0], choices[1], choices[2], choices[3]);
                             setChoices(item, {"A", "B", "C", "D"}, gold);
                             return item;
                         });
    return task;
}

} // namespace spectra
