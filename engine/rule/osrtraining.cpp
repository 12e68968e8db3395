// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/osrtraining.h"

#include "engine/rule/hot.h"
#include "engine/rule/kernels.h"
#include "engine/rule/vectormath.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace spectra::rule {
namespace {

/// Rows side by side: blocks hold [E][kLanes], so that loops run over rows whatever E is.
constexpr std::int64_t kLanes = 32;
/// Rows whose sums are formed together before they are added to the others'.
constexpr std::int64_t kChunk = 1024;
constexpr std::int64_t kWorthThreads = 16384; ///< elements below which one thread is quicker

#define SPECTRA_ALWAYS [[gnu::always_inline]] inline

/// body(begin, end, chunk) for chunks of kChunk rows, whose borders do not depend on the threads.
template <typename Body> void forChunks(const Executor &executor, std::int64_t n, std::int64_t perRow, const Body &body)
{
    const std::int64_t chunks = (n + kChunk - 1) / kChunk;
    const auto some = [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t c = first; c < last; ++c)
            body(c * kChunk, std::min(n, (c + 1) * kChunk), c);
    };
    if (n * perRow < kWorthThreads)
        some(0, chunks);
    else
        forRange(executor, chunks, 1, some);
}

std::int64_t chunksOf(std::int64_t n)
{
    return (n + kChunk - 1) / kChunk;
}

/// `rows` <= kLanes rows of x into [E][kLanes], each times `factor`; lanes past the end repeat the last row.
SPECTRA_HOT void loadBlock(const float *__restrict x, std::int64_t rows, std::int64_t experts, float factor, float *__restrict out)
{
    for (std::int64_t l = 0; l < kLanes; ++l) {
        const float *row = x + std::min(l, rows - 1) * experts;
        for (std::int64_t i = 0; i < experts; ++i)
            out[i * kLanes + l] = row[i] * factor;
    }
}

SPECTRA_HOT void storeBlock(const float *__restrict block, std::int64_t rows, std::int64_t experts, float factor, float *__restrict out)
{
    for (std::int64_t l = 0; l < rows; ++l)
        for (std::int64_t i = 0; i < experts; ++i)
            out[l * experts + i] = block[i * kLanes + l] * factor;
}

/// Adds the lanes of valid rows per expert, in order of the lanes.
SPECTRA_HOT void sumLanes(const float *__restrict block, std::int64_t experts, double *__restrict sums)
{
    for (std::int64_t i = 0; i < experts; ++i) {
        double sum = 0;
        for (std::int64_t l = 0; l < kLanes; ++l)
            sum += static_cast<double>(block[i * kLanes + l]);
        sums[i] += sum;
    }
}

struct Lanes {
    float v[kLanes];
    explicit Lanes(std::int64_t rows)
    {
        for (std::int64_t l = 0; l < kLanes; ++l)
            v[l] = l < rows ? 1.0f : 0.0f;
    }
};

/// Row softmax of k + g: p receives exp(k + g − max)·inverse; `largest` and `inverse` (0 in lanes that do not count) per row.
SPECTRA_ALWAYS void rowSoftmax(const float *__restrict k, const float *__restrict g, std::int64_t experts, const float *__restrict valid,
                               float *__restrict p, float *__restrict largest, float *__restrict inverse)
{
    for (std::int64_t l = 0; l < kLanes; ++l)
        largest[l] = k[l] + g[0];
    for (std::int64_t i = 1; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float z = k[i * kLanes + l] + g[i];
            largest[l] = z > largest[l] ? z : largest[l];
        }
    float sum[kLanes] = {};
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float w = vexp(k[i * kLanes + l] + g[i] - largest[l]);
            p[i * kLanes + l] = w;
            sum[l] += w;
        }
    for (std::int64_t l = 0; l < kLanes; ++l)
        inverse[l] = valid[l] / sum[l];
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l)
            p[i * kLanes + l] *= inverse[l];
}

SPECTRA_HOT void softmaxBlock(const float *__restrict k, const float *__restrict g, std::int64_t experts, const float *__restrict valid, float *__restrict p)
{
    float largest[kLanes], inverse[kLanes];
    rowSoftmax(k, g, experts, valid, p, largest, inverse);
}

/// sums[i][lane] += P of this block.
SPECTRA_HOT void forwardBlock(const float *__restrict k, const float *__restrict g, std::int64_t experts, const float *__restrict valid,
                              float *__restrict p, float *__restrict sums)
{
    float largest[kLanes], inverse[kLanes];
    rowSoftmax(k, g, experts, valid, p, largest, inverse);
    for (std::int64_t i = 0; i < experts * kLanes; ++i)
        sums[i] += p[i];
}

/// One iteration back. P: row softmax of K + g_before; A: column softmax, P·exp(shift) with shift = g_after − g_before − log(total/E), formed
/// without a quotient of small numbers. dk += −G·A − df·P and next −= df·P with df = −Σ_i G_i A_i.
SPECTRA_HOT void backwardBlock(const float *__restrict k, const float *__restrict before, const float *__restrict shift, const float *__restrict gradient,
                               std::int64_t experts, const float *__restrict valid, float *__restrict p, float *__restrict a, float *__restrict dk,
                               float *__restrict next)
{
    float largest[kLanes], inverse[kLanes], df[kLanes] = {};
    rowSoftmax(k, before, experts, valid, p, largest, inverse);
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float w = gradient[i] * vexp(k[i * kLanes + l] + before[i] - largest[l] + shift[i]) * inverse[l];
            a[i * kLanes + l] = w;
            df[l] -= w;
        }
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float through = df[l] * p[i * kLanes + l];
            dk[i * kLanes + l] -= a[i * kLanes + l] + through;
            next[i * kLanes + l] -= through;
        }
}

SPECTRA_HOT void costBlock(const float *__restrict s, const float *__restrict r, std::int64_t experts, float lambda, float beta, float tau,
                           float *__restrict c)
{
    for (std::int64_t i = 0; i < experts; ++i) {
        float sum[kLanes] = {};
        for (std::int64_t j = 0; j < experts; ++j) {
            const float weight = r[j * experts + i];
            for (std::int64_t l = 0; l < kLanes; ++l)
                sum[l] += std::fabs(s[j * kLanes + l]) * weight;
        }
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float v = s[i * kLanes + l], over = std::fabs(v) - tau, high = over > 0.0f ? over : 0.0f;
            c[i * kLanes + l] = lambda * sum[l] - v + beta * high * high;
        }
    }
}

SPECTRA_HOT void costGradientBlock(const float *__restrict s, const float *__restrict r, const float *__restrict dc, std::int64_t experts, float lambda,
                                   float beta, float tau, float *__restrict ds)
{
    for (std::int64_t i = 0; i < experts; ++i) {
        float sum[kLanes] = {};
        for (std::int64_t j = 0; j < experts; ++j) {
            const float weight = r[i * experts + j];
            for (std::int64_t l = 0; l < kLanes; ++l)
                sum[l] += dc[j * kLanes + l] * weight;
        }
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float v = s[i * kLanes + l], over = std::fabs(v) - tau, high = over > 0.0f ? over : 0.0f;
            const float sign = v > 0.0f ? 1.0f : v < 0.0f ? -1.0f : 0.0f, d = dc[i * kLanes + l];
            ds[i * kLanes + l] = sign * (lambda * sum[l] + 2.0f * beta * high * d) - d;
        }
    }
}

SPECTRA_HOT void magnitudes(const float *__restrict s, std::int64_t n, float *__restrict out)
{
    for (std::int64_t i = 0; i < n; ++i)
        out[i] = std::fabs(s[i]);
}

SPECTRA_HOT void planGradientBlock(const float *__restrict q, const float *__restrict dq, std::int64_t experts, const float *__restrict valid,
                                   float *__restrict dz, float *__restrict sums)
{
    float dot[kLanes] = {};
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l)
            dot[l] += q[i * kLanes + l] * dq[i * kLanes + l];
    for (std::int64_t i = 0; i < experts; ++i)
        for (std::int64_t l = 0; l < kLanes; ++l) {
            const float d = q[i * kLanes + l] * (dq[i * kLanes + l] - dot[l]) * valid[l];
            dz[i * kLanes + l] = d;
            sums[i * kLanes + l] += d;
        }
}

constexpr int kParts = 16; ///< partial sums of a scalar product

SPECTRA_ALWAYS float total(const float (&parts)[kParts])
{
    float four[4];
    for (int l = 0; l < 4; ++l)
        four[l] = (parts[l] + parts[l + 8]) + (parts[l + 4] + parts[l + 12]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

SPECTRA_HOT void similarityGradientRow(const float *__restrict r, const float *__restrict e, const float *__restrict s, const float *__restrict ds,
                                       std::int64_t experts, std::int64_t dim, float *__restrict dr, float *__restrict de, bool addToE)
{
    for (std::int64_t i = 0; i < experts; ++i, r += dim, e += dim) {
        float rrParts[kParts] = {}, eeParts[kParts] = {};
        std::int64_t j = 0;
        for (; j + kParts <= dim; j += kParts)
            for (int l = 0; l < kParts; ++l) {
                rrParts[l] += r[j + l] * r[j + l];
                eeParts[l] += e[j + l] * e[j + l];
            }
        float rr = total(rrParts), ee = total(eeParts);
        for (; j < dim; ++j) {
            rr += r[j] * r[j];
            ee += e[j] * e[j];
        }
        const float norms = std::sqrt(rr) * std::sqrt(ee);
        const bool free = norms > 1e-8f;
        const float direct = ds[i] / (free ? norms : 1e-8f);
        const float alongR = free ? ds[i] * s[i] / rr : 0.0f, alongE = free ? ds[i] * s[i] / ee : 0.0f;
        if (dr) {
            for (std::int64_t k = 0; k < dim; ++k)
                dr[k] = direct * e[k] - alongR * r[k];
            dr += dim;
        }
        if (de) {
            if (addToE)
                for (std::int64_t k = 0; k < dim; ++k)
                    de[k] += direct * r[k] - alongE * e[k];
            else
                for (std::int64_t k = 0; k < dim; ++k)
                    de[k] = direct * r[k] - alongE * e[k];
            de += dim;
        }
    }
}

/// Scratch of one chunk: blocks one after the other.
std::vector<float> loadChunks(const float *x, std::int64_t n, std::int64_t experts, float factor, const Executor &executor)
{
    std::vector<float> all(static_cast<std::size_t>(chunksOf(n) * kChunk * experts));
    forChunks(executor, n, experts, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        for (std::int64_t t = begin; t < end; t += kLanes)
            loadBlock(x + t * experts, std::min(kLanes, end - t), experts, factor, all.data() + t * experts);
    });
    return all;
}

/// exp(maxima)·sums = Σ_t exp(K_ti + f_t), the exact and slow way: for columns whose terms underflow beside their rows' largest.
void exactColumnSums(const float *cost, std::int64_t n, std::int64_t experts, double epsilon, const float *g, std::span<double> maxima, std::span<double> sums)
{
    std::fill(maxima.begin(), maxima.end(), -std::numeric_limits<double>::infinity());
    std::fill(sums.begin(), sums.end(), 0.0);
    std::vector<double> z(static_cast<std::size_t>(experts));
    for (int pass = 0; pass < 2; ++pass)
        for (std::int64_t t = 0; t < n; ++t) {
            double largest = -std::numeric_limits<double>::infinity(), sum = 0;
            for (std::int64_t i = 0; i < experts; ++i) {
                z[static_cast<std::size_t>(i)] = -static_cast<double>(cost[t * experts + i]) / epsilon;
                largest = std::max(largest, z[static_cast<std::size_t>(i)] + static_cast<double>(g[i]));
            }
            for (std::int64_t i = 0; i < experts; ++i)
                sum += std::exp(z[static_cast<std::size_t>(i)] + static_cast<double>(g[i]) - largest);
            const double f = -largest - std::log(sum);
            for (std::size_t i = 0; i < static_cast<std::size_t>(experts); ++i) {
                if (pass == 0)
                    maxima[i] = std::max(maxima[i], z[i] + f);
                else
                    sums[i] += std::exp(z[i] + f - maxima[i]);
            }
        }
}

} // namespace

void similarityForward(const float *r, const float *e, bool shared, std::int64_t n, std::int64_t experts, std::int64_t dim, float *s,
                       const Executor &executor)
{
    const CosineKernel cosines = kernels().cosines;
    forChunks(executor, n, experts * dim, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        for (std::int64_t t = begin; t < end; ++t)
            cosines(r + t * experts * dim, shared ? e : e + t * experts * dim, experts, dim, s + t * experts);
    });
}

void similarityBackward(const float *r, const float *e, bool shared, const float *s, const float *ds, std::int64_t n, std::int64_t experts,
                        std::int64_t dim, float *dr, float *de, const Executor &executor)
{
    const std::int64_t row = experts * dim;
    std::vector<float> sums(shared && de ? static_cast<std::size_t>(chunksOf(n) * row) : 0);
    forChunks(executor, n, row, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
        for (std::int64_t t = begin; t < end; ++t) {
            float *const out = !de ? nullptr : shared ? sums.data() + chunk * row : de + t * row;
            similarityGradientRow(r + t * row, shared ? e : e + t * row, s + t * experts, ds + t * experts, experts, dim, dr ? dr + t * row : nullptr, out,
                                  shared);
        }
    });
    if (shared && de)
        for (std::int64_t i = 0; i < row; ++i) {
            double sum = 0;
            for (std::int64_t c = 0; c < chunksOf(n); ++c)
                sum += static_cast<double>(sums[static_cast<std::size_t>(c * row + i)]);
            de[i] = static_cast<float>(sum);
        }
}

void costForward(const float *s, const float *r, std::int64_t n, std::int64_t experts, const CostWeights &w, float *c, const Executor &executor)
{
    forChunks(executor, n, experts * experts, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        std::vector<float> block(static_cast<std::size_t>(2 * experts * kLanes));
        float *const in = block.data(), *const out = in + experts * kLanes;
        for (std::int64_t t = begin; t < end; t += kLanes) {
            const std::int64_t rows = std::min(kLanes, end - t);
            loadBlock(s + t * experts, rows, experts, 1.0f, in);
            costBlock(in, r, experts, w.lambda, w.beta, w.tau, out);
            storeBlock(out, rows, experts, 1.0f, c + t * experts);
        }
    });
}

void costBackward(const float *s, const float *r, const float *dc, std::int64_t n, std::int64_t experts, const CostWeights &w, float *ds, float *dr,
                  const Executor &executor)
{
    const std::int64_t square = experts * experts;
    std::vector<float> sums(dr ? static_cast<std::size_t>(chunksOf(n) * square) : 0);
    forChunks(executor, n, square, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
        std::vector<float> block(static_cast<std::size_t>(3 * experts * kLanes));
        float *const in = block.data(), *const gradient = in + experts * kLanes, *const out = gradient + experts * kLanes;
        for (std::int64_t t = begin; t < end; t += kLanes) {
            const std::int64_t rows = std::min(kLanes, end - t);
            loadBlock(s + t * experts, rows, experts, 1.0f, in);
            loadBlock(dc + t * experts, rows, experts, 1.0f, gradient);
            costGradientBlock(in, r, gradient, experts, w.lambda, w.beta, w.tau, out);
            storeBlock(out, rows, experts, 1.0f, ds + t * experts);
        }
        if (dr) {
            std::vector<float> magnitude(static_cast<std::size_t>((end - begin) * experts));
            magnitudes(s + begin * experts, (end - begin) * experts, magnitude.data());
            kernels().outer(magnitude.data(), experts, experts, dc + begin * experts, experts, experts, end - begin, sums.data() + chunk * square, experts);
        }
    });
    if (dr)
        for (std::int64_t i = 0; i < square; ++i) {
            double sum = 0;
            for (std::int64_t c = 0; c < chunksOf(n); ++c)
                sum += static_cast<double>(sums[static_cast<std::size_t>(c * square + i)]);
            dr[i] = static_cast<float>(w.lambda * sum);
        }
}

void potentialForward(const float *cost, std::int64_t n, std::int64_t experts, double epsilon, int iterations, double total, float *potentials,
                      const ColumnReduction &reduction, const Executor &executor)
{
    const auto e = static_cast<std::size_t>(experts);
    const std::vector<float> k = loadChunks(cost, n, experts, static_cast<float>(-1.0 / epsilon), executor);
    const double share = std::log(total / static_cast<double>(experts));
    std::vector<double> perChunk(static_cast<std::size_t>(std::max<std::int64_t>(1, chunksOf(n))) * e), maxima(e), sums(e);
    std::fill_n(potentials, experts, 0.0f);
    for (int it = 0; it < iterations; ++it) {
        const float *g = potentials + it * experts;
        std::fill(perChunk.begin(), perChunk.end(), 0.0);
        forChunks(executor, n, experts * 4, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
            std::vector<float> scratch(2 * e * kLanes, 0.0f);
            float *const p = scratch.data(), *const lanes = p + experts * kLanes;
            const Lanes whole(kLanes), tail((end - begin) % kLanes);
            for (std::int64_t t = begin; t < end; t += kLanes)
                forwardBlock(k.data() + t * experts, g, experts, end - t < kLanes ? tail.v : whole.v, p, lanes);
            sumLanes(lanes, experts, perChunk.data() + chunk * experts);
        });
        bool small = false;
        for (std::size_t i = 0; i < e; ++i) {
            maxima[i] = -static_cast<double>(g[i]);
            sums[i] = 0;
            for (std::size_t c = 0; c < perChunk.size() / e; ++c)
                sums[i] += perChunk[c * e + i];
            small = small || !(sums[i] > 1e-20);
        }
        if (small && n > 0)
            exactColumnSums(cost, n, experts, epsilon, g, maxima, sums);
        if (reduction.logSums)
            reduction.logSums(maxima, sums);
        for (std::size_t i = 0; i < e; ++i)
            potentials[static_cast<std::size_t>(it + 1) * e + i] = total > 0 ? static_cast<float>(share - maxima[i] - std::log(sums[i])) : 0.0f;
    }
}

void potentialBackward(const float *cost, const float *potentials, const float *dg, std::int64_t n, std::int64_t experts, double epsilon,
                       int iterations, double total, float *dcost, const ColumnReduction &reduction, const Executor &executor)
{
    const auto e = static_cast<std::size_t>(experts);
    const std::vector<float> k = loadChunks(cost, n, experts, static_cast<float>(-1.0 / epsilon), executor);
    const double share = std::log(std::max(total, 1.0) / static_cast<double>(experts));
    std::vector<float> dk(k.size(), 0.0f), gradient(dg, dg + experts), shift(e);
    std::vector<double> perChunk(static_cast<std::size_t>(std::max<std::int64_t>(1, chunksOf(n))) * e), next(e);
    for (int it = iterations; it > 0; --it) {
        const float *before = potentials + (it - 1) * experts, *after = potentials + it * experts;
        for (std::size_t i = 0; i < e; ++i)
            shift[i] = static_cast<float>(static_cast<double>(after[i]) - static_cast<double>(before[i]) - share);
        std::fill(perChunk.begin(), perChunk.end(), 0.0);
        forChunks(executor, n, experts * 8, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
            std::vector<float> scratch(3 * e * kLanes, 0.0f);
            float *const p = scratch.data(), *const a = p + experts * kLanes, *const lanes = a + experts * kLanes;
            const Lanes whole(kLanes), tail((end - begin) % kLanes);
            for (std::int64_t t = begin; t < end; t += kLanes)
                backwardBlock(k.data() + t * experts, before, shift.data(), gradient.data(), experts, end - t < kLanes ? tail.v : whole.v, p, a,
                              dk.data() + t * experts, lanes);
            sumLanes(lanes, experts, perChunk.data() + chunk * experts);
        });
        std::fill(next.begin(), next.end(), 0.0);
        for (std::size_t c = 0; c < perChunk.size() / e; ++c)
            for (std::size_t i = 0; i < e; ++i)
                next[i] += perChunk[c * e + i];
        if (reduction.sums)
            reduction.sums(next);
        for (std::size_t i = 0; i < e; ++i)
            gradient[i] = static_cast<float>(next[i]);
    }
    forChunks(executor, n, experts, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        for (std::int64_t t = begin; t < end; t += kLanes)
            storeBlock(dk.data() + t * experts, std::min(kLanes, end - t), experts, static_cast<float>(-1.0 / epsilon), dcost + t * experts);
    });
}

void planForward(const float *cost, const float *g, std::int64_t n, std::int64_t experts, double epsilon, float *q, const Executor &executor)
{
    forChunks(executor, n, experts * 4, [&](std::int64_t begin, std::int64_t end, std::int64_t) {
        std::vector<float> scratch(static_cast<std::size_t>(2 * experts * kLanes));
        float *const k = scratch.data(), *const p = k + experts * kLanes;
        const Lanes whole(kLanes);
        for (std::int64_t t = begin; t < end; t += kLanes) {
            const std::int64_t rows = std::min(kLanes, end - t);
            loadBlock(cost + t * experts, rows, experts, static_cast<float>(-1.0 / epsilon), k);
            softmaxBlock(k, g, experts, whole.v, p);
            storeBlock(p, rows, experts, 1.0f, q + t * experts);
        }
    });
}

void planBackward(const float *q, const float *dq, std::int64_t n, std::int64_t experts, double epsilon, float *dcost, float *dg,
                  const Executor &executor)
{
    const auto e = static_cast<std::size_t>(experts);
    std::vector<double> perChunk(static_cast<std::size_t>(chunksOf(n)) * e, 0.0);
    forChunks(executor, n, experts * 2, [&](std::int64_t begin, std::int64_t end, std::int64_t chunk) {
        std::vector<float> scratch(4 * e * kLanes, 0.0f);
        float *const plan = scratch.data(), *const gradient = plan + experts * kLanes, *const dz = gradient + experts * kLanes,
              *const lanes = dz + experts * kLanes;
        const Lanes whole(kLanes), tail((end - begin) % kLanes);
        for (std::int64_t t = begin; t < end; t += kLanes) {
            const std::int64_t rows = std::min(kLanes, end - t);
            loadBlock(q + t * experts, rows, experts, 1.0f, plan);
            loadBlock(dq + t * experts, rows, experts, 1.0f, gradient);
            planGradientBlock(plan, gradient, experts, rows < kLanes ? tail.v : whole.v, dz, lanes);
            if (dcost)
                storeBlock(dz, rows, experts, static_cast<float>(-1.0 / epsilon), dcost + t * experts);
        }
        sumLanes(lanes, experts, perChunk.data() + chunk * experts);
    });
    if (dg)
        for (std::size_t i = 0; i < e; ++i) {
            double sum = 0;
            for (std::size_t c = 0; c < perChunk.size() / e; ++c)
                sum += perChunk[c * e + i];
            dg[i] = static_cast<float>(sum);
        }
}

} // namespace spectra::rule
