// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

enum class MetricGroup : std::uint8_t { loadBalance, specialisation, decision };
enum class MetricBetter : std::uint8_t { none, higher, lower };
/// How long a metric takes: `streaming` is one pass over narrow columns, `wide` reads an E axis or more, `heavy` is
/// quadratic in something (sampled tokens, experts per token type).
enum class MetricCost : std::uint8_t { tables, streaming, wide, heavy };

/// One row of the registry.
struct MetricInfo {
    std::string key;  ///< "load_cv", "gram_orthogonality.expert_input"
    std::string name; ///< for a person: "Coefficient of variation of load"
    std::string definition;
    std::string unit; ///< "bits", "nats", "share"; empty: a plain number
    MetricBetter better = MetricBetter::none;
    std::string source; ///< paper or package that defines it
    MetricGroup group = MetricGroup::loadBalance;
    MetricCost cost = MetricCost::streaming;
    bool labelDependent = false; ///< compares expert indices across layers or traces
    bool hasMatrix = false;
    std::vector<Column> columns; ///< all needed
    std::vector<Table> tables;   ///< all needed (a Gram key: the matrix, or the means that it follows from)
    bool needsDomains = false;   ///< at least two domains
};

/// Every metric, in the order of the metrics page. Built once, thread-safe.
[[nodiscard]] std::span<const MetricInfo> metricTable();
/// nullptr for an unknown key.
[[nodiscard]] const MetricInfo *findMetric(std::string_view key);
[[nodiscard]] std::string_view toString(MetricBetter better); ///< "none", "higher", "lower"
[[nodiscard]] std::string_view toString(MetricGroup group);   ///< "load balance", "specialisation", "decisions"

/// Why `info` cannot be computed from this trace; empty if it can.
[[nodiscard]] std::string whyMissing(const MetricInfo &metric, const TraceInfo &trace);

} // namespace spectra
