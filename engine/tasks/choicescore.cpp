// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/choicescore.h"

#include "engine/tasks/tasktext.h"

#include <algorithm>

namespace spectra {
namespace {

template <typename Length> std::size_t best(const TaskItem &item, const TaskAnswer &answer, Length length)
{
    std::size_t top = 0;
    double topScore = 0;
    for (std::size_t i = 0; i < answer.scores.size(); ++i) {
        const double score = answer.scores[i].logp / length(item.choices[i]);
        if (i == 0 || score > topScore) {
            top = i;
            topScore = score;
        }
    }
    return top;
}

bool isRight(const TaskItem &item, std::size_t choice)
{
    return std::find(item.gold.begin(), item.gold.end(), choice) != item.gold.end();
}

} // namespace

std::vector<TaskMetric> choiceMetrics(bool normalised)
{
    std::vector<TaskMetric> list = {{"acc", Aggregate::proportion, true, "the right choice has the largest log-likelihood"}};
    if (normalised) {
        list.push_back({"acc_norm", Aggregate::proportion, true, "the same with log-likelihoods divided by the choice's characters"});
        list.push_back({"acc_bytes", Aggregate::proportion, true, "the same with log-likelihoods divided by the choice's UTF-8 bytes"});
    }
    return list;
}

Result<Judgement> judgeChoice(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &)
{
    if (answer.scores.size() != item.choices.size() || item.choices.empty())
        return bugError("an item's scores do not fit its choices", item.id);
    const std::size_t plain = best(item, answer, [](const std::string &) { return 1.0; });
    const std::size_t byCharacters = best(item, answer, [](const std::string &c) { return static_cast<double>(codePoints(c)); });
    const std::size_t byBytes = best(item, answer, [](const std::string &c) { return static_cast<double>(c.size()); });
    Judgement judgement;
    const auto measure = [&](const char *name, std::size_t choice) { judgement.measures.push_back({name, isRight(item, choice) ? 1.0 : 0.0, 1}); };
    measure("acc", plain);
    measure("acc_norm", byCharacters);
    measure("acc_bytes", byBytes);
    judgement.right = judgement.measures.front().value;
    judgement.answer = item.choices[plain];
    return judgement;
}

void setChoices(TaskItem &item, std::vector<std::string> choices, std::size_t gold)
{
    item.choices = std::move(choices);
    item.continuations.clear();
    for (const std::string &choice : item.choices)
        item.continuations.push_back(" " + choice);
    item.gold = {gold};
    item.solution = item.continuations[gold];
}

} // namespace spectra
