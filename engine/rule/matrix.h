// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/rule/kernels.h"

#include <cstdint>
#include <memory>
#include <span>

namespace spectra::rule {

/// A weight matrix [outputs, depth] rearranged for row-wise products: panels of 32 outputs, each stored [depth][32]. `blocks` equal
/// parts of the outputs (the gates of a GRU) are padded to whole panels each. Immutable; safe to share between threads.
class PackedMatrix {
public:
    PackedMatrix() = default;
    /// w [outputs, depth] row-major; bias [outputs] or empty. outputs must divide by `blocks`.
    PackedMatrix(std::span<const float> w, std::span<const float> bias, std::int64_t outputs, std::int64_t depth, int blocks = 1);

    [[nodiscard]] bool empty() const { return m_panels == 0; }
    [[nodiscard]] std::int64_t outputs() const { return m_outputs; }
    [[nodiscard]] std::int64_t depth() const { return m_depth; }
    [[nodiscard]] std::int64_t panels() const { return m_panels; }
    [[nodiscard]] std::int64_t paddedOutputs() const { return m_panels * kPanel; }
    /// Padded width of one block.
    [[nodiscard]] std::int64_t blockWidth() const { return m_panels * kPanel / m_blocks; }
    [[nodiscard]] std::int64_t bytes() const { return m_panels * kPanel * (m_depth + 1) * 4; }

    /// y [n, paddedOutputs] (row stride yStride) = x [n, depth]·Wᵀ + bias, panels first..last only. Each output is one sum over
    /// the depth in order: a row's result does not depend on the other rows of the call. One thread.
    void project(const float *x, std::int64_t xStride, std::int64_t n, float *y, std::int64_t yStride, std::int64_t first, std::int64_t last) const
    {
        kernels().project(m_data.get(), m_bias, m_depth, first, last, x, xStride, n, y, yStride);
    }
    void project(const float *x, std::int64_t xStride, std::int64_t n, float *y, std::int64_t yStride) const
    {
        project(x, xStride, n, y, yStride, 0, m_panels);
    }

private:
    struct Free {
        void operator()(float *p) const;
    };
    std::int64_t m_outputs = 0, m_depth = 0, m_panels = 0;
    int m_blocks = 1;
    std::unique_ptr<float[], Free> m_data;
    const float *m_bias = nullptr; ///< inside m_data, [paddedOutputs]
};

} // namespace spectra::rule
