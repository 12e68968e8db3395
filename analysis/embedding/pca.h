// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/matrixview.h"
#include "engine/core/result.h"

#include <cstdint>
#include <stop_token>
#include <vector>

namespace spectra {

enum class PcaSolver : std::uint8_t {
    automatic,  ///< full up to 640 columns (or rows), randomised above
    full,       ///< eigendecomposition of the covariance (of the Gram matrix when rows < columns)
    randomized, ///< subspace iteration (Halko, Martinsson, Tropp 2011, algorithm 4.4)
};
struct PcaOptions {
    int components = 2;
    PcaSolver solver = PcaSolver::automatic;
    std::uint64_t seed = 0;
};
/// Components come with scikit-learn's sign: the entry of largest magnitude in each component is positive.
struct PcaResult {
    std::int64_t rows = 0, columns = 0;
    int components = 0;                                            ///< may be fewer than asked: min(n, d)
    std::vector<float> scores;                                     ///< [n,c]
    std::vector<float> axes;                                       ///< [c,d]
    std::vector<float> mean;                                       ///< [d]
    std::vector<double> explainedVariance, explainedVarianceRatio; ///< [c], with n − 1 in the denominator
    double seconds = 0;
};
/// Errors: input (empty, NaN), usage (components < 1), cancelled.
[[nodiscard]] Result<PcaResult> pca(MatrixView points, const PcaOptions &options = {}, std::stop_token stop = {});

} // namespace spectra
