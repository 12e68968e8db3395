// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/optimizerkernels.h"

#include "engine/rule/hot.h"

#include <cmath>

namespace spectra::kernels {

SPECTRA_HOT void adamW(float *__restrict p, const float *__restrict g, float *__restrict m, float *__restrict v, std::int64_t n,
                       const AdamWStep &step)
{
    const AdamWStep s = step;
    for (std::int64_t i = 0; i < n; ++i) {
        const float x = g[i] * s.scale;
        const float first = m[i] + s.oneMinusBeta1 * (x - m[i]);
        const float second = s.beta2 * v[i] + s.oneMinusBeta2 * x * x;
        m[i] = first;
        v[i] = second;
        p[i] -= s.decay * p[i] + s.stepSize * (first / (std::sqrt(second) * s.correction2 + s.epsilon));
    }
}

SPECTRA_HOT void nesterov(float *__restrict u, const float *__restrict g, float *__restrict m, std::int64_t n, float scale, float momentum)
{
    for (std::int64_t i = 0; i < n; ++i) {
        const float x = g[i] * scale;
        const float next = m[i] + (1 - momentum) * (x - m[i]);
        m[i] = next;
        u[i] = x + momentum * (next - x);
    }
}

SPECTRA_HOT void decayAndStep(float *__restrict p, const float *__restrict u, std::int64_t n, float decay, float stepSize)
{
    for (std::int64_t i = 0; i < n; ++i)
        p[i] -= decay * p[i] + stepSize * u[i];
}

SPECTRA_HOT double sumOfSquares(const float *x, std::int64_t n)
{
    // Sixteen running sums: the compiler may not reorder one sum, and one would wait for every addition.
    constexpr int kSums = 16;
    double sums[kSums] = {};
    std::int64_t i = 0;
    for (; i + kSums <= n; i += kSums)
        for (int k = 0; k < kSums; ++k) {
            const double value = x[i + k];
            sums[k] += value * value;
        }
    for (; i < n; ++i)
        sums[0] += static_cast<double>(x[i]) * x[i];
    for (int step = kSums / 2; step > 0; step /= 2)
        for (int k = 0; k < step; ++k)
            sums[k] += sums[k + step];
    return sums[0];
}

} // namespace spectra::kernels
