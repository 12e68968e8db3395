// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/matrixview.h"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// What a Gram matrix is taken of.
enum class GramObject : std::uint8_t { routing, expression, routerWeights, expertInput, expertOutput };
inline constexpr int kGramObjects = 5;
[[nodiscard]] std::string_view
gramObjectKey(GramObject object); ///< "routing", …, "expert_output": the suffix of a metric key

/// Cosine matrix [E,E] of E row vectors, in double; a zero vector gives a zero row with 0 on the diagonal.
[[nodiscard]] std::vector<double> gramMatrix(MatrixView vectors);

/// Figures of one Gram matrix of unit vectors, [E,E] row-major.
struct GramFigures {
    double orthogonality = 0; ///< 1 − ‖G−I‖_F / (E√2)
    std::optional<double> offDiagonalMeanAbs, similarityMean, similarityStd, diversity; ///< need E ≥ 2
    std::optional<double> condition, logDet;                                            ///< absent when G is singular
    std::vector<double> spectrum;                                                       ///< eigenvalues, descending
};
/// Absent for an empty or non-finite matrix. Without `eigenvalues`, spectrum, condition and logDet stay empty.
[[nodiscard]] std::optional<GramFigures> gramFigures(std::span<const double> gram, std::int64_t experts,
                                                     bool eigenvalues = true);
/// 1 − sqrt((E−1)/(2ED)): orthogonality of E random directions in D dimensions.
[[nodiscard]] double gramOrthogonalityChance(std::int64_t experts, std::int64_t dimension);
/// E|cos| of two random directions in D dimensions: Γ(D/2) / (√π Γ((D+1)/2)).
[[nodiscard]] double absCosineChance(std::int64_t dimension);

} // namespace spectra
