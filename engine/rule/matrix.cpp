// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/matrix.h"

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <new>

namespace spectra::rule {

void PackedMatrix::Free::operator()(float *p) const
{
    std::free(p);
}

PackedMatrix::PackedMatrix(std::span<const float> w, std::span<const float> bias, std::int64_t outputs, std::int64_t depth, int blocks)
    : m_outputs(outputs), m_depth(depth), m_blocks(blocks)
{
    assert(outputs % blocks == 0 && static_cast<std::int64_t>(w.size()) >= outputs * depth);
    const std::int64_t perBlock = outputs / blocks, panelsPerBlock = (perBlock + kPanel - 1) / kPanel;
    m_panels = panelsPerBlock * blocks;
    const std::int64_t floats = m_panels * kPanel * (depth + 1);
    m_data.reset(static_cast<float *>(std::aligned_alloc(64, static_cast<std::size_t>((floats * 4 + 63) / 64 * 64))));
    if (!m_data)
        throw std::bad_alloc();
    std::fill_n(m_data.get(), floats, 0.0f);
    float *biasOut = m_data.get() + m_panels * kPanel * depth;
    m_bias = biasOut;
    for (std::int64_t o = 0; o < outputs; ++o) {
        const std::int64_t at = o / perBlock * panelsPerBlock * kPanel + o % perBlock;
        float *panel = m_data.get() + at / kPanel * depth * kPanel + at % kPanel;
        const float *row = w.data() + o * depth;
        for (std::int64_t k = 0; k < depth; ++k)
            panel[k * kPanel] = row[k];
        if (!bias.empty())
            biasOut[at] = bias[static_cast<std::size_t>(o)];
    }
}

} // namespace spectra::rule
