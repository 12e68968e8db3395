// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/run/job.h"
#include "engine/run/recorder.h"

#include <cstdint>
#include <string>
#include <vector>

namespace spectra {

/// Runs sequences through a model, prompt and continuation, and records them.
class PromptRun {
public:
    PromptRun(const JobContext &runContext, LoadedModel &model, const TraceSpec &traceSpec, Recorder &to,
              const std::vector<TokenSequence> &prompts)
        : context(runContext), loaded(model), spec(traceSpec), recorder(to), sequences(prompts)
    {
    }
    const JobContext &context;
    LoadedModel &loaded;
    const TraceSpec &spec;
    Recorder &recorder;
    const std::vector<TokenSequence> &sequences;
    int batch = 1;
    int maxNewTokens = 0;
    Sampling sampling;
    std::uint64_t seed = 0;
    std::map<int, Intervention> interventions;
    bool streamTokens = false;                 ///< send TokenEvents

    std::int32_t firstSequence = 0;            ///< resume: the first to run
    std::int64_t firstToken = 0;               ///< and its token

    // Results
    PassTiming timing;
    std::int64_t tokens = 0;                   ///< rows that went through the model
    double seconds = 0;
    std::string generated;                     ///< text of the last sequence's continuation

    [[nodiscard]] Result<void> run();

private:
    [[nodiscard]] Result<void> prefillOnly(std::size_t first, std::size_t last);
    [[nodiscard]] Result<void> withGeneration(std::size_t index);
    [[nodiscard]] TokenRecord columns(const TokenSequence &s, std::int32_t number, std::int64_t first, std::size_t from, std::size_t to) const;
    void publish(const TokenRecord &record, std::size_t firstRow);
    void progress();
    std::int64_t m_offset = 0, m_planned = 0, m_done = 0;
};

/// A trace's description of what it was run with.
[[nodiscard]] Result<TraceSpec> traceSpecFor(LoadedModel &loaded, const ModelSpec &spec, const Capture &capture);

} // namespace spectra
