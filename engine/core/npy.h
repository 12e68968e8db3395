// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>
#include <ostream>
#include <span>
#include <vector>

namespace spectra {

/// A NumPy array of floats, C order.
struct NpyArray {
    std::vector<std::int64_t> shape;
    std::vector<float> values;
};

/// Reads NumPy format 1.0 to 3.0, little-endian f4 or f8 (f8 is rounded to float), C order.
/// Errors (input): missing, malformed, another type or order, length that does not match the shape.
[[nodiscard]] Result<NpyArray> readNpy(const std::filesystem::path &path);
/// The same from bytes; `where` names them in errors.
[[nodiscard]] Result<NpyArray> parseNpy(std::span<const std::byte> bytes, const std::string &where);
/// Writes NumPy format 1.0, '<f4', C order. Check the stream afterwards.
void writeNpy(std::ostream &out, std::span<const std::int64_t> shape, std::span<const float> values);

} // namespace spectra
