// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"

namespace spectra {

Task boolqTask()
{
    // Clark et al. 2019, arXiv 1905.10044; "answer" in the original file, "label" in SuperGLUE.
    return lineTask("boolq", "BoolQ: yes or no by a passage", "passage, question, answer (true, false) or label (0, 1)", 0, false,
                    [](const JsonLine &line) -> Result<TaskItem> {
                        TaskItem item;
                        SPECTRA_TRY(const std::string passage, line.filledText({"passage"}));
                        SPECTRA_TRY(const std::string question, line.filledText({"question"}));
                        SPECTRA_TRY(const std::size_t gold, choiceNumber(line, {"answer", "label"}, 2));
                        item.id = line.id({"id", "idx"});
                        item.context = passage + "\nQuestion: " + question + "?\nAnswer:";
                        setChoices(item, {"no", "yes"}, gold);
                        return item;
                    });
}

} // namespace spectra
