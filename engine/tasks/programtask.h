// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/task.h"

#include <functional>
#include <string>

namespace spectra {

/// Metrics pass@k for the k that are asked for.
[[nodiscard]] std::vector<TaskMetric> passMetrics(const std::vector<int> &ks);
/// Runs `whole(item, text)` of every sample in the sandbox. Errors: work (no sandbox), cancelled.
[[nodiscard]] Result<Judgement> judgePrograms(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings,
                                              const std::function<std::string(const TaskItem &, const std::string &)> &whole);

} // namespace spectra
