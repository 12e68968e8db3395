// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

/* The rules of a quota that is filled in rounds: plain functions for the kernels and for a test on the host.
 *
 * rule::assignQuota() goes through all pairs of row and expert in one order (falling q, then row, then expert) and takes a pair if the row
 * still needs an expert and the expert has a slot. The result is the one filling in which no pair that was left out is preferred by both
 * of its sides, so it also comes out of rounds in which all rows act at once (deferred acceptance: Gale and Shapley 1962): every row asks
 * its k best experts among those that have not refused it; an expert with more askers than slots keeps the best ones and refuses the
 * others for good. An expert's refusals are a threshold on the pair's key, which only ever rises. It ends when no threshold rises. */

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define SPECTRA_BOTH __host__ __device__
#else
#define SPECTRA_BOTH
#endif

namespace spectra::quota {

/// What the order goes by: NaN counts as 0, and the two zeros are equal.
SPECTRA_BOTH inline float value(float q)
{
    return std::isnan(q) || q == 0 ? 0.0f : q;
}

/// Key of a pair among those of one expert, larger is better: the value in an order of whole numbers, then the earlier row.
SPECTRA_BOTH inline std::uint64_t key(float q, std::uint32_t row)
{
    union {
        float real;
        std::uint32_t bits;
    } v;
    v.real = value(q);
    const std::uint32_t ordered = (v.bits & 0x80000000u) != 0 ? ~v.bits : v.bits | 0x80000000u;
    return (static_cast<std::uint64_t>(ordered) << 32) | (0xFFFFFFFFu - row);
}

/// The experts that a row asks: its k best among those whose threshold its key reaches, by falling value, ties to the lower index.
/// Writes them into index and their q (NaN as 0) into weight; returns how many.
SPECTRA_BOTH inline int ask(const float *q, std::uint32_t row, int experts, int k, const std::uint64_t *threshold, int *index, float *weight)
{
    int held = 0;
    for (int e = 0; e < experts; ++e) {
        const float own = std::isnan(q[e]) ? 0.0f : q[e];
        if (key(own, row) < threshold[e] || (held == k && !(own > weight[k - 1])))
            continue;
        int at = held < k ? held++ : k - 1;
        for (; at > 0 && own > weight[at - 1]; --at) {
            weight[at] = weight[at - 1];
            index[at] = index[at - 1];
        }
        weight[at] = own;
        index[at] = e;
    }
    return held;
}

/// Weights of the experts that a row got, over their sum; equal ones where they sum to 0.
SPECTRA_BOTH inline void normalise(float *weight, int count)
{
    float sum = 0;
    for (int i = 0; i < count; ++i)
        sum += weight[i];
    for (int i = 0; i < count; ++i)
        weight[i] = sum > 0 ? weight[i] / sum : 1.0f / static_cast<float>(count);
}

} // namespace spectra::quota
