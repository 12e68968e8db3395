// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/task.h"

#include <vector>

namespace spectra {

/// token_perplexity, word_perplexity, byte_perplexity, bits_per_byte.
[[nodiscard]] std::vector<TaskMetric> perplexityMetrics();
/// One text's −log p by tokens, and by the item's own numbers of words and bytes.
[[nodiscard]] Result<Judgement> judgeRolling(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings);

} // namespace spectra
