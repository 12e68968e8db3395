// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace spectra::bench {

/// The value, or the end of the program with the error.
template <typename T> T need(Result<T> result)
{
    if (!result) {
        std::fprintf(stderr, "error: %s: %s\n", result.error().what.c_str(), result.error().where.c_str());
        std::exit(1);
    }
    return std::move(*result);
}

inline double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    return v.empty() ? 0 : v[v.size() / 2];
}

} // namespace spectra::bench
