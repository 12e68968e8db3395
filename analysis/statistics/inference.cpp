// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/inference.h"

#include "engine/core/random.h"

#include <boost/math/distributions/students_t.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra {
namespace {

double mean(std::span<const double> v)
{
    return std::accumulate(v.begin(), v.end(), 0.0) / static_cast<double>(v.size());
}

/// Sample variance, ddof 1.
double variance(std::span<const double> v)
{
    const double m = mean(v);
    double sum = 0;
    for (const double x : v)
        sum += (x - m) * (x - m);
    return sum / static_cast<double>(v.size() - 1);
}

double quantile(double freedom, double level)
{
    return boost::math::quantile(boost::math::students_t(freedom), (1 + level) / 2);
}

/// From a difference and its standard error. Values that only rounding tells apart have no spread.
TestResult testOf(double difference, double error, double freedom, double scale)
{
    TestResult r;
    r.difference = difference;
    r.freedom = freedom;
    const double rounding = 1e-14 * scale;
    if (error <= rounding) {
        const bool same = std::abs(difference) <= rounding;
        r.statistic = same ? 0 : std::copysign(INFINITY, difference);
        r.p = same ? 1 : 0;
        r.half = 0;
        return r;
    }
    r.statistic = difference / error;
    r.p = 2 * boost::math::cdf(boost::math::complement(boost::math::students_t(freedom), std::abs(r.statistic)));
    r.half = quantile(freedom, 0.95) * error;
    return r;
}

double largest(std::span<const double> v)
{
    double m = 0;
    for (const double x : v)
        m = std::max(m, std::abs(x));
    return m;
}

std::vector<double> differences(std::span<const double> a, std::span<const double> b)
{
    std::vector<double> d(a.size());
    for (std::size_t i = 0; i < d.size(); ++i)
        d[i] = a[i] - b[i];
    return d;
}

std::vector<std::size_t> ascending(std::span<const double> p)
{
    std::vector<std::size_t> order(p.size());
    std::iota(order.begin(), order.end(), std::size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](std::size_t x, std::size_t y) { return p[x] < p[y]; });
    return order;
}

} // namespace

std::optional<MeanInterval> meanInterval(std::span<const double> values, double level)
{
    if (values.empty())
        return std::nullopt;
    MeanInterval m;
    m.mean = mean(values);
    m.n = values.size();
    if (m.n >= 2) {
        m.deviation = std::sqrt(variance(values));
        m.half = quantile(static_cast<double>(m.n - 1), level) * *m.deviation / std::sqrt(static_cast<double>(m.n));
    }
    return m;
}

std::optional<TestResult> oneSampleT(std::span<const double> values, double value)
{
    if (values.size() < 2)
        return std::nullopt;
    const double n = static_cast<double>(values.size());
    return testOf(mean(values) - value, std::sqrt(variance(values) / n), n - 1, std::max(largest(values), std::abs(value)));
}

std::optional<TestResult> pairedT(std::span<const double> a, std::span<const double> b)
{
    if (a.size() != b.size() || a.size() < 2)
        return std::nullopt;
    const std::vector<double> d = differences(a, b);
    const double n = static_cast<double>(d.size());
    return testOf(mean(d), std::sqrt(variance(d) / n), n - 1, std::max(largest(a), largest(b)));
}

std::optional<TestResult> welchT(std::span<const double> a, std::span<const double> b)
{
    if (a.size() < 2 || b.size() < 2)
        return std::nullopt;
    const double na = static_cast<double>(a.size()), nb = static_cast<double>(b.size());
    const double ea = variance(a) / na, eb = variance(b) / nb, sum = ea + eb;
    const double freedom = sum > 0 ? sum * sum / (ea * ea / (na - 1) + eb * eb / (nb - 1)) : na + nb - 2;
    return testOf(mean(a) - mean(b), std::sqrt(sum), freedom, std::max(largest(a), largest(b)));
}

std::optional<TestResult> pairedPermutation(std::span<const double> a, std::span<const double> b, int draws, std::uint64_t seed)
{
    if (a.size() != b.size() || a.empty())
        return std::nullopt;
    const std::vector<double> d = differences(a, b);
    const std::size_t n = d.size();
    TestResult r;
    r.difference = mean(d);
    r.statistic = r.difference;
    const double reach = std::abs(r.difference) * static_cast<double>(n) * (1 - 1e-12);
    const auto flipped = [&](const auto &flip) {
        double sum = 0;
        for (std::size_t i = 0; i < n; ++i)
            sum += flip(i) ? -d[i] : d[i];
        return std::abs(sum) >= reach;
    };
    if (n <= 16) {
        std::size_t hits = 0;
        for (std::size_t code = 0; code < (std::size_t(1) << n); ++code)
            hits += flipped([&](std::size_t i) { return (code >> i & 1) != 0; });
        r.p = static_cast<double>(hits) / static_cast<double>(std::size_t(1) << n);
        return r;
    }
    Random random(seed, 0x7065726dull);
    std::size_t hits = 0;
    for (int t = 0; t < draws; ++t)
        hits += flipped([&](std::size_t) { return random.below(2) != 0; });
    r.p = static_cast<double>(1 + hits) / static_cast<double>(1 + draws);
    return r;
}

std::vector<double> holm(std::span<const double> p)
{
    std::vector<double> adjusted(p.size());
    double least = 0;
    const std::vector<std::size_t> order = ascending(p);
    for (std::size_t i = 0; i < order.size(); ++i) {
        least = std::max(least, std::min(1.0, p[order[i]] * static_cast<double>(p.size() - i)));
        adjusted[order[i]] = least;
    }
    return adjusted;
}

std::vector<double> benjaminiHochberg(std::span<const double> p)
{
    std::vector<double> adjusted(p.size());
    double most = 1;
    const std::vector<std::size_t> order = ascending(p);
    for (std::size_t i = order.size(); i-- > 0;) {
        most = std::min(most, p[order[i]] * static_cast<double>(p.size()) / static_cast<double>(i + 1));
        adjusted[order[i]] = most;
    }
    return adjusted;
}

std::optional<double> cohensD(std::span<const double> a, std::span<const double> b)
{
    if (a.size() < 2 || b.size() < 2)
        return std::nullopt;
    const double na = static_cast<double>(a.size()), nb = static_cast<double>(b.size());
    const double pooled = std::sqrt(((na - 1) * variance(a) + (nb - 1) * variance(b)) / (na + nb - 2));
    if (pooled <= 1e-14 * std::max(largest(a), largest(b)))
        return std::nullopt; // only rounding tells the values apart
    return (mean(a) - mean(b)) / pooled;
}

std::optional<double> cliffsDelta(std::span<const double> a, std::span<const double> b)
{
    if (a.empty() || b.empty())
        return std::nullopt;
    std::vector<double> sorted(b.begin(), b.end());
    std::sort(sorted.begin(), sorted.end());
    double sum = 0;
    for (const double x : a) {
        const auto below = std::lower_bound(sorted.begin(), sorted.end(), x) - sorted.begin();
        const auto above = sorted.end() - std::upper_bound(sorted.begin(), sorted.end(), x);
        sum += static_cast<double>(below - above);
    }
    return sum / (static_cast<double>(a.size()) * static_cast<double>(b.size()));
}

} // namespace spectra
