// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/osr.h"

#include "engine/rule/hot.h"
#include "engine/rule/kernels.h"
#include "engine/rule/vectormath.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <vector>

namespace spectra::rule {

bool OsrOptions::isValid(std::string *why) const
{
    const auto bad = [why](const char *text) {
        if (why)
            *why = text;
        return false;
    };
    if (!(repulsionWeight >= 0) || !std::isfinite(repulsionWeight))
        return bad("osr_repulsion_weight must be a number of at least 0");
    if (!(confidencePenalty >= 0) || !std::isfinite(confidencePenalty))
        return bad("osr_confidence_penalty must be a number of at least 0");
    if (!(confidenceThreshold >= 0 && confidenceThreshold <= 1))
        return bad("osr_confidence_threshold must lie in 0..1");
    if (!(epsilon > 0) || !std::isfinite(epsilon))
        return bad("sinkhorn_epsilon must be above 0");
    return true;
}

void similarity(std::span<const float> r, std::span<const float> e, std::int64_t n, std::int64_t experts, std::int64_t dim, std::span<float> s)
{
    const std::int64_t width = experts * dim;
    const bool shared = static_cast<std::int64_t>(e.size()) == width && n != 1;
    assert(static_cast<std::int64_t>(r.size()) >= n * width && static_cast<std::int64_t>(s.size()) >= n * experts);
    const CosineKernel cosines = kernels().cosines;
    for (std::int64_t t = 0; t < n; ++t)
        cosines(r.data() + t * width, e.data() + (shared ? 0 : t * width), experts, dim, s.data() + t * experts);
}

void linearSimilarity(std::span<const float> x, std::span<const float> w, std::int64_t n, std::int64_t experts, std::int64_t hidden, std::span<float> s)
{
    const CosineKernel cosines = kernels().cosines;
    for (std::int64_t t = 0; t < n; ++t)
        for (std::int64_t e = 0; e < experts; ++e)
            cosines(x.data() + t * hidden, w.data() + e * hidden, 1, hidden, s.data() + t * experts + e);
}

void gram(std::span<const float> mean, std::int64_t experts, std::int64_t dim, std::span<float> g)
{
    // Once per layer and pass: double sums cost nothing here and keep G symmetric to the last bit.
    std::vector<double> unit(static_cast<std::size_t>(experts * dim));
    for (std::int64_t e = 0; e < experts; ++e) {
        double norm = 0;
        for (std::int64_t i = 0; i < dim; ++i)
            norm += static_cast<double>(mean[static_cast<std::size_t>(e * dim + i)]) * mean[static_cast<std::size_t>(e * dim + i)];
        norm = std::max(std::sqrt(norm), 1e-30);
        for (std::int64_t i = 0; i < dim; ++i)
            unit[static_cast<std::size_t>(e * dim + i)] = mean[static_cast<std::size_t>(e * dim + i)] / norm;
    }
    for (std::int64_t a = 0; a < experts; ++a)
        for (std::int64_t b = a; b < experts; ++b) {
            double sum = 0;
            for (std::int64_t i = 0; i < dim; ++i)
                sum += unit[static_cast<std::size_t>(a * dim + i)] * unit[static_cast<std::size_t>(b * dim + i)];
            g[static_cast<std::size_t>(a * experts + b)] = g[static_cast<std::size_t>(b * experts + a)] = static_cast<float>(sum);
        }
}

void repulsionMatrix(std::span<const float> g, std::int64_t experts, std::span<float> r)
{
    for (std::int64_t a = 0; a < experts; ++a)
        for (std::int64_t b = 0; b < experts; ++b) {
            const float value = g[static_cast<std::size_t>(a * experts + b)];
            r[static_cast<std::size_t>(a * experts + b)] = a == b ? 0.0f : value * value;
        }
}

namespace {

/// One function for both public forms, so that they cannot differ by a rounding.
[[gnu::always_inline]] inline void costRow(const float *__restrict s, const float *__restrict r, std::int64_t experts, float lambda, float beta, float tau,
                                           float *__restrict c)
{
    for (std::int64_t i = 0; i < experts; ++i)
        c[i] = 0;
    if (lambda != 0)
        for (std::int64_t j = 0; j < experts; ++j) {
            const float magnitude = std::fabs(s[j]);
            const float *__restrict row = r + j * experts; // R is symmetric: row j is column j
            for (std::int64_t i = 0; i < experts; ++i)
                c[i] += magnitude * row[i];
        }
    for (std::int64_t i = 0; i < experts; ++i) {
        const float over = std::fabs(s[i]) - tau;
        const float excess = over > 0 ? over : 0;
        c[i] = lambda * c[i] - s[i] + beta * (excess * excess);
    }
}

[[gnu::always_inline]] inline void softmaxRow(const float *__restrict v, const float *__restrict g, std::int64_t experts, float scale, bool clamp,
                                              float *__restrict q)
{
    for (std::int64_t i = 0; i < experts; ++i) {
        float z = scale * v[i];
        if (clamp)
            z = z < -50.0f ? -50.0f : z > 50.0f ? 50.0f : z;
        q[i] = g ? z + g[i] : z;
    }
    float highest = q[0];
    for (std::int64_t i = 1; i < experts; ++i)
        highest = q[i] > highest ? q[i] : highest;
    for (std::int64_t i = 0; i < experts; ++i)
        q[i] = vexp(q[i] - highest);
    float sum = 0;
    for (std::int64_t i = 0; i < experts; ++i)
        sum += q[i];
    const float inverse = 1.0f / sum;
    for (std::int64_t i = 0; i < experts; ++i)
        q[i] *= inverse;
}

SPECTRA_HOT void costRows(const float *s, const float *r, std::int64_t n, std::int64_t experts, float lambda, float beta, float tau, float *c)
{
    for (std::int64_t t = 0; t < n; ++t)
        costRow(s + t * experts, r, experts, lambda, beta, tau, c + t * experts);
}

SPECTRA_HOT void softmaxBlock(const float *v, const float *g, std::int64_t n, std::int64_t experts, float scale, bool clamp, float *scratch, float *q)
{
    for (std::int64_t t = 0; t < n; ++t) {
        softmaxRow(v + t * experts, g, experts, scale, clamp, scratch);
        std::copy_n(scratch, experts, q + t * experts);
    }
}

} // namespace

void osrCost(std::span<const float> s, std::span<const float> r, std::int64_t n, std::int64_t experts, const OsrOptions &options, std::span<float> c)
{
    assert(static_cast<std::int64_t>(s.size()) >= n * experts && static_cast<std::int64_t>(c.size()) >= n * experts);
    costRows(s.data(), r.data(), n, experts, static_cast<float>(options.repulsionWeight), static_cast<float>(options.confidencePenalty),
             static_cast<float>(options.confidenceThreshold), c.data());
}

void softmaxRows(std::span<const float> v, std::span<const float> g, std::int64_t n, std::int64_t experts, double scale, bool clamp, std::span<float> q)
{
    assert(static_cast<std::int64_t>(v.size()) >= n * experts && static_cast<std::int64_t>(q.size()) >= n * experts);
    std::vector<float> scratch(static_cast<std::size_t>(experts));
    softmaxBlock(v.data(), g.empty() ? nullptr : g.data(), n, experts, static_cast<float>(scale), clamp, scratch.data(), q.data());
}

void causalRule(std::span<const float> s, std::span<const float> r, std::span<const float> g, std::int64_t n, std::int64_t experts,
                const OsrOptions &options, std::span<float> cost, std::span<float> q)
{
    std::span<float> c = cost.empty() ? q : cost;
    osrCost(s, r, n, experts, options, c);
    softmaxRows(c, g, n, experts, -1.0 / options.epsilon, options.clampLogits, q);
}

} // namespace spectra::rule
