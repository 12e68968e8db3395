// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicetask.h"
#include "engine/tasks/programtask.h"
#include "engine/tasks/tasktext.h"

namespace spectra {
namespace {

Result<TaskItem> item(const JsonLine &line)
{
    TaskItem item;
    SPECTRA_TRY(const std::string text, line.filledText({"text", "prompt"}));
    SPECTRA_TRY(const auto tests, line.texts({"test_list"}));
    if (tests.empty())
        return line.error("\"test_list\" is empty");
    std::string set;
    if (line.has("test_setup_code")) {
        SPECTRA_TRY(set, line.text({"test_setup_code"}));
    }
    if (line.has("test_imports")) {
        SPECTRA_TRY(const auto imports, line.texts({"test_imports"}));
        set += (set.empty() ? "" : "\n") + joined(imports, "\n");
    }
    // The prompt shows the first three tests, as published.
    item.context = "You are an expert Python programmer, and here is your task: " + text + " Your code should pass these tests:\n\n";
    for (std::size_t i = 0; i < 3; ++i)
        item.context += (i < tests.size() ? tests[i] : "") + "\n";
    item.context += "[BEGIN]\n";
    item.reference = (set.empty() ? "" : set + "\n") + joined(tests, "\n");
    item.id = line.id({"task_id", "id"});
    if (line.has("code")) {
        SPECTRA_TRY(const std::string code, line.text({"code"}));
        item.solution = code + "\n[DONE]";
    }
    return item;
}

} // namespace

Task mbppTask()
{
    // Austin et al. 2021, arXiv 2108.07732: three solved examples by default.
    Task task = lineTask("mbpp", "MBPP: small Python programs", "task_id, text (or prompt), code, test_list, test_setup_code", 3, false, item);
    task.kind = TaskKind::generate;
    task.programs = true;
    task.generation.stop = {"[DONE]"};
    task.generation.maxTokens = 256;
    task.metrics = passMetrics({1});
    task.judge = [](const TaskItem &i, const TaskAnswer &answer, const TaskSettings &settings) {
        return judgePrograms(i, answer, settings, [](const TaskItem &one, const std::string &text) { return text + "\n" + one.reference; });
    };
    return task;
}

} // namespace spectra
