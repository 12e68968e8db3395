// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/rowkernels.h"

#include "analysis/targetclones.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace spectra::detail {
namespace {

constexpr int lanes = 16;

/// ln x for normal positive x, relative error below 2e-7 (atanh series on the mantissa in [√½, √2)).
inline float logarithm(float x)
{
    const auto bits = std::bit_cast<std::int32_t>(x);
    const std::int32_t exponent = (bits - 0x3f3504f3) >> 23;
    const float m = std::bit_cast<float>(bits - (exponent << 23));
    const float t = (m - 1) / (m + 1), t2 = t * t;
    const float series = 2 * t * (1 + t2 * (1.0f / 3 + t2 * (1.0f / 5 + t2 * (1.0f / 7 + t2 * (1.0f / 9)))));
    return static_cast<float>(exponent) * 0.69314718f + series;
}

SPECTRA_CLONES void topTwo(const float *p, std::int64_t blocks, float *first, float *second, float *check)
{
    for (std::int64_t b = 0; b < blocks; ++b)
        for (int l = 0; l < lanes; ++l) {
            const float x = p[b * lanes + l];
            const float low = first[l] < x ? first[l] : x;
            second[l] = second[l] < low ? low : second[l];
            first[l] = first[l] < x ? x : first[l];
            check[l] += x;
        }
}

SPECTRA_CLONES float entropyOf(const float *p, std::int64_t n)
{
    float sum[lanes] = {};
    const std::int64_t whole = n / lanes * lanes;
    for (std::int64_t b = 0; b < whole; b += lanes)
        for (int l = 0; l < lanes; ++l) {
            const float x = p[b + l] > 1e-30f ? p[b + l] : 1e-30f;
            sum[l] += x * logarithm(x);
        }
    float total = 0;
    for (const float s : sum)
        total += s;
    for (std::int64_t i = whole; i < n; ++i)
        if (p[i] > 0)
            total += p[i] * std::log(p[i]);
    return -total;
}

SPECTRA_CLONES void addRow(const float *p, std::int64_t n, double *sum)
{
    for (std::int64_t i = 0; i < n; ++i)
        sum[i] += static_cast<double>(p[i]);
}

} // namespace

RowFigures distributionRow(const float *p, std::int64_t experts, double *sum, bool withEntropy)
{
    float first[lanes], second[lanes], check[lanes] = {};
    for (int l = 0; l < lanes; ++l)
        first[l] = second[l] = -INFINITY;
    const std::int64_t blocks = experts / lanes;
    topTwo(p, blocks, first, second, check);
    RowFigures row;
    float a = -INFINITY, b = -INFINITY, total = 0;
    const auto take = [&](float x) {
        b = std::max(b, std::min(a, x));
        a = std::max(a, x);
    };
    for (int l = 0; l < lanes; ++l) {
        take(first[l]);
        take(second[l]);
        total += check[l];
    }
    for (std::int64_t i = blocks * lanes; i < experts; ++i) {
        take(p[i]);
        total += p[i];
    }
    row.valid = std::isfinite(total);
    if (!row.valid)
        return row;
    row.largest = a;
    row.second = b;
    addRow(p, experts, sum);
    if (withEntropy)
        row.entropy = entropyOf(p, experts);
    return row;
}

} // namespace spectra::detail
