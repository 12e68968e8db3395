// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/promptrun.h"

#include "engine/core/files.h"
#include "engine/model/kernels.h"
#include "engine/model/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

namespace spectra {

TokenRecord PromptRun::columns(const TokenSequence &s, std::int32_t number, std::int64_t first, std::size_t from, std::size_t to) const
{
    TokenRecord record;
    record.firstToken = first;
    record.sequence = number;
    for (std::size_t i = from; i < to; ++i) {
        record.id.push_back(s.ids[i]);
        record.text.push_back(printableUtf8(loaded.tokenizer->tokenBytes(s.ids[i])));
        record.position.push_back(static_cast<std::int32_t>(i));
        record.phase.push_back(0);
        record.mask.push_back(s.mask[i]);
        record.byteOffset.push_back(s.byteOffsets[i]);
    }
    return record;
}

void PromptRun::publish(const TokenRecord &record, std::size_t firstRow)
{
    if (!streamTokens)
        return;
    std::vector<TokenEvent> events;
    for (std::size_t i = 0; i < record.id.size(); ++i) {
        TokenEvent event;
        event.token = record.firstToken + static_cast<std::int64_t>(i);
        event.sequence = record.sequence;
        event.id = record.id[i];
        event.generated = record.phase[i] != 0;
        event.text = record.text[i];
        if (firstRow + i < recorder.topExperts().size())
            event.topExperts = recorder.topExperts()[firstRow + i];
        events.push_back(std::move(event));
    }
    context.sink->tokens(context.id, events);
}

void PromptRun::progress()
{
    context.report({"running the model", m_done, m_planned, "tokens"});
}

Result<void> PromptRun::run()
{
    const auto start = std::chrono::steady_clock::now();
    m_offset = firstToken;
    m_done = 0;
    m_planned = 0;
    std::size_t i = static_cast<std::size_t>(firstSequence);
    std::size_t together = static_cast<std::size_t>(std::max(1, batch));
    // Each sequence is a transport of its own: its violation and potentials are recorded only when it runs alone.
    if (const Router *router = loaded.model->router(); router != nullptr && router->needs().scope == RouterNeeds::Scope::sequence && spec.holds(Field::sinkhorn))
        together = 1;
    // A resumed run forms the batches of the first one, because values are rounded by what runs together: the sequences of
    // its first batch that are in the file already run again, unrecorded. (With expert sums a run stops at batch ends only.)
    if (maxNewTokens == 0 && !spec.holds(Field::expertMeans))
        i -= i % together;
    for (std::size_t s = i; s < sequences.size(); ++s)
        m_planned += static_cast<std::int64_t>(sequences[s].ids.size()) + maxNewTokens;
    recorder.keepTopExperts(streamTokens);
    progress();
    Result<void> result;
    while (i < sequences.size() && result.ok()) {
        if (context.stop.stop_requested()) {
            result = cancelledError();
        } else if (maxNewTokens > 0) {
            // Lengths are known only when generation ends, and a trace's sequences are contiguous: one at a time.
            result = withGeneration(i++);
        } else {
            const std::size_t last = std::min(sequences.size(), i + together);
            result = prefillOnly(i, last);
            i = last;
        }
        progress();
    }
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return result;
}

Result<void> PromptRun::prefillOnly(std::size_t first, std::size_t last)
{
    std::vector<std::int32_t> order;
    std::vector<std::int64_t> rows, offsets;
    PassInput input;
    for (std::size_t i = first; i < last; ++i) {
        const TokenSequence &s = sequences[i];
        const auto number = static_cast<std::int32_t>(i);
        order.push_back(number);
        rows.push_back(static_cast<std::int64_t>(s.ids.size()));
        offsets.push_back(m_offset);
        if (number >= firstSequence) {
            SPECTRA_CHECK(recorder.begin(number, s, m_offset, rows.back()));
            recorder.setMask(number, s.mask);
            m_offset += rows.back();
        }
        input.sequences.push_back({s.ids, s.mask, nullptr});
    }
    PassHooks hooks = recorder.hooks(order, rows, &timing, context.stop);
    hooks.interventions = interventions;
    const std::int64_t before = m_done;
    hooks.onProgress = [&](std::int64_t done, std::int64_t) {
        m_done = before + done;
        progress();
    };
    SPECTRA_TRY(const torch::Tensor hidden, loaded.model->forward(input, hooks));
    SPECTRA_CHECK(recorder.status());
    TokenScores scores;
    const bool scored = spec.holds(Field::nll) || spec.holds(Field::nextTop1);
    if (scored) {
        std::vector<std::int32_t> targets;
        for (std::size_t i = first; i < last; ++i) {
            const auto &ids = sequences[i].ids;
            targets.insert(targets.end(), ids.begin() + 1, ids.end());
            targets.push_back(-1);
        }
        SPECTRA_TRY(scores, loaded.model->score(hidden, targets, context.stop, &timing));
    }
    std::size_t row = 0;
    for (std::size_t i = first; i < last; ++i) {
        const TokenSequence &s = sequences[i];
        const std::size_t n = s.ids.size();
        if (static_cast<std::int32_t>(i) < firstSequence) {
            row += n;
            continue;
        }
        TokenRecord record = columns(s, static_cast<std::int32_t>(i), offsets[i - first], 0, n);
        if (spec.holds(Field::nll))
            record.nll.assign(scores.nll.begin() + static_cast<std::ptrdiff_t>(row), scores.nll.begin() + static_cast<std::ptrdiff_t>(row + n));
        if (spec.holds(Field::nextTop1))
            record.nextTop1.assign(scores.top1.begin() + static_cast<std::ptrdiff_t>(row), scores.top1.begin() + static_cast<std::ptrdiff_t>(row + n));
        publish(record, row);
        SPECTRA_CHECK(recorder.tokens(std::move(record)));
        tokens += static_cast<std::int64_t>(n);
        row += n;
    }
    for (std::size_t i = std::max(first, static_cast<std::size_t>(firstSequence)); i < last; ++i) {
        const TokenSequence &s = sequences[i];
        SequenceInfo info{s.id, s.domain, s.text, s.label, offsets[i - first], static_cast<std::int64_t>(s.ids.size()),
                          static_cast<std::int32_t>(s.ids.size()), 0};
        SPECTRA_CHECK(recorder.end(static_cast<std::int32_t>(i), std::move(info)));
    }
    m_done = before + static_cast<std::int64_t>(row);
    return {};
}

Result<void> PromptRun::withGeneration(std::size_t index)
{
    const TokenSequence &s = sequences[index];
    const auto number = static_cast<std::int32_t>(index);
    const auto promptLength = static_cast<std::int64_t>(s.ids.size());
    const std::int64_t offset = m_offset;
    Model &model = *loaded.model;
    // A seed of its own for each sequence: a resumed run draws what an uninterrupted one would have drawn.
    Sampler sampler({sampling.temperature, sampling.topP, sampling.topK, seed * 0x9E3779B97F4A7C15ull + index + 1});
    StreamDecoder decoder(loaded.tokenizer);
    const std::vector<std::int32_t> ends = loaded.tokenizer->endIds();
    std::string text = s.text;
    std::int64_t length = 0, generatedTokens = 0;
    SequenceState state = model.newSequence(promptLength + maxNewTokens);

    SPECTRA_CHECK(recorder.begin(number, s, offset, promptLength + maxNewTokens));
    std::vector<std::int32_t> ids(s.ids.begin(), s.ids.end());
    std::vector<std::uint8_t> mask = s.mask;
    const std::int64_t before = m_done;
    generated.clear();
    std::int32_t byteOffset = static_cast<std::int32_t>(text.size());
    for (bool prompt = true;; prompt = false) {
        recorder.setMask(number, mask);
        PassInput input;
        input.sequences.push_back({ids, mask, &state});
        PassHooks hooks = recorder.hooks({number}, {static_cast<std::int64_t>(ids.size())}, &timing, context.stop);
        hooks.interventions = interventions;
        if (prompt)
            hooks.onProgress = [&](std::int64_t done, std::int64_t) {
                m_done = before + done;
                progress();
            };
        SPECTRA_TRY(const torch::Tensor hidden, model.forward(input, hooks));
        SPECTRA_CHECK(recorder.status());
        const std::int64_t rows = hidden.size(0);
        SPECTRA_TRY(const torch::Tensor last, model.logits(hidden.narrow(0, rows - 1, 1), &timing));
        const std::span<const float> logits(last.data_ptr<float>(), static_cast<std::size_t>(last.numel()));
        const bool more = generatedTokens < maxNewTokens;
        const std::int32_t next = more ? sampler.next(logits) : -1;
        const bool ended = !more || std::find(ends.begin(), ends.end(), next) != ends.end();

        TokenRecord record;
        if (prompt) {
            record = columns(s, number, offset, 0, s.ids.size());
        } else {
            record.firstToken = offset + length;
            record.sequence = number;
            const std::string bytes = loaded.tokenizer->tokenBytes(ids[0]);
            record.id = ids;
            record.text = {printableUtf8(bytes)};
            record.position = {static_cast<std::int32_t>(length)};
            record.phase = {1};
            record.mask = mask;
            record.byteOffset = {byteOffset};
            const std::string shown = printableUtf8(decoder.push(ids[0])); // HDF5 text ends at U+0000
            text += shown;
            generated += shown;
            byteOffset = static_cast<std::int32_t>(text.size());
        }
        std::vector<std::int32_t> targets(record.id.begin() + 1, record.id.end());
        targets.push_back(ended ? -1 : next);
        if (rows == 1) {
            // The logits are there already: the head is a fifth of a small model's work and runs once a token.
            float logSum = 0;
            std::int32_t top1 = 0;
            kernels::logSumExp(logits.data(), 1, last.numel(), &logSum, &top1);
            if (spec.holds(Field::nextTop1))
                record.nextTop1 = {top1};
            if (spec.holds(Field::nll))
                record.nll = {ended ? std::numeric_limits<float>::quiet_NaN() : logSum - logits[static_cast<std::size_t>(next)]};
        } else if (spec.holds(Field::nll) || spec.holds(Field::nextTop1)) {
            SPECTRA_TRY(TokenScores scores, model.score(hidden, targets, context.stop, &timing));
            if (spec.holds(Field::nll))
                record.nll = std::move(scores.nll);
            if (spec.holds(Field::nextTop1))
                record.nextTop1 = std::move(scores.top1);
        }
        length += rows;
        tokens += rows;
        m_done = before + length;
        publish(record, 0);
        SPECTRA_CHECK(recorder.tokens(std::move(record)));
        if (!prompt)
            progress();
        if (ended)
            break;
        ids = {next};
        mask = {static_cast<std::uint8_t>(loaded.tokenizer->isSpecial(next) ? 0 : 1)};
        ++generatedTokens;
    }
    const std::string rest = printableUtf8(decoder.finish());
    text += rest;
    generated += rest;
    m_offset = offset + length;
    m_planned -= maxNewTokens - generatedTokens;
    return recorder.end(number, {s.id, s.domain, text, s.label, offset, length, static_cast<std::int32_t>(promptLength), 0});
}

} // namespace spectra
