// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"

#include <cstddef>
#include <cstdint>

namespace spectra {

/// Values of `elements` stored elements (a multiple of the type's block) as f32, in storage order. `source` needs no
/// alignment. Block layouts: ggml's quantisation formats; the arithmetic order is the formula's, in f32, so values are
/// equal bit for bit to ggml's own. Thread-safe.
void dequantize(DType type, const std::byte *source, float *out, std::int64_t elements);

/// IEEE half from f32, rounded to nearest even; NaN stays NaN.
[[nodiscard]] std::uint16_t halfFromFloat(float value);
/// bfloat16 from f32, rounded to nearest even; NaN stays NaN.
[[nodiscard]] std::uint16_t bfloatFromFloat(float value);

} // namespace spectra
