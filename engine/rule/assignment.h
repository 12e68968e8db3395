// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::rule {

/// The assignment of rows to experts that is worth most when no expert may take more than `capacity` rows.
struct Assignment {
    std::vector<std::int64_t> experts; ///< [n] one for each row
    double value = 0;                  ///< Σ_t scores[t, experts[t]]
    std::int64_t bids = 0;             ///< work done, for reports
};

/// Maximises Σ_t scores[t, e_t] of scores [n,E] with at most `capacity` rows per expert, by an auction with ε-scaling (Bertsekas
/// and Castañón 1989, "The auction algorithm for the transportation problem"). Whole-number arithmetic on scores taken to 2⁻³² of
/// their range (coarser above 16000 rows), on which the answer is optimal, not only near: the value is within n·range·2⁻³² of the best.
/// Deterministic. Errors: usage (too little room for the rows), input (non-finite scores, naming the row). Thread-safe.
[[nodiscard]] Result<Assignment> balancedAssignment(std::span<const float> scores, std::int64_t experts, std::int64_t capacity);

} // namespace spectra::rule
