// SPDX-License-Identifier: GPL-3.0-or-later
// The first byte chooses the task, the second the file's name (JSON lines, or running text for the tasks that take it); the rest is the
// data, up to a byte 1: behind it stands the file beside them (SciFact's corpus). What is read is asked and judged with made-up
// answers. Programs are not run.
#include "engine/tasks/fewshot.h"
#include "engine/tasks/flips.h"
#include "engine/tasks/mathanswer.h"
#include "engine/tasks/numbertext.h"
#include "engine/tasks/task.h"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

using namespace spectra;

namespace {

void answersIn(std::string_view text)
{
    if (const auto number = strictNumber(text); number && text.find(*number) == std::string_view::npos)
        std::abort(); // a number that is not in the text
    if (const auto number = flexibleNumber(text); number && text.find(*number) == std::string_view::npos)
        std::abort();
    static_cast<void>(comparableNumber(text));
    static_cast<void>(lastBoxed(text));
    if (const auto found = finalAnswer(text))
        static_cast<void>(normalizedMathAnswer(*found));
    if (sameMathAnswer(text, text) != !normalizedMathAnswer(text).empty())
        std::abort(); // an answer equals itself
}

TaskAnswer madeUp(const Task &task, const TaskItem &item, std::string_view text)
{
    TaskAnswer answer;
    switch (task.kind) {
    case TaskKind::choice:
        for (std::size_t i = 0; i < item.continuations.size(); ++i)
            answer.scores.push_back({-1.0 - static_cast<double>(i % 7), i % 2 == 0, 1});
        break;
    case TaskKind::rolling:
        answer.windows.push_back({-3, 2, 0, item.text.size()});
        break;
    case TaskKind::generate:
        answer.texts.emplace_back(text);
        break;
    }
    return answer;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    if (size < 2)
        return 0;
    const std::string_view whole(reinterpret_cast<const char *>(data) + 2, size - 2);
    const auto &tasks = taskRegistry();
    const std::size_t chosen = data[0] % (tasks.size() + 2);
    if (chosen == tasks.size()) {
        answersIn(whole);
        return 0;
    }
    if (chosen == tasks.size() + 1) {
        const auto run = readEarlierRun(whole, "items.jsonl", "choice");
        if (run.ok()) {
            const Comparison same = compareRuns(run->items, *run);
            if (!same.flips.empty() || same.onlyHere != 0 || same.onlyThere != 0)
                std::abort(); // a run differs from itself
        }
        return 0;
    }
    const Task &task = tasks[chosen];
    const std::size_t middle = whole.find('\1');
    TaskData file;
    file.path = data[1] % 2 == 0 ? "data.jsonl" : "data.txt";
    file.content = std::string(whole.substr(0, middle));
    file.beside = [&](const std::string &name) -> Result<std::string> {
        if (middle == std::string_view::npos)
            return inputError("is not there", name);
        return std::string(whole.substr(middle + 1));
    };
    const auto items = task.read(file);
    if (!items) {
        const std::string &where = items.error().where;
        if (items.error().kind != ErrorKind::input || (where.find("data.") == std::string::npos && where.find("corpus.jsonl") == std::string::npos))
            std::abort(); // every error names the file
        return 0;
    }
    FewShot shots(*items, 2, 7, data[1] % 4 >= 2);
    for (std::size_t i = 0; i < items->size() && i < 16; ++i) {
        const TaskItem &item = (*items)[i];
        static_cast<void>(shots.before(item));
        if (task.kind == TaskKind::choice && (item.continuations.empty() || item.continuations.size() != item.choices.size() || item.gold.empty()))
            std::abort();
        for (const std::size_t gold : item.gold)
            if (gold >= item.choices.size())
                std::abort();
        if (task.programs)
            continue;
        const auto judged = task.judge(item, madeUp(task, item, file.content), {});
        if (!judged.ok())
            std::abort();
        for (const Measure &m : judged->measures)
            if (!std::isfinite(m.value) || !std::isfinite(m.weight))
                std::abort();
    }
    return 0;
}
