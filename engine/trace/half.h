// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>

namespace spectra {

/// IEEE 754 binary16, round to nearest even; values beyond 65504 become infinite, NaN stays NaN.
[[nodiscard]] std::uint16_t toHalf(float value);
[[nodiscard]] float fromHalf(std::uint16_t half);
/// Whole arrays of equal size, with the processor's own conversion where it has one.
void toHalf(std::span<const float> from, std::uint16_t *to);
void fromHalf(std::span<const std::uint16_t> from, float *to);

} // namespace spectra
