// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/correlation.h"

#include "analysis/statistics/powerlaw.h"
#include "engine/core/random.h"

#include <boost/math/distributions/students_t.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra {
namespace {

constexpr std::size_t kExact = 8;

/// Ranks less their mean, which does not depend on ties.
std::vector<double> centred(std::span<const double> values)
{
    std::vector<double> r = ranks(values);
    for (double &v : r)
        v -= (static_cast<double>(values.size()) + 1) / 2;
    return r;
}

double product(const std::vector<double> &a, const std::vector<double> &b)
{
    return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

} // namespace

std::vector<double> ranks(std::span<const double> values)
{
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return values[x] < values[y]; });
    std::vector<double> out(values.size());
    for (std::size_t from = 0; from < order.size();) {
        std::size_t to = from;
        while (to < order.size() && values[order[to]] == values[order[from]])
            ++to;
        for (std::size_t i = from; i < to; ++i)
            out[order[i]] = static_cast<double>(from + 1 + to) / 2;
        from = to;
    }
    return out;
}

std::optional<double> spearman(std::span<const double> a, std::span<const double> b)
{
    if (a.size() != b.size() || a.size() < 2)
        return std::nullopt;
    const std::vector<double> x = centred(a), y = centred(b);
    const double xx = product(x, x), yy = product(y, y);
    if (!(xx > 0) || !(yy > 0))
        return std::nullopt;
    return std::clamp(product(x, y) / std::sqrt(xx * yy), -1.0, 1.0);
}

std::optional<double> spearmanP(std::span<const double> a, std::span<const double> b, int draws, std::uint64_t seed)
{
    if (a.size() < 3 || !spearman(a, b))
        return std::nullopt;
    const std::vector<double> x = centred(a);
    std::vector<double> y = centred(b);
    // Permuting changes neither spread: the products are compared. They are sums of quarters, so what is equal differs by rounding at most.
    const double reach = std::abs(product(x, y)) - 1e-6;
    if (y.size() <= kExact) {
        std::vector<std::size_t> order(y.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::size_t hits = 0, all = 0;
        do {
            double sum = 0;
            for (std::size_t i = 0; i < order.size(); ++i)
                sum += x[i] * y[order[i]];
            hits += std::abs(sum) >= reach;
            ++all;
        } while (std::next_permutation(order.begin(), order.end()));
        return static_cast<double>(hits) / static_cast<double>(all);
    }
    Random random(seed, 0x72616e6bull);
    std::size_t hits = 0;
    for (int t = 0; t < draws; ++t) {
        random.shuffle(y);
        hits += std::abs(product(x, y)) >= reach;
    }
    return static_cast<double>(1 + hits) / static_cast<double>(1 + draws);
}

std::optional<Regression> regress(std::span<const double> x, std::span<const double> y)
{
    const auto line = fitLine(x, y);
    if (!line)
        return std::nullopt;
    Regression r;
    r.slope = line->first;
    r.intercept = line->second;
    const double n = static_cast<double>(x.size());
    double mx = 0, my = 0, sxx = 0, syy = 0, residual = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        mx += x[i] / n;
        my += y[i] / n;
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        sxx += (x[i] - mx) * (x[i] - mx);
        syy += (y[i] - my) * (y[i] - my);
        const double off = y[i] - r.intercept - r.slope * x[i];
        residual += off * off;
    }
    r.r2 = syy > 0 ? std::max(0.0, 1 - residual / syy) : 0;
    if (x.size() > 2) {
        const boost::math::students_t t(n - 2);
        r.half = boost::math::quantile(t, 0.975) * std::sqrt(residual / (n - 2) / sxx);
    }
    return r;
}

} // namespace spectra
