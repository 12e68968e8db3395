// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/kernels.h"

#include "analysis/embedding/lanes.h"
#include "analysis/targetclones.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace spectra::detail {
namespace {

/// e^x for −87 ≤ x ≤ 0, relative error below 3e-7.
SPECTRA_INLINE float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    const float scaled = x * 1.44269504f;
    const float whole = static_cast<float>(static_cast<int>(scaled - 0.5f)); // x ≤ 0: rounds to nearest
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    const float series =
        1 + r * (1 + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
    return series * std::bit_cast<float>((static_cast<int>(whole) + 127) << 23);
}

/// ln x for x ≥ 1, relative error below 2e-7.
SPECTRA_INLINE float logarithm(float x)
{
    const auto bits = std::bit_cast<std::int32_t>(x);
    const std::int32_t exponent = (bits - 0x3f3504f3) >> 23;
    const float m = std::bit_cast<float>(bits - (exponent << 23));
    const float t = (m - 1) / (m + 1), t2 = t * t;
    return static_cast<float>(exponent) * 0.69314718f +
           2 * t * (1 + t2 * (1.0f / 3 + t2 * (1.0f / 5 + t2 * (1.0f / 7 + t2 * (1.0f / 9)))));
}

struct RowSums {
    float p = 0, dp = 0;
};

SPECTRA_CLONES RowSums boltzmann(const float *distance, int k, float beta, float *p)
{
    float sum = 0, weighted = 0;
    for (int j = 0; j < k; ++j) {
        p[j] = exponential(-beta * distance[j]);
        sum += p[j];
        weighted += distance[j] * p[j];
    }
    return {sum, weighted};
}

SPECTRA_CLONES float normalizationRow(const float *x, const float *y, std::int64_t n, float xi, float yi)
{
    float sum = 0;
    for (std::int64_t j = 0; j < n; ++j) {
        const float dx = xi - x[j], dy = yi - y[j];
        sum += 1 / (1 + dx * dx + dy * dy);
    }
    return sum;
}

} // namespace

void conditionalRow(const float *distance, int k, double logPerplexity, float *p)
{
    thread_local std::vector<float> shifted;
    shifted.resize(static_cast<std::size_t>(k));
    // The nearest distance cancels in the normalisation; without it exp cannot underflow everywhere.
    double mean = 0;
    for (int j = 0; j < k; ++j) {
        shifted[static_cast<std::size_t>(j)] = distance[j] - distance[0];
        mean += static_cast<double>(shifted[static_cast<std::size_t>(j)]) / k;
    }
    if (!(mean > 0) || logPerplexity >= std::log(static_cast<double>(k))) {
        std::fill(p, p + k, 1.0f / static_cast<float>(k));
        return;
    }
    double low = 0, high = HUGE_VAL, beta = 1 / mean;
    RowSums sums;
    for (int i = 0; i < 100; ++i) {
        sums = boltzmann(shifted.data(), k, static_cast<float>(beta), p);
        const double entropy =
            std::log(static_cast<double>(sums.p)) + beta * static_cast<double>(sums.dp) / static_cast<double>(sums.p);
        const double miss = entropy - logPerplexity;
        if (std::abs(miss) < 1e-5 || beta * mean > 1e12)
            break;
        (miss > 0 ? low : high) = beta;
        beta = std::isinf(high) ? beta * 2 : (low + high) / 2;
    }
    for (int j = 0; j < k; ++j)
        p[j] /= sums.p;
}

SPECTRA_CLONES void attraction(const std::int64_t *row, const std::uint32_t *column, const float *value, const float *x,
                               const float *y, float scale, std::int64_t first, std::int64_t last, float *force)
{
    for (std::int64_t i = first; i < last; ++i) {
        const float xi = x[i], yi = y[i];
        float fx = 0, fy = 0;
        const std::uint32_t *c = column + row[i];
        const float *v = value + row[i];
        const int count = static_cast<int>(row[i + 1] - row[i]);
        for (int j = 0; j < count; ++j) {
            const auto to = static_cast<std::int32_t>(c[j]);
            const float dx = xi - x[to], dy = yi - y[to];
            const float w = v[j] / (1 + dx * dx + dy * dy);
            fx += w * dx;
            fy += w * dy;
        }
        force[2 * i] = scale * fx;
        force[2 * i + 1] = scale * fy;
    }
}

SPECTRA_CLONES double logDistances(const std::int64_t *row, const std::uint32_t *column, const float *value,
                                   const float *x, const float *y, std::int64_t first, std::int64_t last)
{
    double total = 0;
    for (std::int64_t i = first; i < last; ++i) {
        const float xi = x[i], yi = y[i];
        const std::uint32_t *c = column + row[i];
        const float *v = value + row[i];
        const int count = static_cast<int>(row[i + 1] - row[i]);
        float sum = 0;
        for (int j = 0; j < count; ++j) {
            const auto to = static_cast<std::int32_t>(c[j]);
            const float dx = xi - x[to], dy = yi - y[to];
            sum += v[j] * logarithm(1 + dx * dx + dy * dy);
        }
        total += static_cast<double>(sum);
    }
    return total;
}

double exactNormalization(const float *x, const float *y, std::int64_t n, std::int64_t first, std::int64_t last)
{
    double total = 0;
    for (std::int64_t i = first; i < last; ++i)
        total += static_cast<double>(normalizationRow(x, y, n, x[i], y[i]));
    return total;
}

namespace {

/// Force on one point and its part of Z: {x, y, z}.
struct PointForce {
    float x, y, z;
};

SPECTRA_CLONES PointForce forceOf(const float *x, const float *y, std::int64_t first, std::int64_t last, float px,
                                  float py)
{
    float fx = 0, fy = 0, z = 0;
    for (std::int64_t j = first; j < last; ++j) {
        const float dx = px - x[j], dy = py - y[j], q = 1 / (1 + dx * dx + dy * dy);
        z += q;
        fx += dx * q * q;
        fy += dy * q * q;
    }
    return {fx, fy, z};
}

} // namespace

double exactForces(const float *x, const float *y, std::int64_t n, std::int64_t first, std::int64_t last, float *force)
{
    double total = 0;
    for (std::int64_t i = first; i < last; ++i) {
        // Without the point itself: the 1 it would add to Z swallows the digits of a map whose points are far apart.
        const PointForce before = forceOf(x, y, 0, i, x[i], y[i]), after = forceOf(x, y, i + 1, n, x[i], y[i]);
        force[2 * i] = before.x + after.x;
        force[2 * i + 1] = before.y + after.y;
        total += static_cast<double>(before.z) + static_cast<double>(after.z);
    }
    return total;
}

SPECTRA_CLONES void step(const float *attractive, const float *repulsive, const StepOptions &options,
                         std::int64_t first, std::int64_t last, float *position, float *update, float *gain,
                         double *sum)
{
    const float rate = options.learningRate, momentum = options.momentum, limit = options.maxStep,
                inverse = options.inverseZ;
    double sumX = 0, sumY = 0;
    for (std::int64_t i = first; i < last; ++i) {
        float u[2];
        for (int a = 0; a < 2; ++a) {
            const std::int64_t at = 2 * i + a;
            const float gradient = attractive[at] - repulsive[at] * inverse;
            const bool same = update[at] * gradient > 0;
            const float g = same ? gain[at] * 0.8f + 0.01f : gain[at] + 0.2f;
            gain[at] = g;
            u[a] = momentum * update[at] - rate * g * gradient;
        }
        const float norm2 = u[0] * u[0] + u[1] * u[1];
        const float shrink = norm2 > limit * limit ? limit / std::sqrt(norm2) : 1.0f;
        for (int a = 0; a < 2; ++a) {
            update[2 * i + a] = u[a] * shrink;
            position[2 * i + a] += u[a] * shrink;
        }
        sumX += static_cast<double>(position[2 * i]);
        sumY += static_cast<double>(position[2 * i + 1]);
    }
    sum[0] += sumX;
    sum[1] += sumY;
}

SPECTRA_CLONES float squaredDistance(const float *a, const float *b, std::int64_t d)
{
    float sum = 0;
    for (std::int64_t i = 0; i < d; ++i)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

SPECTRA_CLONES void productTile(const float *a, std::int64_t strideA, const float *b, std::int64_t d, float *out)
{
    Vector sum[6];
    for (Vector &s : sum)
        for (int l = 0; l < kLanes; ++l)
            s[l] = 0;
    for (std::int64_t i = 0; i < d; ++i) {
        Vector column;
        __builtin_memcpy(&column, b + i * kLanes, sizeof column);
        for (int r = 0; r < 6; ++r)
            sum[r] += column * a[r * strideA + i];
    }
    for (int r = 0; r < 6; ++r)
        __builtin_memcpy(out + r * kLanes, &sum[r], sizeof(Vector));
}

} // namespace spectra::detail
