// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/kernels.h"

#include "engine/core/parallel.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace spectra::kernels {
namespace {

// Sixteen lanes whatever the CPU: the compiler maps them to one, two or four registers of the function's target.
typedef float Lanes __attribute__((vector_size(64), aligned(4), may_alias));
typedef std::uint32_t LaneBits __attribute__((vector_size(64), aligned(4), may_alias));
typedef std::uint16_t LaneHalves __attribute__((vector_size(32), aligned(2), may_alias));
constexpr std::int64_t kLanes = 16;

// Below this many multiply-adds a second thread costs more than it saves.
constexpr std::int64_t kWorthAThread = 200'000;

#define SPECTRA_INLINE inline __attribute__((always_inline))

// The pieces are macros' worth of always-inlined code, so that each target below gets its own instructions. Lanes travel
// by pointer: vectors in signatures would change the calling convention between targets.
SPECTRA_INLINE void load(Lanes *v, const float *p)
{
    *v = *reinterpret_cast<const Lanes *>(p);
}
SPECTRA_INLINE void load(Lanes *v, const bfloat *p)
{
    const LaneHalves h = *reinterpret_cast<const LaneHalves *>(p);
    const LaneBits bits = __builtin_convertvector(h, LaneBits) << 16;
    std::memcpy(v, &bits, sizeof(bits));
}
SPECTRA_INLINE float scalar(const float *p)
{
    return *p;
}
SPECTRA_INLINE float scalar(const bfloat *p)
{
    const std::uint32_t bits = static_cast<std::uint32_t>(*p) << 16;
    float f;
    std::memcpy(&f, &bits, sizeof(f));
    return f;
}
SPECTRA_INLINE float sum(const Lanes *v)
{
    float part[kLanes];
    std::memcpy(part, v, sizeof(part));
    for (int step = 8; step > 0; step /= 2)
        for (int i = 0; i < step; ++i)
            part[i] += part[i + step];
    return part[0];
}

/// `Outs` rows of W against `Rows` rows of x.
template <int Outs, int Rows, typename W>
SPECTRA_INLINE void gemvTile(float *y, const W *w, const float *x, const float *bias, std::int64_t out, std::int64_t in, bool accumulate)
{
    Lanes acc[Outs][Rows];
    for (int o = 0; o < Outs; ++o)
        for (int r = 0; r < Rows; ++r)
            acc[o][r] = Lanes{};
    std::int64_t i = 0;
    for (; i + kLanes <= in; i += kLanes) {
        Lanes xv[Rows];
        for (int r = 0; r < Rows; ++r)
            load(&xv[r], x + r * in + i);
        for (int o = 0; o < Outs; ++o) {
            Lanes wv;
            load(&wv, w + o * in + i);
            // The same column of the next tile: beyond the reach of the hardware's own prefetch across pages.
            __builtin_prefetch(w + (o + Outs) * in + i);
            for (int r = 0; r < Rows; ++r)
                acc[o][r] += wv * xv[r];
        }
    }
    for (int o = 0; o < Outs; ++o)
        for (int r = 0; r < Rows; ++r) {
            float s = sum(&acc[o][r]);
            for (std::int64_t j = i; j < in; ++j)
                s += scalar(w + o * in + j) * x[r * in + j];
            if (bias)
                s += bias[o];
            float &target = y[r * out + o];
            target = accumulate ? target + s : s;
        }
}

template <int Rows, typename W>
SPECTRA_INLINE void gemvRange(float *y, const W *w, const float *x, const float *bias, std::int64_t begin, std::int64_t end,
                              std::int64_t out, std::int64_t in, bool accumulate)
{
    std::int64_t o = begin;
    for (; o + 4 <= end; o += 4)
        gemvTile<4, Rows>(y + o, w + o * in, x, bias ? bias + o : nullptr, out, in, accumulate);
    for (; o < end; ++o)
        gemvTile<1, Rows>(y + o, w + o * in, x, bias ? bias + o : nullptr, out, in, accumulate);
}

template <typename W>
SPECTRA_INLINE void gemvAny(float *y, const W *w, const float *x, const float *bias, std::int64_t rows, std::int64_t begin,
                            std::int64_t end, std::int64_t out, std::int64_t in, bool accumulate)
{
    switch (rows) {
    case 1: gemvRange<1>(y, w, x, bias, begin, end, out, in, accumulate); break;
    case 2: gemvRange<2>(y, w, x, bias, begin, end, out, in, accumulate); break;
    case 3: gemvRange<3>(y, w, x, bias, begin, end, out, in, accumulate); break;
    default: gemvRange<4>(y, w, x, bias, begin, end, out, in, accumulate); break;
    }
}

/// Attention of the `group` query heads that share one key head: scores, softmax, weighted sum of values.
SPECTRA_INLINE void attendHead(float *out, const float *q, const float *keys, const float *values, float *scores, std::int64_t headDim,
                               std::int64_t length, std::int64_t skip, float scale)
{
    float largest = -INFINITY;
    for (std::int64_t t = skip; t < length; ++t) {
        Lanes acc{};
        std::int64_t i = 0;
        for (; i + kLanes <= headDim; i += kLanes) {
            Lanes a, b;
            load(&a, q + i);
            load(&b, keys + t * headDim + i);
            acc += a * b;
        }
        float s = sum(&acc);
        for (; i < headDim; ++i)
            s += q[i] * keys[t * headDim + i];
        s *= scale;
        scores[t] = s;
        largest = std::max(largest, s);
    }
    float total = 0;
    for (std::int64_t t = skip; t < length; ++t) {
        scores[t] = std::exp(scores[t] - largest);
        total += scores[t];
    }
    const float inverse = 1 / total;
    std::int64_t i = 0;
    for (; i + kLanes <= headDim; i += kLanes) {
        Lanes acc{};
        for (std::int64_t t = skip; t < length; ++t) {
            Lanes v;
            load(&v, values + t * headDim + i);
            acc += v * scores[t];
        }
        acc *= inverse;
        std::memcpy(out + i, &acc, sizeof(acc));
    }
    for (; i < headDim; ++i) {
        float s = 0;
        for (std::int64_t t = skip; t < length; ++t)
            s += values[t * headDim + i] * scores[t];
        out[i] = s * inverse;
    }
}

SPECTRA_INLINE void combineRange(float *out, const float *y, const std::int64_t *slotRow, const float *weights, float scale,
                                 std::int64_t begin, std::int64_t end, std::int64_t slots, std::int64_t width)
{
    for (std::int64_t t = begin; t < end; ++t)
        for (std::int64_t s = 0; s < slots; ++s) {
            const std::int64_t row = slotRow[t * slots + s];
            if (row < 0)
                continue;
            const float w = weights[t * slots + s] * scale;
            float *const target = out + t * width;
            const float *const source = y + row * width;
            for (std::int64_t i = 0; i < width; ++i)
                target[i] += w * source[i];
        }
}

SPECTRA_INLINE void rmsNormRange(float *y, const float *x, const float *w, float epsilon, std::int64_t begin, std::int64_t end, std::int64_t width)
{
    for (std::int64_t r = begin; r < end; ++r) {
        const float *const in = x + r * width;
        float *const result = y + r * width;
        Lanes acc{};
        std::int64_t i = 0;
        for (; i + kLanes <= width; i += kLanes) {
            Lanes v;
            load(&v, in + i);
            acc += v * v;
        }
        float s = sum(&acc);
        for (; i < width; ++i)
            s += in[i] * in[i];
        const float scale = 1 / std::sqrt(s / static_cast<float>(width) + epsilon);
        for (std::int64_t j = 0; j < width; ++j)
            result[j] = in[j] * scale * w[j];
    }
}

/// v ← e^v, relative error below 2e-7 for v in [−87, 88] and held there outside: 2^n·p(f) with |f| ≤ ½·ln 2 and a polynomial
/// of degree 6. Written for lanes because g++ leaves the loop over a scalar form of it scalar. NaN stays NaN.
SPECTRA_INLINE void exponential(Lanes *v)
{
    typedef std::int32_t LaneInts __attribute__((vector_size(64)));
    const Lanes x = *v < -87.0f ? Lanes{} - 87.0f : *v > 88.0f ? Lanes{} + 88.0f : *v;
    const float magic = 12582912.0f; // 1.5·2^23: adding it rounds to a whole number and leaves that in the low bits
    const Lanes shifted = x * 1.44269504f + magic;
    const Lanes n = shifted - magic;
    const Lanes f = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = f * (1.0f / 720) + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.0f;
    p = p * f + 1.0f;
    LaneInts bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127) << 23;
    Lanes power;
    std::memcpy(&power, &bits, sizeof(power));
    *v = p * power;
}

/// The last `count` < kLanes entries of a row, the other lanes `filler`.
SPECTRA_INLINE void loadTail(Lanes *v, const float *p, std::int64_t count, float filler)
{
    float part[kLanes];
    for (float &f : part)
        f = filler;
    for (std::int64_t i = 0; i < count; ++i)
        part[i] = p[i];
    std::memcpy(v, part, sizeof(part));
}
SPECTRA_INLINE void storeTail(float *p, const Lanes *v, std::int64_t count)
{
    float part[kLanes];
    std::memcpy(part, v, sizeof(part));
    for (std::int64_t i = 0; i < count; ++i)
        p[i] = part[i];
}
SPECTRA_INLINE void store(float *p, const Lanes *v)
{
    *reinterpret_cast<Lanes *>(p) = *v;
}
SPECTRA_INLINE float largestOf(const Lanes *v)
{
    float part[kLanes];
    std::memcpy(part, v, sizeof(part));
    float largest = part[0];
    for (const float p : part)
        largest = largest > p ? largest : p;
    return largest;
}

/// Maximum of a row's entries [begin, end), −∞ for none; NaN entries do not count.
SPECTRA_INLINE float rowMaximum(const float *row, std::int64_t begin, std::int64_t end)
{
    Lanes best = Lanes{} - INFINITY, v;
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
        load(&v, row + i);
        best = v > best ? v : best;
    }
    loadTail(&v, row + i, end - i, -INFINITY);
    best = v > best ? v : best;
    return largestOf(&best);
}

SPECTRA_INLINE void siluLanes(Lanes *gate, const Lanes *up)
{
    Lanes e = -*gate;
    exponential(&e);
    *gate = *gate / (1.0f + e) * *up;
}

SPECTRA_INLINE void siluRange(float *y, const float *x, std::int64_t begin, std::int64_t end, std::int64_t intermediate)
{
    for (std::int64_t r = begin; r < end; ++r) {
        const float *const gate = x + r * 2 * intermediate;
        const float *const up = gate + intermediate;
        float *const result = y + r * intermediate;
        Lanes g, u;
        std::int64_t i = 0;
        for (; i + kLanes <= intermediate; i += kLanes) {
            load(&g, gate + i);
            load(&u, up + i);
            siluLanes(&g, &u);
            store(result + i, &g);
        }
        if (i < intermediate) {
            loadTail(&g, gate + i, intermediate - i, 0);
            loadTail(&u, up + i, intermediate - i, 0);
            siluLanes(&g, &u);
            storeTail(result + i, &g, intermediate - i);
        }
    }
}

SPECTRA_INLINE void logSumExpRange(const float *x, std::int64_t begin, std::int64_t end, std::int64_t width, float *lse, std::int32_t *top1)
{
    for (std::int64_t r = begin; r < end; ++r) {
        const float *const row = x + r * width;
        const float largest = rowMaximum(row, 0, width);
        double total = 0;
        // Partial sums of 1,024 keep f32 rounding small without a double addition per entry.
        for (std::int64_t i = 0; i < width;) {
            const std::int64_t stop = std::min(width, i + 1024);
            Lanes part{}, v;
            for (; i + kLanes <= stop; i += kLanes) {
                load(&v, row + i);
                v -= largest;
                exponential(&v);
                part += v;
            }
            total += sum(&part);
            if (i < stop) {
                float last[kLanes];
                loadTail(&v, row + i, stop - i, 0);
                v -= largest;
                exponential(&v);
                std::memcpy(last, &v, sizeof(last));
                for (std::int64_t j = 0; i < stop; ++i, ++j)
                    total += last[j];
            }
        }
        lse[r] = static_cast<float>(largest + std::log(total));
        if (top1)
            top1[r] = static_cast<std::int32_t>((std::find(row, row + width, largest) - row) % width); // nothing but NaN: the first
    }
}

SPECTRA_INLINE void causalExpRange(float *scores, float *inverse, std::int64_t begin, std::int64_t end, std::int64_t width, std::int64_t group,
                                   std::int64_t last0, std::int64_t window)
{
    for (std::int64_t r = begin; r < end; ++r) {
        float *const row = scores + r * width;
        const std::int64_t stop = std::min(width, last0 + r / group + 1);
        const std::int64_t start = window > 0 ? std::max<std::int64_t>(0, stop - window) : 0;
        const float largest = rowMaximum(row, start, stop);
        Lanes part{}, v;
        std::int64_t i = start;
        for (; i + kLanes <= stop; i += kLanes) {
            load(&v, row + i);
            v -= largest;
            exponential(&v);
            store(row + i, &v);
            part += v;
        }
        float total = sum(&part);
        if (i < stop) {
            loadTail(&v, row + i, stop - i, 0);
            v -= largest;
            exponential(&v);
            storeTail(row + i, &v, stop - i);
            for (; i < stop; ++i)
                total += row[i];
        }
        inverse[r] = 1 / total;
        for (i = 0; i < start; ++i)
            row[i] = 0;
        for (i = stop; i < width; ++i)
            row[i] = 0;
    }
}

// One set of functions per target. The bodies above are inlined into each.
#define SPECTRA_TARGET_SET(NAME, ATTRIBUTE)                                                                                               \
    struct NAME {                                                                                                                         \
        ATTRIBUTE static void gemvF32(float *y, const float *w, const float *x, const float *b, std::int64_t rows, std::int64_t begin,     \
                                      std::int64_t end, std::int64_t out, std::int64_t in, bool add)                                      \
        {                                                                                                                                 \
            gemvAny(y, w, x, b, rows, begin, end, out, in, add);                                                                          \
        }                                                                                                                                 \
        ATTRIBUTE static void gemvBf16(float *y, const bfloat *w, const float *x, const float *b, std::int64_t rows, std::int64_t begin,   \
                                       std::int64_t end, std::int64_t out, std::int64_t in, bool add)                                     \
        {                                                                                                                                 \
            gemvAny(y, w, x, b, rows, begin, end, out, in, add);                                                                          \
        }                                                                                                                                 \
        ATTRIBUTE static void attend(float *o, const float *q, const float *k, const float *v, float *s, std::int64_t headDim,            \
                                     std::int64_t length, std::int64_t skip, float scale)                                                 \
        {                                                                                                                                 \
            attendHead(o, q, k, v, s, headDim, length, skip, scale);                                                                      \
        }                                                                                                                                 \
        ATTRIBUTE static void combine(float *o, const float *y, const std::int64_t *slotRow, const float *w, float scale,                 \
                                      std::int64_t begin, std::int64_t end, std::int64_t slots, std::int64_t width)                       \
        {                                                                                                                                 \
            combineRange(o, y, slotRow, w, scale, begin, end, slots, width);                                                              \
        }                                                                                                                                 \
        ATTRIBUTE static void rmsNorm(float *y, const float *x, const float *w, float e, std::int64_t begin, std::int64_t end,            \
                                      std::int64_t width)                                                                                 \
        {                                                                                                                                 \
            rmsNormRange(y, x, w, e, begin, end, width);                                                                                  \
        }                                                                                                                                 \
        ATTRIBUTE static void silu(float *y, const float *x, std::int64_t begin, std::int64_t end, std::int64_t width)                    \
        {                                                                                                                                 \
            siluRange(y, x, begin, end, width);                                                                                           \
        }                                                                                                                                 \
        ATTRIBUTE static void logSumExp(const float *x, std::int64_t begin, std::int64_t end, std::int64_t width, float *lse,             \
                                        std::int32_t *top1)                                                                               \
        {                                                                                                                                 \
            logSumExpRange(x, begin, end, width, lse, top1);                                                                              \
        }                                                                                                                                 \
        ATTRIBUTE static void causalExp(float *s, float *inverse, std::int64_t begin, std::int64_t end, std::int64_t width,               \
                                        std::int64_t group, std::int64_t last0, std::int64_t window)                                      \
        {                                                                                                                                 \
            causalExpRange(s, inverse, begin, end, width, group, last0, window);                                                          \
        }                                                                                                                                 \
    };

#if defined(__x86_64__)
SPECTRA_TARGET_SET(Wide, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"), optimize("O3"))))
SPECTRA_TARGET_SET(Middle, __attribute__((target("avx2,fma"), optimize("O3"))))
#endif
SPECTRA_TARGET_SET(Plain, )

struct Table {
    decltype(&Plain::gemvF32) gemvF32;
    decltype(&Plain::gemvBf16) gemvBf16;
    decltype(&Plain::attend) attend;
    decltype(&Plain::combine) combine;
    decltype(&Plain::rmsNorm) rmsNorm;
    decltype(&Plain::silu) silu;
    decltype(&Plain::logSumExp) logSumExp;
    decltype(&Plain::causalExp) causalExp;
};
template <typename Set> constexpr Table tableOf()
{
    return {&Set::gemvF32, &Set::gemvBf16, &Set::attend, &Set::combine, &Set::rmsNorm, &Set::silu, &Set::logSumExp, &Set::causalExp};
}

const Table &table()
{
    static const Table chosen = [] {
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
            && __builtin_cpu_supports("avx512vl"))
            return tableOf<Wide>();
        if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
            return tableOf<Middle>();
#endif
        return tableOf<Plain>();
    }();
    return chosen;
}

/// Splits [0, n) when `work` multiply-adds are worth it; borders fall on multiples of `grain`, so that tiles do not change
/// with the split and results stay the same at any thread count.
template <typename Body> void split(std::int64_t n, std::int64_t grain, std::int64_t work, const Body &body)
{
    const int threads = threadCount();
    const std::int64_t pieces = (n + grain - 1) / grain;
    if (threads == 1 || work < kWorthAThread || pieces < 2) {
        body(0, n);
        return;
    }
    // Several parts per thread where they are worth their handing out: cores do not read memory equally fast.
    const std::int64_t parts = std::clamp<std::int64_t>(work / kWorthAThread, threads, 4 * threads);
    parallelFor(pieces, static_cast<int>(std::min<std::int64_t>(pieces, parts)), [&](std::int64_t begin, std::int64_t end, int) {
        body(begin * grain, std::min(n, end * grain));
    });
}

template <typename W, typename F>
void gemvSplit(F function, float *y, const W *w, const float *x, const float *bias, std::int64_t rows, std::int64_t out, std::int64_t in,
               bool accumulate)
{
    split(out, 4, out * in, [&](std::int64_t begin, std::int64_t end) { function(y, w, x, bias, rows, begin, end, out, in, accumulate); });
}

} // namespace

void gemv(float *y, const float *w, const float *x, const float *bias, std::int64_t rows, std::int64_t out, std::int64_t in, bool accumulate)
{
    gemvSplit(table().gemvF32, y, w, x, bias, rows, out, in, accumulate);
}

void gemv(float *y, const bfloat *w, const float *x, const float *bias, std::int64_t rows, std::int64_t out, std::int64_t in, bool accumulate)
{
    gemvSplit(table().gemvBf16, y, w, x, bias, rows, out, in, accumulate);
}

void gemvMany(const GemvJob *jobs, int count, std::int64_t out, std::int64_t in, bool bf16)
{
    // All matrices end to end are one range of rows; a piece may begin in one and end in the next.
    const std::int64_t outPadded = (out + 3) / 4 * 4;
    split(outPadded * count, 4, out * in * count, [&](std::int64_t begin, std::int64_t end) {
        while (begin < end) {
            const std::int64_t j = begin / outPadded;
            const std::int64_t first = begin - j * outPadded;
            const std::int64_t last = std::min(outPadded, end - j * outPadded);
            if (first < out) {
                if (bf16)
                    table().gemvBf16(jobs[j].y, static_cast<const bfloat *>(jobs[j].w), jobs[j].x, nullptr, 1, first, std::min(last, out), out, in, false);
                else
                    table().gemvF32(jobs[j].y, static_cast<const float *>(jobs[j].w), jobs[j].x, nullptr, 1, first, std::min(last, out), out, in, false);
            }
            begin = j * outPadded + last;
        }
    });
}

void rmsNorm(float *y, const float *x, const float *w, double epsilon, std::int64_t rows, std::int64_t width)
{
    split(rows, 1, rows * width, [&](std::int64_t begin, std::int64_t end) {
        table().rmsNorm(y, x, w, static_cast<float>(epsilon), begin, end, width);
    });
}

void siluMultiply(float *y, const float *x, std::int64_t rows, std::int64_t intermediate)
{
    split(rows, 1, rows * intermediate * 8, [&](std::int64_t begin, std::int64_t end) { table().silu(y, x, begin, end, intermediate); });
}

void rotate(float *x, std::int64_t rowStride, const float *cos, const float *sin, std::int64_t rows, std::int64_t heads, std::int64_t headDim,
            std::int64_t half)
{
    split(rows, 1, rows * heads * headDim, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
            const float *const c = cos + r * half;
            const float *const s = sin + r * half;
            for (std::int64_t h = 0; h < heads; ++h) {
                float *const a = x + r * rowStride + h * headDim;
                float *const b = a + half;
                for (std::int64_t j = 0; j < half; ++j) {
                    const float first = a[j], second = b[j];
                    a[j] = first * c[j] - second * s[j];
                    b[j] = second * c[j] + first * s[j];
                }
            }
        }
    });
}

void attendOne(float *out, const float *q, const float *keys, const float *values, std::int64_t heads, std::int64_t kvHeads,
               std::int64_t headDim, std::int64_t capacity, std::int64_t length, std::int64_t skip, double scale)
{
    const std::int64_t group = heads / kvHeads;
    split(heads, 1, heads * headDim * (length - skip), [&](std::int64_t begin, std::int64_t end) {
        thread_local std::vector<float> scores;
        if (static_cast<std::int64_t>(scores.size()) < length)
            scores.resize(static_cast<std::size_t>(length + length / 2));
        for (std::int64_t h = begin; h < end; ++h) {
            const std::int64_t base = h / group * capacity * headDim;
            table().attend(out + h * headDim, q + h * headDim, keys + base, values + base, scores.data(), headDim, length, skip,
                           static_cast<float>(scale));
        }
    });
}

void causalExp(float *scores, float *inverse, std::int64_t rows, std::int64_t width, std::int64_t group, std::int64_t last0, std::int64_t window)
{
    table().causalExp(scores, inverse, 0, rows, width, group, last0, window);
}

void combine(float *out, const float *y, const std::int64_t *slotRow, const float *weights, double scale, std::int64_t tokens,
             std::int64_t slots, std::int64_t width)
{
    split(tokens, 1, tokens * slots * width, [&](std::int64_t begin, std::int64_t end) {
        table().combine(out, y, slotRow, weights, static_cast<float>(scale), begin, end, slots, width);
    });
}

void logSumExp(const float *x, std::int64_t rows, std::int64_t width, float *lse, std::int32_t *top1)
{
    split(rows, 1, rows * width * 4, [&](std::int64_t begin, std::int64_t end) { table().logSumExp(x, begin, end, width, lse, top1); });
}

} // namespace spectra::kernels
