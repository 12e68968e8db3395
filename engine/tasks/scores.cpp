// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/scores.h"

#include "engine/core/random.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace spectra {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kNormal95 = 1.959963984540054;
constexpr int kResamples = 1000;

/// Linear between the two nearest ranks, as NumPy's default.
double percentile(const std::vector<double> &sorted, double share)
{
    const double at = share * static_cast<double>(sorted.size() - 1);
    const auto low = static_cast<std::size_t>(std::floor(at));
    const std::size_t high = std::min(low + 1, sorted.size() - 1);
    if (sorted[low] == sorted[high])
        return sorted[low]; // also infinities, whose difference is no number
    return sorted[low] + (at - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

} // namespace

Interval wilsonInterval(double right, std::int64_t n)
{
    if (n <= 0)
        return {kNaN, kNaN};
    const double count = static_cast<double>(n), p = right / count, z2 = kNormal95 * kNormal95;
    const double centre = (p + z2 / (2 * count)) / (1 + z2 / count);
    const double half = kNormal95 / (1 + z2 / count) * std::sqrt(p * (1 - p) / count + z2 / (4 * count * count));
    return {std::max(0.0, std::min(centre - half, p)), std::min(1.0, std::max(centre + half, p))};
}

double aggregateValue(Aggregate aggregate, double value, double weight)
{
    if (!(weight > 0))
        return kNaN;
    const double mean = value / weight;
    switch (aggregate) {
    case Aggregate::perplexity: return std::exp(mean);
    case Aggregate::bits: return mean / std::numbers::ln2;
    case Aggregate::proportion:
    case Aggregate::mean: break;
    }
    return mean;
}

MetricValue scoreMetric(const TaskMetric &metric, std::span<const Measure> units, std::uint64_t seed)
{
    double value = 0, weight = 0;
    for (const Measure &m : units) {
        value += m.value;
        weight += m.weight;
    }
    MetricValue result{metric.name, aggregateValue(metric.aggregate, value, weight), kNaN, kNaN, "bootstrap"};
    // Several samples of one item give parts of one: no longer a count of right answers.
    const bool counts = std::all_of(units.begin(), units.end(), [](const Measure &m) { return (m.value == 0 || m.value == 1) && m.weight == 1; });
    if (metric.aggregate == Aggregate::proportion && counts) {
        const Interval interval = wilsonInterval(value, static_cast<std::int64_t>(units.size()));
        return {metric.name, result.value, interval.low, interval.high, "wilson"};
    }
    if (units.size() < 2)
        return result;
    Random random(seed, 0x626F6F74); // one stream for every metric: they resample the same items
    std::vector<double> values;
    values.reserve(kResamples);
    for (int r = 0; r < kResamples; ++r) {
        double v = 0, w = 0;
        for (std::size_t i = 0; i < units.size(); ++i) {
            const Measure &m = units[random.below(units.size())];
            v += m.value;
            w += m.weight;
        }
        if (w > 0)
            values.push_back(aggregateValue(metric.aggregate, v, w));
    }
    if (values.empty())
        return result;
    std::sort(values.begin(), values.end());
    result.low = percentile(values, 0.025);
    result.high = percentile(values, 0.975);
    return result;
}

double passAtK(int n, int c, int k)
{
    if (n - c < k)
        return 1;
    double none = 1; // Π over i = n−c+1 … n of (1 − k/i)
    for (int i = n - c + 1; i <= n; ++i)
        none *= 1 - static_cast<double>(k) / i;
    return 1 - none;
}

} // namespace spectra
