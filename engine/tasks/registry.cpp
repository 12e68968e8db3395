// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/task.h"

#include <fmt/format.h>

namespace spectra {

const std::vector<Task> &taskRegistry()
{
    static const std::vector<Task> table = {
        pplTask(),
        wikitextTask("wikitext2"),
        wikitextTask("wikitext103"),
        lambadaTask(),
        choiceTask(),
        mmluTask(),
        hellaswagTask(),
        arcTask("arc_easy"),
        arcTask("arc_challenge"),
        piqaTask(),
        boolqTask(),
        pubmedqaTask(),
        scifactTask(),
        truthfulqaTask(),
        gsm8kTask(),
        mathTask(),
        humanevalTask(),
        mbppTask(),
    };
    return table;
}

Result<const Task *> findTask(std::string_view name)
{
    std::string all;
    for (const Task &task : taskRegistry()) {
        if (task.name == name)
            return &task;
        all += (all.empty() ? "" : ", ") + task.name;
    }
    return usageError(fmt::format("unknown task '{}'", name), "--task", "one of " + all);
}

} // namespace spectra
