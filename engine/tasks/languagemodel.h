// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace spectra {

/// A prompt in two parts: solved examples that many items share, and what is the item's own. The text is `shared + own`;
/// a model may keep what it computed for `shared`.
struct TaskPrompt {
    std::string shared, own;
};

/// How likely a model holds a continuation.
struct ContinuationScore {
    double logp = 0;            ///< Σ log p of its tokens given the prompt, nats
    bool greedy = false;        ///< every token was the most likely one
    std::int64_t tokens = 0;
};

/// One window of a long text, each token predicted once.
struct WindowScore {
    double logp = 0;            ///< Σ log p, nats
    std::int64_t tokens = 0;
    std::size_t begin = 0, end = 0; ///< bytes of the text that its tokens cover
};

/// How continuations are drawn.
struct GenerationOptions {
    std::vector<std::string> stop;   ///< the text ends before the first of these
    int maxTokens = 256;
    double temperature = 0;          ///< 0: greedy
    double topP = 1;
    int samples = 1;
    std::uint64_t seed = 0;
};

/// Which experts came first over an item's own tokens (solved examples apart): counts [layer][expert], MoE layers in order. A compact
/// fingerprint by which two runs are compared.
struct RoutingSignature {
    std::vector<std::vector<std::int64_t>> top1;
};

/// A language model as tasks see it. Errors: input (a text without tokens, too long), cancelled, work.
class LanguageModel {
public:
    virtual ~LanguageModel() = default;
    /// One score per continuation. White space at the prompt's end counts to the continuation, as tokenizers join it to the word.
    [[nodiscard]] virtual Result<std::vector<ContinuationScore>> loglikelihood(const TaskPrompt &prompt,
                                                                               std::span<const std::string> continuations) = 0;
    /// The whole text, every token once, in the windows of rollingWindows() (rollingscore.h).
    [[nodiscard]] virtual Result<std::vector<WindowScore>> rolling(const std::string &text) = 0;
    /// `samples` continuations of the prompt, cut before the first stop text.
    [[nodiscard]] virtual Result<std::vector<std::string>> generate(const TaskPrompt &prompt, const GenerationOptions &options) = 0;
    /// Routing since the last call; nothing for a model without experts.
    [[nodiscard]] virtual std::optional<RoutingSignature> takeSignature() = 0;
};

} // namespace spectra
