// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/tasktext.h"

#include <algorithm>

namespace spectra {

Task pubmedqaTask()
{
    // Jin et al. 2019, arXiv 1909.06146. Layouts: the hub's {context: {contexts}}, the source's {CONTEXTS, QUESTION}, flat {contexts}.
    return lineTask("pubmedqa", "PubMedQA: yes, no or maybe by an abstract", "question, context {contexts} or contexts, final_decision or answer", 0, false,
                    [](const JsonLine &line) -> Result<TaskItem> {
                        TaskItem item;
                        SPECTRA_TRY(const std::string question, line.filledText({"question", "QUESTION"}));
                        std::vector<std::string> contexts;
                        if (const nlohmann::json *context = line.find({"context"}); context != nullptr && context->is_object()) {
                            SPECTRA_TRY(contexts, JsonLine(*context, line.where() + ": context", line.number()).texts({"contexts"}));
                        } else {
                            SPECTRA_TRY(contexts, line.texts({"contexts", "CONTEXTS"}));
                        }
                        SPECTRA_TRY(const std::string answer, line.filledText({"final_decision", "answer"}));
                        const std::vector<std::string> choices = {"yes", "no", "maybe"};
                        const auto gold = std::find(choices.begin(), choices.end(), answer);
                        if (gold == choices.end())
                            return line.error("the decision '" + answer + "' is none of yes, no, maybe");
                        item.id = line.id({"pmid", "pubid", "id", "document_id"});
                        item.context = "Abstract: " + joined(contexts, "\n") + "\nQuestion: " + question + "\nAnswer:";
                        setChoices(item, choices, static_cast<std::size_t>(gold - choices.begin()));
                        return item;
                    });
}

} // namespace spectra
