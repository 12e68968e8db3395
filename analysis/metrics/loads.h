// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/rowset.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// Assignments per layer, expert and domain: what load views draw.
struct LoadTable {
    std::int64_t layers = 0, experts = 0;
    std::vector<std::string> domains;  ///< [Q]
    std::vector<std::int64_t> counts;  ///< [L,E,Q] assignments (all slots)
    std::vector<std::int64_t> top1;    ///< [L,E,Q] first slots
    std::vector<double> weights;       ///< [L,E,Q] sum of weights
    std::vector<std::int64_t> tokens;  ///< [Q] counted tokens
    std::vector<std::int64_t> dropped; ///< [L] slots lost to capacity; empty if not captured

    [[nodiscard]] std::int64_t count(std::int64_t layer, std::int64_t expert, std::int64_t domain) const
    {
        return counts[static_cast<std::size_t>((layer * experts + expert) * static_cast<std::int64_t>(domains.size()) +
                                               domain)];
    }
    [[nodiscard]] std::int64_t load(std::int64_t layer, std::int64_t expert) const; ///< over all domains
    [[nodiscard]] std::vector<double> loads(std::int64_t layer) const;              ///< [E]
};

/// Errors: input (damaged trace), cancelled.
[[nodiscard]] Result<LoadTable> loadTable(const TraceSource &trace, const RowSet *selection = nullptr,
                                          std::stop_token stop = {});

// Figures of one load vector. NaN when undefined (no assignment at all), which callers turn into an absent value.
[[nodiscard]] double entropyBits(std::span<const double> load);            ///< −Σ p log2 p
[[nodiscard]] double coefficientOfVariation(std::span<const double> load); ///< population std / mean
[[nodiscard]] double maxViolation(std::span<const double> load);           ///< max/mean − 1
[[nodiscard]] double maxAbsDeviation(std::span<const double> load);        ///< max |load − mean|
[[nodiscard]] double standardDeviation(std::span<const double> load);      ///< population
[[nodiscard]] double gini(std::span<const double> load);                   ///< Σ(2i−E−1) load_(i) / (E Σ load)
[[nodiscard]] double minMaxRatio(std::span<const double> load);
[[nodiscard]] double
collapseRate(std::span<const double> load,
             double shareOfFair = 0); ///< share of experts at or below 0, or below a share of load/E

} // namespace spectra
