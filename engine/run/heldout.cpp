// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/heldout.h"

#include "analysis/metrics/evaluate.h"
#include "engine/core/files.h"
#include "engine/run/environment.h"
#include "engine/run/promptrun.h"
#include "engine/run/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace spectra {
namespace {

TokenSequence window(std::span<const std::int32_t> ids, const Tokenizer &tokenizer, const std::string &domain, std::int64_t number)
{
    TokenSequence s;
    s.id = fmt::format("{}:{}", domain, number);
    s.domain = domain;
    for (const std::int32_t id : ids) {
        s.ids.push_back(id);
        s.byteOffsets.push_back(static_cast<std::int32_t>(s.text.size()));
        s.mask.push_back(tokenizer.isSpecial(id) ? 0 : 1);
        // A window may begin or end inside a character: its bytes are then shown as such.
        s.text += printableUtf8(tokenizer.tokenBytes(id));
    }
    return s;
}


Result<std::shared_ptr<LiveTrace>> record(const JobContext &context, LoadedModel &loaded, const std::vector<TokenSequence> &sequences, const TraceSpec &spec,
                                          TraceWriter *writer)
{
    const auto live = writer ? nullptr : std::make_shared<LiveTrace>(spec);
    Recorder recorder(*loaded.model, spec, writer, live.get());
    JobContext quiet = context;
    EngineSink silent;
    quiet.sink = &silent; // an evaluation is a moment of a run, not a job of its own
    PromptRun run(quiet, loaded, spec, recorder, sequences);
    run.batch = 8;
    SPECTRA_CHECK(run.run());
    if (live)
        live->finish(recorder.tables(), run.seconds);
    else
        SPECTRA_CHECK(writer->finish(recorder.tables(), run.seconds));
    return live;
}

Result<void> domainLosses(const LiveTrace &trace, Evaluation &evaluation, const std::vector<std::string> &domains)
{
    SPECTRA_TRY(const auto sequences, trace.sequences());
    std::vector<double> sum(domains.size(), 0);
    std::vector<std::int64_t> count(domains.size(), 0);
    for (const SequenceInfo &s : *sequences) {
        const auto domain = static_cast<std::size_t>(std::find(domains.begin(), domains.end(), s.domain) - domains.begin());
        SPECTRA_TRY(const auto block, trace.tokens({s.offset, s.offset + s.length}));
        for (const float nll : block->nll)
            if (!std::isnan(nll)) {
                sum[domain] += nll;
                ++count[domain];
            }
    }
    evaluation.loss = 0;
    for (std::size_t d = 0; d < domains.size(); ++d) {
        evaluation.domainLoss.push_back(count[d] > 0 ? sum[d] / static_cast<double>(count[d]) : std::nan(""));
        evaluation.loss += evaluation.domainLoss.back() / static_cast<double>(domains.size());
        evaluation.tokens += count[d];
    }
    return {};
}

} // namespace

HeldOutText heldOutText(const Corpus &corpus, const Tokenizer &tokenizer, std::int64_t length, std::int64_t tokens, std::int64_t tracedTokens)
{
    HeldOutText text;
    for (std::size_t d = 0; d < corpus.domains().size(); ++d) {
        const std::string &name = corpus.domains()[d].name;
        const auto ids = corpus.heldOut(d);
        text.domains.push_back(name);
        text.bytesPerToken.push_back(ids.empty() ? 0 : static_cast<double>(corpus.heldOutBytes(d)) / static_cast<double>(ids.size()));
        const auto windows = std::max<std::int64_t>(1, std::min(tokens, static_cast<std::int64_t>(ids.size())) / length);
        for (std::int64_t w = 0; w < windows; ++w) {
            const auto first = static_cast<std::size_t>(w * length);
            text.sequences.push_back(window(ids.subspan(first, std::min(static_cast<std::size_t>(length), ids.size() - first)), tokenizer, name, w));
            if (w * length < tracedTokens)
                text.traced.push_back(text.sequences.back());
        }
    }
    return text;
}

Result<Evaluation> evaluateHeldOut(const JobContext &context, LoadedModel &loaded, const HeldOutText &text, std::int64_t step,
                                   const std::filesystem::path &trace, const std::string &commandLine, bool intervals)
{
    const auto start = std::chrono::steady_clock::now();
    const bool moe = loaded.model->router() != nullptr && loaded.model->config().moe();
    Evaluation evaluation;
    evaluation.step = step;
    evaluation.causal = loaded.model->causal();
    ModelSpec spec;
    Capture capture = Capture::standard();
    SPECTRA_TRY(TraceSpec traceSpec, traceSpecFor(loaded, spec, capture));
    traceSpec.environment = environmentAttributes(commandLine, context.threads);
    traceSpec.plannedLengths.clear();
    for (const TokenSequence &s : text.sequences)
        traceSpec.plannedLengths.push_back(static_cast<std::int64_t>(s.ids.size()));
    // A loss of routing that looks ahead is no likelihood, and no trace holds it; as a training run's own figure it is wanted, marked
    // by `causal`.
    TraceSpec measured = traceSpec;
    measured.available |= bit(Field::nll);
    SPECTRA_TRY(const auto live, record(context, loaded, text.sequences, measured, nullptr));
    SPECTRA_CHECK(domainLosses(*live, evaluation, text.domains));
    if (moe) {
        MetricOptions options;
        options.matrices = false;
        options.intervals = intervals;
        SPECTRA_TRY(evaluation.metrics, evaluateMetrics(*live, options, context.stop));
        if (!trace.empty() && !text.traced.empty()) {
            traceSpec.plannedLengths.clear();
            for (const TokenSequence &s : text.traced)
                traceSpec.plannedLengths.push_back(static_cast<std::int64_t>(s.ids.size()));
            // A run that goes on writes the step's trace again: what a killed one left there is of no use.
            SPECTRA_TRY(const auto writer, TraceWriter::create(trace, traceSpec, true));
            if (auto written = record(context, loaded, text.traced, traceSpec, writer.get()); !written.ok()) {
                writer->discard();
                return written.error();
            }
        }
    }
    evaluation.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return evaluation;
}

} // namespace spectra
