// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/rollingscore.h"

#include <algorithm>
#include <limits>

namespace spectra {

std::vector<RollingWindow> rollingWindows(std::size_t tokens, std::size_t context)
{
    std::vector<RollingWindow> windows;
    for (std::size_t first = 0; context > 0 && first < tokens;) {
        const std::size_t last = std::min(tokens, first + context);
        windows.push_back({first == 0 ? -1 : static_cast<std::ptrdiff_t>(last - context) - 1, first, last});
        first = last;
    }
    return windows;
}

std::vector<TaskMetric> perplexityMetrics()
{
    return {{"token_perplexity", Aggregate::perplexity, false, "exp of −log p per token of the model's own tokenizer"},
            {"word_perplexity", Aggregate::perplexity, false, "exp of −log p per word: comparable between tokenizers"},
            {"byte_perplexity", Aggregate::perplexity, false, "exp of −log p per UTF-8 byte"},
            {"bits_per_byte", Aggregate::bits, false, "−log2 p per UTF-8 byte"}};
}

Result<Judgement> judgeRolling(const TaskItem &item, const TaskAnswer &answer, const TaskSettings &)
{
    double nll = 0;
    std::int64_t tokens = 0;
    for (const WindowScore &w : answer.windows) {
        nll -= w.logp;
        tokens += w.tokens;
    }
    Judgement judgement;
    judgement.right = std::numeric_limits<double>::quiet_NaN();
    const auto words = static_cast<double>(item.words), bytes = static_cast<double>(item.bytes);
    judgement.measures = {{"token_perplexity", nll, static_cast<double>(tokens)},
                          {"word_perplexity", nll, words},
                          {"byte_perplexity", nll, bytes},
                          {"bits_per_byte", nll, bytes}};
    return judgement;
}

} // namespace spectra
