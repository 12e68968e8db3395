// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/tasklanguagemodel.h"

#include "engine/model/sampler.h"
#include "engine/tasks/rollingscore.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace spectra {
namespace {

/// Bytes of white space at the end of a text, as Python's rstrip() would take them: only ASCII white space can be the end of a prompt
/// format, and only it is joined to the next word by tokenizers.
std::size_t trailingSpace(const std::string &text)
{
    const std::size_t last = text.find_last_not_of(" \t\n\v\f\r");
    return last == std::string::npos ? text.size() : text.size() - last - 1;
}

std::size_t commonPrefix(const std::vector<std::int32_t> &a, const std::vector<std::int32_t> &b)
{
    return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

} // namespace

TaskLanguageModel::TaskLanguageModel(LoadedModel &loaded, std::int64_t contextLength, std::stop_token stop)
    : m_loaded(loaded), m_model(*loaded.model), m_stop(std::move(stop))
{
    const std::int64_t own = m_model.config().context;
    m_context = contextLength > 0 ? contextLength : own > 0 ? own : 2048;
    const Router *router = m_model.router();
    m_pieces = router == nullptr || (router->needs().scope == RouterNeeds::Scope::token && m_model.causal());
}

Result<TaskLanguageModel::Ids> TaskLanguageModel::encode(const std::string &text, bool addSpecial) const
{
    SPECTRA_TRY(auto encoding, m_loaded.tokenizer->encode(text, {addSpecial, false, m_stop}));
    for (const std::int32_t id : encoding.ids)
        if (id < 0 || id >= m_model.config().vocabulary)
            return inputError(fmt::format("token id {} of the tokenizer is outside the model's vocabulary of {}", id, m_model.config().vocabulary));
    return std::move(encoding.ids);
}

Result<std::int32_t> TaskLanguageModel::prefixToken() const
{
    if (const auto bos = m_loaded.tokenizer->bos())
        return *bos;
    if (const auto eos = m_loaded.tokenizer->eos())
        return *eos;
    return inputError("the tokenizer has neither a beginning nor an end token: the first token of a text has nothing to follow", "tokenizer");
}

Result<TaskLanguageModel::Piece> TaskLanguageModel::encodePair(const std::string &context, const std::string &continuation) const
{
    Piece piece;
    if (context.empty()) {
        SPECTRA_TRY(auto ids, encode(continuation, false));
        SPECTRA_TRY(const std::int32_t prefix, prefixToken());
        if (ids.empty() || ids.front() != prefix)
            ids.insert(ids.begin(), prefix);
        piece.ids = std::move(ids);
        piece.scored = piece.ids.size() - 1;
    } else {
        // White space at the end of the prompt belongs to the continuation's first token.
        const std::string kept = context.substr(0, context.size() - trailingSpace(context));
        SPECTRA_TRY(piece.ids, encode(context + continuation, true));
        SPECTRA_TRY(const auto before, encode(kept, true));
        if (kept.empty() && before.empty()) {
            SPECTRA_TRY(const std::int32_t prefix, prefixToken());
            piece.ids.insert(piece.ids.begin(), prefix);
            piece.scored = piece.ids.size() - 1;
        } else {
            piece.scored = piece.ids.size() - std::min(before.size(), piece.ids.size());
        }
    }
    if (piece.scored == 0)
        return inputError("a choice adds no token to the prompt", fmt::format("'{}'", continuation));
    const auto room = static_cast<std::size_t>(m_context) + 1;
    if (piece.scored > static_cast<std::size_t>(m_context))
        return inputError(fmt::format("a choice of {} tokens does not fit the context of {}", piece.scored, m_context), {}, "a larger --seq-len");
    if (piece.ids.size() > room)
        piece.ids.erase(piece.ids.begin(), piece.ids.end() - static_cast<std::ptrdiff_t>(room));
    return piece;
}

Result<torch::Tensor> TaskLanguageModel::run(const std::vector<SequenceInput> &sequences, bool lastOnly, bool counted)
{
    PassInput input;
    input.sequences = sequences;
    input.lastOnly = lastOnly;
    PassHooks hooks;
    hooks.stop = m_stop;
    if (counted && m_model.router() != nullptr)
        hooks.onLayer = [this](const RoutingLayer &l) {
            auto &layers = m_signature.top1;
            if (layers.size() <= static_cast<std::size_t>(l.ordinal))
                layers.resize(static_cast<std::size_t>(l.ordinal) + 1);
            auto &counts = layers[static_cast<std::size_t>(l.ordinal)];
            counts.resize(static_cast<std::size_t>(m_model.config().experts), 0);
            if (!l.step.experts.defined() || l.step.experts.size(1) == 0)
                return;
            const torch::Tensor first = l.step.experts.select(1, 0).to(torch::kCPU, torch::kLong).contiguous();
            for (std::int64_t i = 0; i < first.numel(); ++i)
                if (const std::int64_t e = first.data_ptr<std::int64_t>()[i]; e >= 0 && e < m_model.config().experts)
                    ++counts[static_cast<std::size_t>(e)];
        };
    for (const SequenceInput &s : sequences)
        m_tokens += static_cast<std::int64_t>(s.tokens.size());
    return m_model.forward(input, hooks);
}

Result<const SequenceState *> TaskLanguageModel::sharedState(const std::string &shared, const Ids &ids, std::size_t limit)
{
    if (!m_pieces || shared.empty())
        return static_cast<const SequenceState *>(nullptr);
    if (!m_sharedState || m_sharedText != shared) {
        SPECTRA_TRY(auto tokens, encode(shared, true));
        if (!tokens.empty())
            tokens.pop_back(); // the last one may join with what follows
        m_sharedState.reset();
        m_sharedText = shared;
        m_sharedIds = std::move(tokens);
    }
    const bool begins = !m_sharedIds.empty() && m_sharedIds.size() <= limit && commonPrefix(m_sharedIds, ids) == m_sharedIds.size();
    if (!begins)
        return static_cast<const SequenceState *>(nullptr);
    if (!m_sharedState) {
        SequenceState state = m_model.newSequence(static_cast<std::int64_t>(m_sharedIds.size()));
        SPECTRA_TRY(const auto hidden, run({{m_sharedIds, {}, &state}}, true, false));
        static_cast<void>(hidden);
        m_sharedState = std::move(state);
    }
    return static_cast<const SequenceState *>(&*m_sharedState);
}

Result<std::vector<ContinuationScore>> TaskLanguageModel::loglikelihood(const TaskPrompt &prompt, std::span<const std::string> continuations)
{
    std::vector<Piece> pieces;
    const std::string context = prompt.shared + prompt.own;
    for (const std::string &continuation : continuations) {
        SPECTRA_TRY(auto piece, encodePair(context, continuation));
        if (static_cast<std::int64_t>(piece.ids.size()) == m_context + 1)
            ++m_truncated;
        pieces.push_back(std::move(piece));
    }
    // What all continuations have before them goes through the model once; the last token before the shortest is left to each.
    std::size_t together = std::numeric_limits<std::size_t>::max();
    for (const Piece &p : pieces)
        together = std::min({together, p.ids.size() - p.scored - 1, commonPrefix(p.ids, pieces.front().ids)});
    if (!m_pieces || pieces.empty())
        together = 0;
    // Continuations that differ in their last token only (letters) need one pass.
    std::vector<Ids> runs;
    std::vector<std::size_t> runOf;
    for (const Piece &p : pieces) {
        Ids input(p.ids.begin() + static_cast<std::ptrdiff_t>(together), p.ids.end() - 1);
        const auto found = std::find(runs.begin(), runs.end(), input);
        runOf.push_back(static_cast<std::size_t>(found - runs.begin()));
        if (found == runs.end())
            runs.push_back(std::move(input));
    }
    std::vector<SequenceState> states;
    if (together > 0) {
        const Ids first(pieces.front().ids.begin(), pieces.front().ids.begin() + static_cast<std::ptrdiff_t>(together));
        SPECTRA_TRY(const SequenceState *shared, sharedState(prompt.shared, first, together));
        SequenceState state = shared != nullptr ? shared->clone(static_cast<std::int64_t>(together) - shared->length())
                                                : m_model.newSequence(static_cast<std::int64_t>(together));
        if (state.length() < static_cast<std::int64_t>(together)) {
            const std::span<const std::int32_t> rest = std::span(first).subspan(static_cast<std::size_t>(state.length()));
            SPECTRA_TRY(const auto hidden, run({{rest, {}, &state}}, true, true));
            static_cast<void>(hidden);
        }
        for (std::size_t i = 0; i + 1 < runs.size(); ++i)
            states.push_back(state.clone(static_cast<std::int64_t>(runs[i].size())));
        states.push_back(std::move(state));
    }
    std::vector<SequenceInput> inputs;
    std::vector<std::int64_t> firstRow;
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < runs.size(); ++i) {
        inputs.push_back({runs[i], {}, together > 0 ? &states[i] : nullptr});
        firstRow.push_back(rows);
        rows += static_cast<std::int64_t>(runs[i].size());
    }
    SPECTRA_TRY(const torch::Tensor hidden, run(inputs, false, true));
    // One list of rows and targets for all continuations: the vocabulary's matrix is read once.
    std::vector<std::int64_t> wanted;
    std::vector<std::int32_t> targets;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
        const Piece &p = pieces[i];
        const auto end = static_cast<std::int64_t>(runs[runOf[i]].size());
        for (std::size_t k = 0; k < p.scored; ++k) {
            wanted.push_back(firstRow[runOf[i]] + end - static_cast<std::int64_t>(p.scored) + static_cast<std::int64_t>(k));
            targets.push_back(p.ids[p.ids.size() - p.scored + k]);
        }
    }
    const torch::Tensor index = torch::tensor(wanted, torch::kLong).to(hidden.device());
    SPECTRA_TRY(const TokenScores scores, m_model.score(hidden.index_select(0, index), targets, m_stop));
    std::vector<ContinuationScore> list;
    std::size_t at = 0;
    for (const Piece &p : pieces) {
        ContinuationScore score;
        score.tokens = static_cast<std::int64_t>(p.scored);
        score.greedy = true;
        for (std::size_t k = 0; k < p.scored; ++k, ++at) {
            score.logp -= static_cast<double>(scores.nll[at]);
            score.greedy = score.greedy && scores.top1[at] == targets[at];
        }
        list.push_back(score);
    }
    return list;
}

Result<std::vector<WindowScore>> TaskLanguageModel::rolling(const std::string &text)
{
    SPECTRA_TRY(const auto encoding, m_loaded.tokenizer->encode(text, {false, false, m_stop}));
    if (encoding.ids.empty())
        return inputError("has no tokens");
    SPECTRA_TRY(const std::int32_t prefix, prefixToken());
    const std::vector<std::int32_t> &ids = encoding.ids;
    std::vector<WindowScore> windows;
    for (const auto &[from, first, last] : rollingWindows(ids.size(), static_cast<std::size_t>(m_context))) {
        Ids input;
        if (from < 0)
            input.push_back(prefix);
        input.insert(input.end(), ids.begin() + std::max<std::ptrdiff_t>(from, 0), ids.begin() + static_cast<std::ptrdiff_t>(last) - 1);
        SPECTRA_TRY(const torch::Tensor hidden, run({{input, {}, nullptr}}, false, true));
        const auto predicted = static_cast<std::int64_t>(last - first);
        SPECTRA_TRY(const TokenScores scores, m_model.score(hidden.narrow(0, hidden.size(0) - predicted, predicted), std::span(ids).subspan(first, last - first), m_stop));
        WindowScore window;
        window.tokens = static_cast<std::int64_t>(last - first);
        for (const float nll : scores.nll)
            window.logp -= static_cast<double>(nll);
        window.begin = first == 0 ? 0 : static_cast<std::size_t>(encoding.byteOffsets[first]);
        window.end = last < ids.size() ? static_cast<std::size_t>(encoding.byteOffsets[last]) : text.size();
        windows.push_back(window);
    }
    return windows;
}

Result<std::string> TaskLanguageModel::continueText(SequenceState &state, const torch::Tensor &lastHidden, const GenerationOptions &options,
                                                    std::uint64_t seed)
{
    Sampler sampler({options.temperature, options.topP, 0, seed});
    StreamDecoder decoder(m_loaded.tokenizer, true);
    const std::vector<std::int32_t> ends = m_loaded.tokenizer->endIds();
    std::string text;
    const auto stopAt = [&] {
        std::size_t first = std::string::npos;
        for (const std::string &stop : options.stop)
            if (!stop.empty())
                first = std::min(first, text.find(stop));
        return first;
    };
    torch::Tensor hidden = lastHidden;
    for (int n = 0; n < options.maxTokens; ++n) {
        SPECTRA_TRY(const torch::Tensor logits, m_model.logits(hidden));
        const std::int32_t next = sampler.next({logits.data_ptr<float>(), static_cast<std::size_t>(logits.numel())});
        if (std::find(ends.begin(), ends.end(), next) != ends.end())
            break;
        text += decoder.push(next);
        if (stopAt() != std::string::npos)
            break;
        if (n + 1 == options.maxTokens)
            break;
        const Ids ids = {next};
        SPECTRA_TRY(hidden, run({{ids, {}, &state}}, true, true));
    }
    text += decoder.finish();
    if (const std::size_t stop = stopAt(); stop != std::string::npos)
        text.resize(stop);
    return text;
}

Result<std::vector<std::string>> TaskLanguageModel::generate(const TaskPrompt &prompt, const GenerationOptions &options)
{
    SPECTRA_TRY(auto ids, encode(prompt.shared + prompt.own, true));
    if (ids.empty()) {
        SPECTRA_TRY(const std::int32_t prefix, prefixToken());
        ids = {prefix};
    }
    const std::int64_t room = m_context - options.maxTokens;
    if (room < 1)
        return inputError(fmt::format("{} new tokens leave no room for a prompt in the context of {}", options.maxTokens, m_context), {},
                          "fewer with --max-new-tokens, or a larger --seq-len");
    if (static_cast<std::int64_t>(ids.size()) > room) {
        ids.erase(ids.begin(), ids.end() - static_cast<std::ptrdiff_t>(room));
        ++m_truncated;
    }
    SPECTRA_TRY(const SequenceState *shared, sharedState(prompt.shared, ids, ids.size() - 1));
    const auto reserve = static_cast<std::int64_t>(ids.size()) + options.maxTokens;
    SequenceState state = shared != nullptr ? shared->clone(reserve - shared->length()) : m_model.newSequence(reserve);
    const std::span<const std::int32_t> rest = std::span(ids).subspan(static_cast<std::size_t>(state.length()));
    SPECTRA_TRY(const torch::Tensor hidden, run({{rest, {}, &state}}, true, true));
    std::vector<std::string> texts;
    for (int s = 0; s < options.samples; ++s) {
        SequenceState own = s + 1 < options.samples ? state.clone(options.maxTokens) : std::move(state);
        SPECTRA_TRY(auto text, continueText(own, hidden, options, options.seed * 0x9E3779B97F4A7C15ull + static_cast<std::uint64_t>(s) + 1));
        texts.push_back(std::move(text));
    }
    return texts;
}

std::optional<RoutingSignature> TaskLanguageModel::takeSignature()
{
    if (m_model.router() == nullptr)
        return std::nullopt;
    return std::exchange(m_signature, {});
}

} // namespace spectra
