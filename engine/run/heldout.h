// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/metricresult.h"
#include "engine/core/result.h"
#include "engine/data/corpus.h"
#include "engine/run/job.h"
#include "engine/run/sequences.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace spectra {

/// The same held-out windows of every domain at every evaluation of a run.
struct HeldOutText {
    std::vector<TokenSequence> sequences;     ///< all that the loss and the metrics are taken on
    std::vector<TokenSequence> traced;        ///< the first of them per domain: what each step's trace holds
    std::vector<std::string> domains;
    std::vector<double> bytesPerToken;        ///< per domain, of the text
};

/// Windows of `length` tokens: `tokens` per domain (at least one window where there is one), `tracedTokens` of them traced.
[[nodiscard]] HeldOutText heldOutText(const Corpus &corpus, const Tokenizer &tokenizer, std::int64_t length, std::int64_t tokens, std::int64_t tracedTokens);

/// What one evaluation found. Losses in nats per token.
struct Evaluation {
    std::int64_t step = 0;
    double loss = 0;                          ///< unweighted mean of the domains' losses
    std::vector<double> domainLoss;
    std::int64_t tokens = 0;
    double seconds = 0;
    bool causal = true;
    std::map<std::string, double> memory;     ///< bytes: weights, gradients, optimizer, peak of the process, and the rest of that
    std::string stage = "training";           ///< "training" or "calibrated"
    std::optional<MetricReport> metrics;      ///< none for a dense model
};

/// Runs the held-out text through a model as at inference, writes the small trace (unless `trace` is empty) and evaluates every
/// metric with the code that `spectra metrics` runs. `intervals`: with 95 % bootstrap intervals.
[[nodiscard]] Result<Evaluation> evaluateHeldOut(const JobContext &context, LoadedModel &loaded, const HeldOutText &text, std::int64_t step,
                                                 const std::filesystem::path &trace, const std::string &commandLine, bool intervals);

} // namespace spectra
