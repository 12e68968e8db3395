// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/tasks/scores.h"
#include "engine/tasks/task.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

struct EvaluationOptions {
    int shots = 0;
    bool shotsInOrder = false;
    std::uint64_t seed = 0;
    GenerationOptions generation;      ///< as the task says, or as a person asked
    TaskSettings settings;
    ProgressFunction progress = {};
    std::stop_token stop = {};
};

/// One item with what the model answered.
struct ItemResult {
    TaskAnswer answer;
    Judgement judgement;
    std::optional<RoutingSignature> routing;
};

struct Evaluation {
    std::int64_t items = 0;
    std::vector<MetricValue> metrics;
    std::string resampled;             ///< what bootstrap intervals resample: "items" or "windows"
};

/// Asks a model all items and scores them. `pool`: where solved examples come from (may be `items` itself). `onItem` gets every item as
/// soon as it is done, in order. Below 8 texts a perplexity's interval resamples their windows instead (there are too few of them to
/// say anything, although windows of one text are not independent).
/// Errors: input (no items, too few solved examples), what the model and `onItem` return, cancelled.
[[nodiscard]] Result<Evaluation> evaluate(const Task &task, const std::vector<TaskItem> &items, const std::vector<TaskItem> &pool, LanguageModel &model,
                                          const EvaluationOptions &options,
                                          const std::function<Result<void>(std::size_t index, const ItemResult &)> &onItem = {});

/// One line of the file of items: JSON without line feed. Keys: task, id, right, answer, gold, metrics, then by kind loglikelihoods, greedy,
/// loglikelihood, tokens, words and bytes, or texts; routing (top-1 counts [layer][expert]) where the model has experts.
[[nodiscard]] std::string itemLine(const Task &task, const TaskItem &item, const ItemResult &result);

} // namespace spectra
