// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"
#include "views/tokentextview.h"

#include <memory>
#include <stop_token>
#include <vector>

namespace spectra {

/// One sequence of a trace as text: its tokens with the top expert and weight of every layer. At most `maxTokens` from
/// its beginning. Reads files: call it on a worker.
/// Errors: as TraceSource; usage when the trace has no such sequence.
struct SequenceText {
    std::int32_t sequence = 0;
    SequenceInfo info;
    std::vector<ShownToken> tokens;
    bool cut = false; ///< the sequence is longer
};
[[nodiscard]] Result<SequenceText> readSequenceText(const TraceSource &source, std::int32_t sequence, std::int64_t maxTokens,
                                                    std::stop_token stop);

} // namespace spectra
