// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/fft.h"

#include <cstdint>
#include <memory>
#include <stop_token>
#include <vector>

namespace spectra::detail {

/// Spectra of the three kernels for sixteen neighbouring kx: 1/(1+r²), and the imaginary parts of x/(1+r²)², y/(1+r²)².
struct alignas(64) KernelSpectra {
    Vector z, x, y;
};

/// Repulsion between n points of a map by interpolation on a grid of spacing h:
/// force(y_i) = Σ_j (y_i − y_j) / (1 + |y_i − y_j|²)² and Z = Σ_{i≠j} 1 / (1 + |y_i − y_j|²).
/// Unit charges are spread with cubic B-splines, convolved with both odd kernels in one complex inverse transform and
/// gathered with the same splines; the spline symbol is divided out of the kernels, and Z follows from Parseval's
/// theorem.
class Repulsion {
public:
    /// `spacing` of the grid at most: it is finer for a small map, where cells cost nothing, and coarser only when the
    /// map spans more than the largest grid allows.
    explicit Repulsion(float spacing)
        : m_wanted(spacing)
        , m_spacing(spacing)
    {
    }

    void setSpacing(float spacing) { m_wanted = spacing; }
    /// `y` [n,2]; writes `force` [n,2]. Returns Z. Bit-identical at any thread count.
    double evaluate(const float *y, std::int64_t n, float *force, const std::stop_token &stop = {});
    [[nodiscard]] int gridLength() const { return m_fft ? m_fft->length() : 0; }

private:
    void prepare(const float *y, std::int64_t n);
    void buildKernels();
    void spread(const float *y, std::int64_t n);
    double convolve(const std::stop_token &stop);

    float m_wanted, m_spacing;
    float m_originX = 0, m_originY = 0;
    int m_cells = 0;  ///< points per side that charges may stand on: half the transform's length
    int m_stride = 0; ///< m_cells rounded up to 32
    std::unique_ptr<BatchFft> m_fft;
    std::vector<std::vector<float>> m_density; ///< partial grids [cells, stride]
    std::vector<float> m_field;                ///< [cells, stride, 2]
    std::vector<Lanes> m_half;                 ///< after the first transform: [M/2+1][stride/32][2]
    std::vector<Lanes> m_mixed;                ///< before the last transform: [M][stride/16]
    std::vector<KernelSpectra> m_kernels;      ///< [groups of 16 kx][ky]
    std::vector<double> m_sums;                ///< part of Z of each group
};

} // namespace spectra::detail
