// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/tasks/task.h"

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace spectra {

/// A metric over a task's items with its 95 % interval. NaN where there is nothing to measure.
struct MetricValue {
    std::string name;
    double value = 0, low = 0, high = 0;
    std::string interval;   ///< "wilson" or "bootstrap"
};

struct Interval {
    double low = 0, high = 0;
};

/// Score interval of a proportion (Wilson 1927), 95 %: `right` of `n`.
[[nodiscard]] Interval wilsonInterval(double right, std::int64_t n);

/// f(Σ value / Σ weight) by the kind of metric.
[[nodiscard]] double aggregateValue(Aggregate aggregate, double value, double weight);

/// The metric over resampling units (items, or a text's windows), with the percentile interval of 1,000 bootstrap resamples by this
/// seed (Wilson for proportions). Fewer than two units: the interval is NaN.
[[nodiscard]] MetricValue scoreMetric(const TaskMetric &metric, std::span<const Measure> units, std::uint64_t seed);

/// Unbiased estimate of the chance that one of k programs passes when c of n did: 1 − C(n−c, k) / C(n, k) (Chen et al. 2021,
/// arXiv 2107.03374, equation 1). Needs 1 ≤ k ≤ n, 0 ≤ c ≤ n.
[[nodiscard]] double passAtK(int n, int c, int k);

} // namespace spectra
