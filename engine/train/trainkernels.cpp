// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainkernels.h"

#include "engine/rule/hot.h"
#include "engine/rule/vectormath.h"

#include <algorithm>
#include <cmath>

namespace spectra::trainkernels {
namespace {

/// Running sums kept side by side: the compiler may not reorder one sum, and one would wait for every addition.
constexpr int kSums = 32;

[[gnu::always_inline]] inline float folded(float *sums)
{
    for (int step = kSums / 2; step > 0; step /= 2)
        for (int k = 0; k < step; ++k)
            sums[k] += sums[k + step];
    return sums[0];
}

[[gnu::always_inline]] inline float dotOf(const float *a, const float *b, std::int64_t n)
{
    float sums[kSums] = {};
    std::int64_t i = 0;
    for (; i + kSums <= n; i += kSums)
        for (int k = 0; k < kSums; ++k)
            sums[k] += a[i + k] * b[i + k];
    float s = folded(sums);
    for (; i < n; ++i)
        s += a[i] * b[i];
    return s;
}

} // namespace

SPECTRA_HOT void rmsNorm(float *__restrict y, float *__restrict inverse, const float *__restrict x, const float *__restrict w, float epsilon,
                         std::int64_t rows, std::int64_t width)
{
    for (std::int64_t r = 0; r < rows; ++r) {
        const float *const in = x + r * width;
        const float scale = 1 / std::sqrt(dotOf(in, in, width) / static_cast<float>(width) + epsilon);
        inverse[r] = scale;
        for (std::int64_t i = 0; i < width; ++i)
            y[r * width + i] = in[i] * scale * w[i];
    }
}

SPECTRA_HOT void rmsNormBackward(float *__restrict dx, float *__restrict dw, const float *__restrict g, const float *__restrict x,
                                 const float *__restrict w, const float *__restrict inverse, std::int64_t rows, std::int64_t width)
{
    for (std::int64_t r = 0; r < rows; ++r) {
        const float *const in = x + r * width;
        const float *const gr = g + r * width;
        const float s = inverse[r];
        if (dw)
            for (std::int64_t i = 0; i < width; ++i)
                dw[i] += gr[i] * in[i] * s;
        if (!dx)
            continue;
        float sums[kSums] = {};
        std::int64_t i = 0;
        for (; i + kSums <= width; i += kSums)
            for (int k = 0; k < kSums; ++k)
                sums[k] += gr[i + k] * w[i + k] * in[i + k];
        float product = folded(sums);
        for (; i < width; ++i)
            product += gr[i] * w[i] * in[i];
        const float back = product * s * s * s / static_cast<float>(width);
        for (std::int64_t j = 0; j < width; ++j)
            dx[r * width + j] = gr[j] * w[j] * s - in[j] * back;
    }
}

SPECTRA_HOT void swiglu(float *__restrict y, const float *__restrict x, std::int64_t rows, std::int64_t intermediate)
{
    for (std::int64_t r = 0; r < rows; ++r) {
        const float *const gate = x + r * 2 * intermediate;
        const float *const up = gate + intermediate;
        for (std::int64_t i = 0; i < intermediate; ++i)
            y[r * intermediate + i] = gate[i] * rule::vsigmoid(gate[i]) * up[i];
    }
}

SPECTRA_HOT void swigluBackward(float *__restrict dx, float *__restrict y, const float *__restrict dy, const float *__restrict x, std::int64_t rows,
                                std::int64_t intermediate)
{
    for (std::int64_t r = 0; r < rows; ++r) {
        const float *const gate = x + r * 2 * intermediate;
        const float *const up = gate + intermediate;
        float *const dGate = dx + r * 2 * intermediate;
        float *const dUp = dGate + intermediate;
        for (std::int64_t i = 0; i < intermediate; ++i) {
            const float s = rule::vsigmoid(gate[i]);
            const float silu = gate[i] * s;
            const float d = dy[r * intermediate + i];
            y[r * intermediate + i] = silu * up[i];
            dUp[i] = d * silu;
            dGate[i] = d * up[i] * s * (1 + gate[i] * (1 - s));
        }
    }
}

SPECTRA_HOT void rotate(float *out, const float *in, const float *__restrict cos, const float *__restrict sin, std::int64_t heads, std::int64_t headDim,
                        std::int64_t half, bool back)
{
    const float sign = back ? -1.0f : 1.0f;
    for (std::int64_t h = 0; h < heads; ++h) {
        const float *const a = in + h * headDim;
        const float *const b = a + half;
        float *const first = out + h * headDim;
        float *const second = first + half;
        for (std::int64_t j = 0; j < half; ++j) {
            const float p = a[j], q = b[j], s = sin[j] * sign;
            first[j] = p * cos[j] - q * s;
            second[j] = q * cos[j] + p * s;
        }
        if (out != in)
            for (std::int64_t j = 2 * half; j < headDim; ++j)
                first[j] = a[j];
    }
}

SPECTRA_HOT float crossEntropy(float *__restrict logits, std::int64_t width, std::int64_t target, float scale)
{
    float best[kSums];
    for (float &b : best)
        b = -INFINITY;
    std::int64_t i = 0;
    for (; i + kSums <= width; i += kSums)
        for (int k = 0; k < kSums; ++k)
            best[k] = logits[i + k] > best[k] ? logits[i + k] : best[k];
    float largest = -INFINITY;
    for (const float b : best)
        largest = b > largest ? b : largest;
    for (; i < width; ++i)
        largest = logits[i] > largest ? logits[i] : largest;

    const float chosen = logits[target] - largest;
    // Partial sums of 1,024 keep rounding small without a double addition for every entry.
    double total = 0;
    for (std::int64_t begin = 0; begin < width; begin += 1024) {
        const std::int64_t end = std::min(width, begin + 1024);
        float sums[kSums] = {};
        std::int64_t j = begin;
        for (; j + kSums <= end; j += kSums)
            for (int k = 0; k < kSums; ++k) {
                const float e = rule::vexp(logits[j + k] - largest);
                sums[k] += e;
                if (scale != 0)
                    logits[j + k] = e;
            }
        float part = folded(sums);
        for (; j < end; ++j) {
            const float e = rule::vexp(logits[j] - largest);
            part += e;
            if (scale != 0)
                logits[j] = e;
        }
        total += static_cast<double>(part);
    }
    if (scale != 0) {
        const float factor = static_cast<float>(static_cast<double>(scale) / total);
        for (std::int64_t j = 0; j < width; ++j)
            logits[j] *= factor;
        logits[target] -= scale;
    }
    return static_cast<float>(std::log(total) - static_cast<double>(chosen));
}

SPECTRA_HOT void addScaled(float *__restrict y, const float *__restrict x, float a, std::int64_t n)
{
    for (std::int64_t i = 0; i < n; ++i)
        y[i] += a * x[i];
}

SPECTRA_HOT void scaled(float *__restrict y, const float *__restrict x, float a, std::int64_t n)
{
    for (std::int64_t i = 0; i < n; ++i)
        y[i] = a * x[i];
}

SPECTRA_HOT float dot(const float *__restrict a, const float *__restrict b, std::int64_t n)
{
    return dotOf(a, b, n);
}

SPECTRA_HOT void addColumnSums(float *__restrict sums, const float *__restrict x, std::int64_t rows, std::int64_t width, std::int64_t stride)
{
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < width; ++i)
            sums[i] += x[r * stride + i];
}

SPECTRA_HOT void addToRows(float *__restrict x, const float *__restrict b, std::int64_t rows, std::int64_t width)
{
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t i = 0; i < width; ++i)
            x[r * width + i] += b[i];
}

} // namespace spectra::trainkernels
