// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/rule/executor.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace spectra::rule {

/// Entropic transport of n rows onto E columns: row sums 1, column sums n/E (Cuturi 2013, arXiv 1306.0895).
struct SinkhornOptions {
    double epsilon = 0.05;        ///< temperature: the kernel is exp(score/ε)
    int iterations = 3;           ///< row and column updates before the last row normalisation, when `tolerance` is 0
    double tolerance = 0;         ///< > 0: go on until max_i |Σ_t Q_ti − n/E|/(n/E) is at most this
    int maxIterations = 10000;    ///< bound of the tolerance form
    bool inputIsCost = false;     ///< the input is a cost (lower is better) instead of a score
    bool clampLogits = false;     ///< plain kernel form: score/ε held to ±50 first; else exact in the log domain
    bool accelerate = true;       ///< over-relaxation and ε-scaling, tolerance form only

    [[nodiscard]] bool isValid(std::string *why = nullptr) const;
};

struct SinkhornResult {
    std::vector<double> potential; ///< [E] column log-potentials g: Q_t = softmax(score_t/ε + g)
    double violation = 0;          ///< max_i |Σ_t Q_ti − n/E|/(n/E) of the plan returned, sums in double
    int iterations = 0;            ///< passes made
    bool converged = true;         ///< the tolerance was met (always true without one)
};

/// Solves for the rows of scores [n,E] with counted[t] != 0 (empty: all); `plan` [n,E] (or empty) receives Q, for uncounted rows
/// softmax(score/ε + g). One iteration is: rows to 1, then columns to n/E; the last step normalises rows. In float32 with the kernel
/// re-centred whenever a potential leaves its range, so no ε underflows. Deterministic: the same bits for any number of threads.
/// Errors: usage (options), input (non-finite scores, naming the row). Thread-safe.
[[nodiscard]] Result<SinkhornResult> sinkhorn(std::span<const float> scores, std::int64_t experts, const SinkhornOptions &options,
                                              std::span<float> plan, std::span<const std::uint8_t> counted = {},
                                              const Executor &executor = Executor::pool());

/// g minus its mean over experts: potentials are defined up to a constant only.
void centre(std::span<double> potential);

} // namespace spectra::rule
