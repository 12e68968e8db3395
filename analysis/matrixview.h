// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

namespace spectra {

/// A row-major float matrix that someone else owns.
struct MatrixView {
    const float *data = nullptr;
    std::int64_t rows = 0, columns = 0;

    [[nodiscard]] const float *row(std::int64_t r) const { return data + r * columns; }
    [[nodiscard]] float operator()(std::int64_t r, std::int64_t c) const { return data[r * columns + c]; }
};

} // namespace spectra
