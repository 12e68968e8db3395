// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

namespace spectra {
namespace {

/// WikiHow's marks out: " [title]" ends a sentence, other bracketed words go, and double spaces that are left become one.
std::string cleaned(const std::string &text)
{
    const std::string titled = replaced(std::string(stripped(text)), " [title]", ". ");
    std::string out;
    for (std::size_t at = 0; at < titled.size();) {
        if (titled[at] == '[') {
            const std::size_t end = titled.find(']', at);
            // The pattern's dot does not cross a line feed.
            if (end != std::string::npos && titled.substr(at, end - at).find('\n') == std::string::npos) {
                at = end + 1;
                continue;
            }
        }
        out += titled[at++];
    }
    return replaced(out, "  ", " ");
}

} // namespace

Task hellaswagTask()
{
    // Zellers et al. 2019, arXiv 1905.07830.
    return lineTask("hellaswag", "HellaSwag: how a scene goes on", "activity_label, ctx_a, ctx_b, endings, label", 10, true,
                    [](const JsonLine &line) -> Result<TaskItem> {
                        TaskItem item;
                        SPECTRA_TRY(const std::string activity, line.text({"activity_label"}));
                        SPECTRA_TRY(const std::string first, line.text({"ctx_a"}));
                        SPECTRA_TRY(const std::string second, line.text({"ctx_b"}));
                        SPECTRA_TRY(auto endings, line.texts({"endings"}));
                        if (endings.size() < 2)
                            return line.error(fmt::format("has {} endings: there is nothing to choose", endings.size()));
                        SPECTRA_TRY(const std::size_t gold, choiceNumber(line, {"label"}, endings.size()));
                        for (std::string &ending : endings) {
                            ending = cleaned(ending);
                            if (ending.empty())
                                return line.error("an ending is empty");
                        }
                        item.id = line.id({"ind", "id"});
                        item.context = cleaned(activity + ": " + first + " " + capitalized(second));
                        setChoices(item, std::move(endings), gold);
                        return item;
                    });
}

} // namespace spectra
