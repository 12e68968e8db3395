// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/programtask.h"

#include "engine/tasks/sandbox.h"
#include "engine/tasks/scores.h"

#include <fmt/format.h>

namespace spectra {

std::vector<TaskMetric> passMetrics(const std::vector<int> &ks)
{
    std::vector<TaskMetric> list;
    for (const int k : ks)
        list.push_back({fmt::format("pass@{}", k), Aggregate::proportion, true, fmt::format("one of {} programs passes (unbiased estimate, Chen et al. 2021)", k)});
    return list;
}

Result<Judgement> judgePrograms(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings,
                                const std::function<std::string(const TaskItem &, const std::string &)> &whole)
{
    if (answer.texts.empty())
        return bugError("an item has no generated text", item.id);
    SandboxLimits limits;
    limits.seconds = settings.programSeconds;
    int passed = 0;
    std::string verdicts;
    for (const std::string &text : answer.texts) {
        const std::string program = whole(item, text);
        // Code that cannot be handed over cannot pass either.
        const bool possible = program.find('\0') == std::string::npos && program.size() < (std::size_t(2) << 20);
        bool good = false;
        if (possible) {
            SPECTRA_TRY(const ProgramRun run, runPython(program, limits, settings.stop));
            good = run.passed;
            verdicts += run.passed ? "passed" : run.timedOut ? "timed out" : run.signal != 0 ? "killed" : "failed";
        } else {
            verdicts += "failed";
        }
        verdicts += ", ";
        passed += good ? 1 : 0;
    }
    const int n = static_cast<int>(answer.texts.size());
    Judgement judgement;
    for (const int k : settings.passK)
        if (k >= 1 && k <= n)
            judgement.measures.push_back({fmt::format("pass@{}", k), passAtK(n, passed, k), 1});
    judgement.right = static_cast<double>(passed) / n;
    verdicts.resize(verdicts.size() - 2);
    judgement.answer = verdicts;
    return judgement;
}

} // namespace spectra
