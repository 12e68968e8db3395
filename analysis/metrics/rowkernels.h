// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

namespace spectra::detail {

struct RowFigures {
    float largest = 0, second = 0;
    float entropy = 0; ///< nats
    bool valid = true; ///< false: NaN or infinite
};

/// One row of a distribution: adds it to `sum` [E] and returns its two largest values and its entropy (0 when not
/// asked).
[[nodiscard]] RowFigures distributionRow(const float *p, std::int64_t experts, double *sum, bool withEntropy);

} // namespace spectra::detail
