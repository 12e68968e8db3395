// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/prompt/sequencereader.h"

#include <algorithm>

namespace spectra {

Result<SequenceText> readSequenceText(const TraceSource &source, std::int32_t sequence, std::int64_t maxTokens, std::stop_token stop)
{
    const auto info = source.info();
    SPECTRA_TRY(const auto sequences, source.sequences());
    if (sequence < 0 || static_cast<std::size_t>(sequence) >= sequences->size())
        return usageError("the trace has no such sequence", std::to_string(sequence));
    SequenceText text;
    text.sequence = sequence;
    text.info = (*sequences)[static_cast<std::size_t>(sequence)];
    const std::int64_t end = std::min(text.info.offset + text.info.length, info->tokens);
    const TokenRange range{text.info.offset, std::min(end, text.info.offset + maxTokens)};
    text.cut = range.last < end;
    if (range.size() <= 0)
        return text;
    SPECTRA_TRY(const auto tokens, source.tokens(range, stop));
    const auto layers = static_cast<std::size_t>(info->layers());
    text.tokens.resize(static_cast<std::size_t>(range.size()));
    for (std::size_t i = 0; i < text.tokens.size(); ++i) {
        ShownToken &token = text.tokens[i];
        token.text = i < tokens->text.size() ? QString::fromStdString(tokens->text[i]) : QString();
        token.row = range.first + static_cast<std::int64_t>(i);
        token.generated = i < tokens->phase.size() && tokens->phase[i] == 1;
        token.experts.assign(layers, kNoExpert);
        token.weights.assign(layers, 0);
    }
    for (std::size_t layer = 0; layer < layers; ++layer) {
        SPECTRA_TRY(const auto experts, source.block(Column::experts, static_cast<int>(layer), range, stop));
        std::shared_ptr<const Block> weights;
        if (info->has(Column::weights)) {
            SPECTRA_TRY(weights, source.block(Column::weights, static_cast<int>(layer), range, stop));
        }
        const auto slots = static_cast<std::size_t>(experts->width());
        for (std::size_t i = 0; i < text.tokens.size() && (i + 1) * slots <= experts->u16.size() && slots > 0; ++i) {
            text.tokens[i].experts[layer] = experts->u16[i * slots];
            if (weights && (i + 1) * slots <= weights->f32.size())
                text.tokens[i].weights[layer] = weights->f32[i * slots];
        }
    }
    return text;
}

} // namespace spectra
