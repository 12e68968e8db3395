// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/metricresult.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace spectra::cli {

/// What of a report is printed beside the headline values.
struct MetricBreakdown {
    bool layer = false, domain = false, sequence = false, phase = false;
};

/// {key: {value, unit, better, low, high, chance, n, by: {…}}} by the command line's contract.
[[nodiscard]] nlohmann::ordered_json metricsJson(const MetricReport &report, const MetricBreakdown &by);
/// One row per metric and breakdown: key, by, group, value, low, high, chance, n, unit, better.
[[nodiscard]] std::string metricsCsv(const MetricReport &report, const MetricBreakdown &by);
/// A booktabs table of the headline values.
[[nodiscard]] std::string metricsTex(const MetricReport &report);
/// For a terminal.
[[nodiscard]] std::string metricsText(const MetricReport &report);

[[nodiscard]] std::string csvField(const std::string &text);
[[nodiscard]] std::string texText(const std::string &text);
/// Four significant digits; empty for an absent value.
[[nodiscard]] std::string shortNumber(const std::optional<double> &value);

} // namespace spectra::cli
