// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

namespace spectra {

/// One 64-bit key of several numbers, for independent noise of each matrix.
[[nodiscard]] std::uint64_t noiseKey(std::uint64_t seed, std::uint64_t layer, std::uint64_t expert, std::uint64_t matrix);

/// values[i] += sigma·z(key, first + i) with z standard normal (Box and Muller). A value depends on key and index only, so
/// any part of a matrix can be made on its own, and every machine makes the same.
void addNormalNoise(float *values, std::int64_t count, std::uint64_t key, std::int64_t first, float sigma);

} // namespace spectra
