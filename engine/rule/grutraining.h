// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/rule/executor.h"

#include <cstdint>
#include <span>

namespace spectra::rule {

/// The GRU over the tokens of sequences as training needs it: forward with what the gradient needs kept, and backward through time.
/// Gate order r, z, n and formula of torch.nn.GRU: h = n + z·(h_in − n), n = tanh(gi_n + r·(W_n h_in + b_n)). h_in of row t is h_{t−1}, or
/// ½(h_{t−1} + depth_t) where `depth` is given (axis `grid`); of a sequence's first row h_{t−1} is `start`. H = width.
struct GruSequences {
    std::int64_t width = 0;                ///< H
    std::span<const std::int64_t> offsets; ///< [S+1] rows of each sequence, N = offsets.back()
    const float *weight = nullptr;         ///< [3H,H] recurrent
    const float *bias = nullptr;           ///< [3H]
};

struct GruForward {
    const float *gi = nullptr;             ///< [N,3H] input part with its bias
    const float *start = nullptr;          ///< [S,H]
    const float *depth = nullptr;          ///< [N,H] or none
    float *h = nullptr;                    ///< [N,H] out
    float *last = nullptr;                 ///< [S,H] out; `start` of a sequence without rows
    float *in = nullptr;                   ///< [N,H] out, h_in; none when no gradient is wanted
    float *gates = nullptr;                ///< [N,4H] out: r, z, n and W_n h_in + b_n; none as `in`
};

struct GruBackward {
    const float *in = nullptr, *gates = nullptr; ///< of the forward pass
    const float *dh = nullptr;             ///< [N,H] gradient of h, or none
    const float *dlast = nullptr;          ///< [S,H] gradient of last, or none
    float *dgi = nullptr;                  ///< [N,3H] out
    float *dstart = nullptr;               ///< [S,H] out
    float *ddepth = nullptr;               ///< [N,H] out; given exactly when `depth` was
    float *dweight = nullptr;              ///< [3H,H] out, or none
    float *dbias = nullptr;                ///< [3H] out, or none
};

/// How the work of a step is shared between threads. Results never depend on it.
enum class GruSplit {
    automatic,
    sequences, ///< each thread takes its sequences through time by itself
    columns    ///< all threads meet in every step, each with its own part of the units, whose weights stay in its cache
};

/// Runs the recurrence forward. Every number is the same, bit for bit, for any number of threads. Thread-safe.
void gruForward(const GruSequences &gru, const GruForward &job, const Executor &executor, GruSplit split = GruSplit::automatic);

/// Back through time. The gradient of the weight is one product over all rows at the end. Every number is the same, bit for bit,
/// for any number of threads. Thread-safe.
void gruBackward(const GruSequences &gru, const GruBackward &job, const Executor &executor, GruSplit split = GruSplit::automatic);

/// One step's gates for n rows: gi, gh [n,3H], in [n,H] → h [n,H] and gates [n,4H] (or none).
void gruGates(std::int64_t n, std::int64_t width, const float *gi, const float *gh, const float *in, float *h, float *gates, const Executor &executor);
/// Their gradient: dh [n,H] → dgi, dgh [n,3H] and din [n,H], the part of h_in's gradient that does not go through gh.
void gruGatesBackward(std::int64_t n, std::int64_t width, const float *in, const float *gates, const float *dh, float *dgi, float *dgh, float *din,
                      const Executor &executor);

} // namespace spectra::rule
