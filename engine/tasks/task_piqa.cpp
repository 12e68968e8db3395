// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"

namespace spectra {

Task piqaTask()
{
    // Bisk et al. 2020, arXiv 1911.11641.
    return lineTask("piqa", "PIQA: how things are done", "goal, sol1, sol2, label (0 or 1)", 0, true, [](const JsonLine &line) -> Result<TaskItem> {
        TaskItem item;
        SPECTRA_TRY(const std::string goal, line.filledText({"goal"}));
        SPECTRA_TRY(std::string first, line.filledText({"sol1"}));
        SPECTRA_TRY(std::string second, line.filledText({"sol2"}));
        if (!line.has("label"))
            return line.error("has no \"label\"", "the published labels lie in a file of their own: join them to the lines as \"label\"");
        SPECTRA_TRY(const std::size_t gold, choiceNumber(line, {"label"}, 2));
        item.id = line.id({"id"});
        item.context = "Question: " + goal + "\nAnswer:";
        setChoices(item, {std::move(first), std::move(second)}, gold);
        return item;
    });
}

} // namespace spectra
