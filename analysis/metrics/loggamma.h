// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <math.h>

namespace spectra {

/// log |Γ(x)|. Thread-safe, which std::lgamma is not: that one writes the sign to a global.
[[nodiscard]] inline double logGamma(double x)
{
    int sign = 0;
    return ::lgamma_r(x, &sign);
}

} // namespace spectra
