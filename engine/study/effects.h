// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/statistics/inference.h"
#include "engine/study/results.h"

namespace spectra::study {

/// A main effect or an interaction of a two-level design: the mean of the runs where the product of the factors' signs is +1
/// (on = +1, off = −1) minus the mean of the others (Box, Hunter and Hunter). Computed seed by seed, so that the interval is one over seeds.
struct Effect {
    std::string name;                ///< "GRU", "GRU × OSR"
    std::vector<std::string> aliases; ///< effects of a fraction that no run can tell from this one
    std::optional<MeanInterval> value;
    std::optional<TestResult> test;  ///< against 0
    std::optional<double> adjusted;  ///< Holm over the effects of this quantity, the one of all parts together included
    std::optional<double> relative;  ///< as a share of |mean with every part on|; absent in a fraction without that run
};

struct Effects {
    Quantity quantity;
    std::vector<Effect> effects;
    /// Full design only: what all parts together change, from all off to all on, minus the sum of what each changes alone. Not 0:
    /// the parts together do more, or less, than their sum.
    std::optional<Effect> together;
    std::string reason;              ///< why there are none: no seed has every run of the design
    std::size_t seeds = 0;           ///< whose runs are complete
};

/// One entry per column of the design; empty without a design. Errors (usage): generators.
[[nodiscard]] Result<std::vector<Effects>> factorialEffects(const Study &study);

[[nodiscard]] std::string effectsLatex(const std::vector<Effects> &all);
[[nodiscard]] std::string effectsCsv(const std::vector<Effects> &all);
[[nodiscard]] Json effectsJson(const std::vector<Effects> &all);
[[nodiscard]] std::string effectsHtml(const std::vector<Effects> &all);

} // namespace spectra::study
