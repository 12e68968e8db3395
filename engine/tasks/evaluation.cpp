// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/evaluation.h"

#include "engine/tasks/fewshot.h"
#include "engine/tasks/tasktext.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <map>

namespace spectra {
namespace {

constexpr std::size_t kEnoughTexts = 8;

Result<TaskAnswer> ask(const Task &task, const TaskItem &item, const TaskPrompt &prompt, LanguageModel &model, const EvaluationOptions &options)
{
    TaskAnswer answer;
    switch (task.kind) {
    case TaskKind::choice: {
        SPECTRA_TRY(answer.scores, model.loglikelihood(prompt, item.continuations));
        break;
    }
    case TaskKind::rolling: {
        SPECTRA_TRY(answer.windows, model.rolling(item.text));
        break;
    }
    case TaskKind::generate: {
        SPECTRA_TRY(answer.texts, model.generate(prompt, options.generation));
        break;
    }
    }
    return answer;
}

/// A text's windows as measures of their own. An item's words and bytes may be those of another form of the text (WikiText counts
/// before detokenisation): they are shared out over the windows.
std::vector<Measure> windowMeasures(const std::string &metric, const TaskItem &item, const TaskAnswer &answer)
{
    std::vector<double> counts;
    double all = 0;
    for (const WindowScore &w : answer.windows) {
        const std::string_view part = std::string_view(item.text).substr(std::min(w.begin, item.text.size()), w.end - w.begin);
        double count = 0;
        if (metric == "token_perplexity")
            count = static_cast<double>(w.tokens);
        else if (metric == "word_perplexity")
            count = static_cast<double>(wordCount(part));
        else
            count = static_cast<double>(part.size());
        counts.push_back(count);
        all += count;
    }
    const double whole = metric == "token_perplexity" ? all : static_cast<double>(metric == "word_perplexity" ? item.words : item.bytes);
    std::vector<Measure> list;
    for (std::size_t i = 0; i < counts.size(); ++i)
        list.push_back({metric, -answer.windows[i].logp, all > 0 ? counts[i] * whole / all : 0});
    return list;
}

} // namespace

Result<Evaluation> evaluate(const Task &task, const std::vector<TaskItem> &items, const std::vector<TaskItem> &pool, LanguageModel &model,
                            const EvaluationOptions &options, const std::function<Result<void>(std::size_t, const ItemResult &)> &onItem)
{
    if (items.empty())
        return inputError("there are no items", task.name);
    FewShot shots(pool, options.shots, options.seed, options.shotsInOrder);
    std::map<std::string, std::vector<Measure>> units;
    const bool byWindow = task.kind == TaskKind::rolling && items.size() < kEnoughTexts;
    const auto total = static_cast<std::int64_t>(items.size());
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (options.stop.stop_requested())
            return cancelledError();
        if (options.progress)
            options.progress({"evaluating " + task.name, static_cast<std::int64_t>(i), total, "items"});
        const TaskItem &item = items[i];
        ItemResult result;
        SPECTRA_TRY(std::string shared, shots.before(item));
        EvaluationOptions own = options;
        own.generation.seed = options.seed * 0x9E3779B97F4A7C15ull + i + 1;
        auto answer = ask(task, item, {std::move(shared), item.context}, model, own);
        if (!answer) {
            if (answer.error().kind == ErrorKind::input)
                answer.error().in("item " + item.id);
            return answer.error();
        }
        result.answer = std::move(*answer);
        result.routing = model.takeSignature();
        SPECTRA_TRY(result.judgement, task.judge(item, result.answer, options.settings));
        for (const Measure &m : result.judgement.measures) {
            std::vector<Measure> &list = units[m.metric];
            if (byWindow) {
                const auto windows = windowMeasures(m.metric, item, result.answer);
                list.insert(list.end(), windows.begin(), windows.end());
            } else {
                list.push_back(m);
            }
        }
        if (onItem)
            SPECTRA_CHECK(onItem(i, result));
    }
    if (options.progress)
        options.progress({"evaluating " + task.name, total, total, "items"});
    Evaluation evaluation;
    evaluation.items = total;
    evaluation.resampled = byWindow ? "windows" : "items";
    for (const TaskMetric &metric : task.metrics)
        if (const auto found = units.find(metric.name); found != units.end())
            evaluation.metrics.push_back(scoreMetric(metric, found->second, options.seed));
    return evaluation;
}

std::string itemLine(const Task &task, const TaskItem &item, const ItemResult &result)
{
    using nlohmann::ordered_json;
    const auto number = [](double v) { return std::isfinite(v) ? ordered_json(v) : ordered_json(nullptr); };
    ordered_json line = {{"task", task.name}, {"id", item.id}};
    if (!item.group.empty())
        line["group"] = item.group;
    line["right"] = number(result.judgement.right);
    if (task.kind != TaskKind::rolling)
        line["answer"] = result.judgement.answer;
    if (!item.gold.empty()) {
        ordered_json gold = ordered_json::array();
        for (const std::size_t g : item.gold)
            gold.push_back(g < item.choices.size() ? ordered_json(item.choices[g]) : ordered_json(g));
        line["gold"] = item.gold.size() == 1 ? gold.front() : gold;
    } else if (task.kind == TaskKind::generate && !task.programs) {
        line["gold"] = item.reference;
    }
    ordered_json metrics = ordered_json::object();
    for (const TaskMetric &metric : task.metrics)
        for (const Measure &m : result.judgement.measures)
            if (m.metric == metric.name)
                metrics[m.metric] = number(aggregateValue(metric.aggregate, m.value, m.weight));
    line["metrics"] = metrics;
    if (task.kind == TaskKind::choice) {
        ordered_json scores = ordered_json::array(), greedy = ordered_json::array();
        for (const ContinuationScore &s : result.answer.scores) {
            scores.push_back(number(s.logp));
            greedy.push_back(s.greedy);
        }
        line["loglikelihoods"] = scores;
        line["greedy"] = greedy;
    } else if (task.kind == TaskKind::rolling) {
        double logp = 0;
        std::int64_t tokens = 0;
        for (const WindowScore &w : result.answer.windows) {
            logp += w.logp;
            tokens += w.tokens;
        }
        line["loglikelihood"] = number(logp);
        line["tokens"] = tokens;
        line["words"] = item.words;
        line["bytes"] = item.bytes;
    } else {
        line["texts"] = result.answer.texts;
    }
    if (result.routing)
        line["routing"] = result.routing->top1;
    return line.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

} // namespace spectra
