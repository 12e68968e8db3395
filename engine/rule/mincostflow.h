// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::rule {

/// Several experts for every row: as many slots as fit, and of those fillings the one that is worth most.
struct FlowAssignment {
    std::vector<std::int64_t> experts; ///< [n,k] by falling score, ties to the lower index; −1: slot left empty
    double value = 0;                  ///< Σ of the scores of all filled slots
    std::int64_t augmentations = 0;    ///< slots that had to move from the rows' own choice: work done, for reports
};

/// Minimum-cost maximum flow source → row (k) → expert (1, cost −score) → sink (capacity) of scores [n,E]: each row takes up to k
/// different experts, no expert more than `capacity` rows; the most slots possible are filled, and among all such fillings Σ score is
/// largest. Successive shortest paths from the rows' own top-k over the experts, with potentials: the arc a → b costs what the row loses
/// that gives up a for b most cheaply. Whole-number arithmetic on scores taken to 2⁻³² of their range, on which the answer is optimal: the
/// value is within n·k·range·2⁻³² of the best. Deterministic. O(A·E² + n·k·E·log n) time for A moved slots, n·k·E·16 bytes.
/// Errors: usage (k not in 1..E, negative capacity), input (non-finite scores, naming the row). Thread-safe.
[[nodiscard]] Result<FlowAssignment> maxScoreAssignment(std::span<const float> scores, std::int64_t experts, std::int64_t k, std::int64_t capacity);

} // namespace spectra::rule
