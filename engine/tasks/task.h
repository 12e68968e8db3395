// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/tasks/languagemodel.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// How an item is asked of a model.
enum class TaskKind {
    choice,   ///< log-likelihood of each continuation
    rolling,  ///< log-likelihood of a whole text
    generate, ///< text is generated and judged
};

/// One question of a task, ready to be asked. What a field means depends on the kind.
struct TaskItem {
    std::string id;
    std::string group;                       ///< items with solved examples in common (an MMLU subject); empty: all
    std::string description;                 ///< stands once before the solved examples
    std::string context;                     ///< the question
    std::string solution;                    ///< what follows `context` when this item is a solved example; empty: cannot be one
    std::vector<std::string> continuations;  ///< choice: what is scored after the context, delimiter included
    std::vector<std::string> choices;        ///< choice: the answers without delimiter, whose lengths normalise
    std::vector<std::size_t> gold;           ///< choice: right answers
    std::string text;                        ///< rolling: the text that is scored
    std::int64_t words = 0, bytes = 0;       ///< rolling: by which its log-likelihood is divided
    std::string reference;                   ///< generate: the right answer, or the program that judges
    std::map<std::string, std::string> extra; ///< what only one task needs
};

/// A number that an item adds to a metric: the metric is f(Σ value / Σ weight) over items.
struct Measure {
    std::string metric;
    double value = 0, weight = 1;
};

/// How a metric follows from its items, and how sure it is.
enum class Aggregate {
    proportion,    ///< mean of 0 and 1; Wilson score interval
    mean,          ///< mean of any numbers; bootstrap over items
    perplexity,    ///< exp(Σ value / Σ weight), value = −log p; bootstrap
    bits,          ///< Σ value / Σ weight / ln 2; bootstrap
};

struct TaskMetric {
    std::string name;
    Aggregate aggregate = Aggregate::proportion;
    bool higherIsBetter = true;
    std::string meaning;
};

/// The model's answer to an item.
struct TaskAnswer {
    std::vector<ContinuationScore> scores;   ///< choice
    std::vector<WindowScore> windows;        ///< rolling
    std::vector<std::string> texts;          ///< generate
};

/// What an answer was worth.
struct Judgement {
    std::vector<Measure> measures;
    std::string answer;                      ///< what counted as the answer, for the file of items
    double right = 0;                        ///< 1 right, 0 wrong (between: several samples); what --against compares; NaN: neither
};

/// Settings of a run that tasks may need.
struct TaskSettings {
    int shots = 0;
    std::vector<int> passK = {1};            ///< programs: k of pass@k
    double programSeconds = 10;              ///< programs: wall clock for one
    std::stop_token stop;
};

/// A file with a task's items, and where it lies (some layouts have a second file beside it).
struct TaskData {
    std::filesystem::path path;
    std::string content;
    /// A file beside the data, for layouts in two parts. Errors (input).
    std::function<Result<std::string>(const std::string &name)> beside;
};

/// A task family: one file each, one line in the registry.
struct Task {
    std::string name, title;
    std::string source;                      ///< where format and normalisation come from
    std::string layout;                      ///< keys of its JSON lines
    TaskKind kind = TaskKind::choice;
    int shots = 0;                           ///< default number of solved examples
    std::vector<TaskMetric> metrics;
    GenerationOptions generation = {};
    bool programs = false;                   ///< answers are programs, run in a sandbox
    /// Errors (input): every line is named.
    std::function<Result<std::vector<TaskItem>>(const TaskData &data)> read;
    /// Errors: work (no sandbox), cancelled.
    std::function<Result<Judgement>(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings)> judge;
};

/// All tasks, in the order in which they are listed.
[[nodiscard]] const std::vector<Task> &taskRegistry();
/// Errors (usage): unknown; the hint names those there are.
[[nodiscard]] Result<const Task *> findTask(std::string_view name);

// One per file task_NAME.cpp.
Task pplTask();
Task wikitextTask(const std::string &name);
Task lambadaTask();
Task choiceTask();
Task mmluTask();
Task hellaswagTask();
Task arcTask(const std::string &name);
Task piqaTask();
Task boolqTask();
Task pubmedqaTask();
Task scifactTask();
Task truthfulqaTask();
Task gsm8kTask();
Task mathTask();
Task humanevalTask();
Task mbppTask();

} // namespace spectra
