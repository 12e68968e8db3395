// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/statistics/correlation.h"
#include "engine/study/results.h"

namespace spectra::study {

/// Does routing go with loss and task scores? One routing figure against one outcome over the configurations of a study: a point is a
/// configuration's mean over its seeds, since seeds of one configuration are no independent evidence about the figure. It is a
/// correlation across methods, not an effect.
struct Association {
    Quantity routing, outcome;
    std::size_t configurations = 0;  ///< that measured both
    std::optional<double> rho, p;    ///< Spearman's ρ and its permutation p
    std::optional<double> adjusted;  ///< Holm over all pairs of the study
    std::optional<Regression> line;  ///< outcome on routing
    std::string reason;              ///< why there is none
};

/// Every routing figure ("metrics.…") that a table of the study shows against the held-out loss and every task score that one shows.
/// Empty for a study with fewer than three configurations.
[[nodiscard]] std::vector<Association> associations(const Study &study);

[[nodiscard]] std::string associationsCsv(const std::vector<Association> &all);
[[nodiscard]] Json associationsJson(const std::vector<Association> &all);
[[nodiscard]] std::string associationsHtml(const std::vector<Association> &all);

} // namespace spectra::study
