// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/task.h"

#include <cstddef>
#include <vector>

namespace spectra {

/// One pass over a part of a long text: tokens first … last − 1 are predicted, the pass sees tokens from `from` on; −1: the beginning-of-text
/// token and the text's first.
struct RollingWindow {
    std::ptrdiff_t from = -1;
    std::size_t first = 0, last = 0;
};
/// Windows that predict every token once, as lm-evaluation-harness parts a text (get_rolling_token_windows with one token of context):
/// each is as long as the context and begins with the token before its first; the last, which may predict fewer, has as many tokens before
/// them as the context holds.
[[nodiscard]] std::vector<RollingWindow> rollingWindows(std::size_t tokens, std::size_t context);

/// token_perplexity, word_perplexity, byte_perplexity, bits_per_byte.
[[nodiscard]] std::vector<TaskMetric> perplexityMetrics();
/// One text's −log p by tokens, and by the item's own numbers of words and bytes.
[[nodiscard]] Result<Judgement> judgeRolling(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &settings);

} // namespace spectra
