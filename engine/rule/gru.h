// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/rule/executor.h"
#include "engine/rule/matrix.h"

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::rule {

/// Routing and expression vectors of one layer's tokens: r = GRU(x) (or a linear map), e = W x. H = E·D floats per token.
/// GRU: gate order r, z, n and formula of torch.nn.GRU (Cho et al. 2014, arXiv 1406.1078).
struct VectorJob {
    enum class Axis {
        none,     ///< r = input(x), no recurrence
        sequence, ///< h_t from h_{t-1}
        depth,    ///< h_t from below_t
        grid      ///< h_t from ½(h_{t-1} + below_t)
    };
    Axis axis = Axis::sequence;
    const PackedMatrix *input = nullptr;     ///< [3H,d] in 3 blocks (r, z, n) with b_ih; [H,d] for Axis::none
    const PackedMatrix *recurrent = nullptr; ///< [3H,H] in 3 blocks with b_hh
    const PackedMatrix *projector = nullptr; ///< [H,d], or none
    const float *x = nullptr;                ///< [n,d]
    std::int64_t n = 0, width = 0;           ///< rows; H
    std::span<const std::int64_t> offsets;   ///< [S+1] rows of each sequence
    const float *start = nullptr;            ///< S rows of H, `startStride` apart: h before; none: zeros
    float *end = nullptr;                    ///< S rows of H, `endStride` apart: h after; may be `start` itself
    std::int64_t startStride = 0, endStride = 0;
    const float *below = nullptr;            ///< [n,H] states of the layer below; none: zeros
    const float *ready = nullptr;            ///< [S, recurrent->paddedOutputs()] products of `start`, where already known
    float *routing = nullptr;                ///< [n,H] out
    float *expression = nullptr;             ///< [n,H] out
};

/// Runs a job. Every number in the result depends on its own token's past only and is the same, bit for bit, however tokens are
/// grouped into jobs, sequences into batches, and work onto threads. `scratch` grows as needed and may be reused.
/// Thread-safe for different scratch and outputs.
void computeVectors(const VectorJob &job, std::vector<float> &scratch, const Executor &executor);

} // namespace spectra::rule
