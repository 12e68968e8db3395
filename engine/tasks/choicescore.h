// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/task.h"

#include <vector>

namespace spectra {

/// acc; with `normalised` also acc_norm (by characters) and acc_bytes.
[[nodiscard]] std::vector<TaskMetric> choiceMetrics(bool normalised);

/// The choice of largest log-likelihood; of equal ones the first.
/// acc_norm divides by the choice's length in characters, acc_bytes by that in UTF-8 bytes, as lm-evaluation-harness does
/// (delimiter not counted). Measures of both are always made; a task's metrics say which count.
[[nodiscard]] Result<Judgement> judgeChoice(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings);

/// Fills the fields of a multiple-choice item whose continuations are the choices after one space.
void setChoices(TaskItem &item, std::vector<std::string> choices, std::size_t gold);

} // namespace spectra
