// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/softtopk.h"

#include "engine/core/parallel.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace spectra::rule {
namespace {

double sigmoid(double a)
{
    return a >= 0 ? 1 / (1 + std::exp(-a)) : std::exp(a) / (1 + std::exp(a));
}

void softRow(const float *s, std::int64_t experts, std::int64_t k, double temperature, float *g)
{
    const auto [lowest, highest] = std::minmax_element(s, s + experts);
    double check = 0;
    for (std::int64_t e = 0; e < experts; ++e)
        check += s[e] * 0.0;
    if (check != 0 || std::isnan(check)) {
        std::fill(g, g + experts, std::numeric_limits<float>::quiet_NaN());
        return;
    }
    // All at the lowest score would sum to k with λ = low − τ·logit(k/E): with the others above it Σ >= k there, and likewise on top.
    const double share = static_cast<double>(k) / static_cast<double>(experts), offset = temperature * std::log(share / (1 - share));
    double low = static_cast<double>(*lowest) - offset, high = static_cast<double>(*highest) - offset, lambda = 0.5 * (low + high);
    for (int i = 0; i < 200 && high > low; ++i) {
        double sum = 0, slope = 0;
        for (std::int64_t e = 0; e < experts; ++e) {
            const double value = sigmoid((s[e] - lambda) / temperature);
            sum += value;
            slope += value * (1 - value);
        }
        const double excess = sum - static_cast<double>(k);
        (excess > 0 ? low : high) = lambda;
        if (std::abs(excess) < 1e-13 * static_cast<double>(experts))
            break;
        double next = slope > 0 ? lambda + excess * temperature / slope : low;
        if (!(next > low && next < high))
            next = 0.5 * (low + high);
        if (next == lambda)
            break;
        lambda = next;
    }
    for (std::int64_t e = 0; e < experts; ++e)
        g[e] = static_cast<float>(sigmoid((s[e] - lambda) / temperature));
}

} // namespace

void softTopK(std::span<const float> scores, std::int64_t experts, std::int64_t k, double temperature, std::span<float> g)
{
    assert(experts >= 1 && k >= 1 && k <= experts && temperature > 0 && g.size() == scores.size());
    const std::int64_t rows = static_cast<std::int64_t>(scores.size()) / experts;
    if (k == experts) {
        for (std::size_t i = 0; i < g.size(); ++i)
            g[i] = scores[i] * 0.0f + 1.0f;
        return;
    }
    const auto body = [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t t = begin; t < end; ++t)
            softRow(scores.data() + t * experts, experts, k, temperature, g.data() + t * experts);
    };
    if (rows * experts < 4096)
        body(0, rows, 0);
    else
        parallelFor(rows, 0, body);
}

} // namespace spectra::rule
