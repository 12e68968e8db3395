// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/run/job.h"
#include "engine/tasks/languagemodel.h"

#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// A loaded model as tasks see it. What the solved examples of a prompt left in the KV cache and the router's state is kept and cloned
/// for the next item that begins with the same tokens. Engine thread only.
class TaskLanguageModel : public LanguageModel {
public:
    /// `contextLength`: tokens that a window or prompt may have; 0: the model's own.
    TaskLanguageModel(LoadedModel &loaded, std::int64_t contextLength, std::stop_token stop);

    [[nodiscard]] Result<std::vector<ContinuationScore>> loglikelihood(const TaskPrompt &prompt, std::span<const std::string> continuations) override;
    [[nodiscard]] Result<std::vector<WindowScore>> rolling(const std::string &text) override;
    [[nodiscard]] Result<std::vector<std::string>> generate(const TaskPrompt &prompt, const GenerationOptions &options) override;
    [[nodiscard]] std::optional<RoutingSignature> takeSignature() override;

    [[nodiscard]] std::int64_t tokens() const { return m_tokens; }          ///< rows that went through the model
    [[nodiscard]] std::int64_t truncated() const { return m_truncated; }    ///< prompts cut at their start to fit the context

private:
    using Ids = std::vector<std::int32_t>;
    struct Piece {
        Ids ids;
        std::size_t scored = 0;  ///< the last `scored` ids are predicted
    };
    [[nodiscard]] Result<Ids> encode(const std::string &text, bool addSpecial) const;
    [[nodiscard]] Result<Piece> encodePair(const std::string &context, const std::string &continuation) const;
    [[nodiscard]] Result<std::int32_t> prefixToken() const;
    /// The state after the solved examples, when `ids` begin with their tokens; nullptr: nothing is shared.
    [[nodiscard]] Result<const SequenceState *> sharedState(const std::string &shared, const Ids &ids, std::size_t limit);
    [[nodiscard]] Result<torch::Tensor> run(const std::vector<SequenceInput> &sequences, bool lastOnly, bool counted);
    [[nodiscard]] Result<std::string> continueText(SequenceState &state, const torch::Tensor &lastHidden, const GenerationOptions &options, std::uint64_t seed);

    LoadedModel &m_loaded;
    Model &m_model;
    std::int64_t m_context;
    std::stop_token m_stop;
    bool m_pieces;                       ///< a prompt may go through the model in pieces: false for routers that look at whole sequences
    std::string m_sharedText;
    Ids m_sharedIds;
    std::optional<SequenceState> m_sharedState;
    RoutingSignature m_signature;
    std::int64_t m_tokens = 0, m_truncated = 0;
};

} // namespace spectra
