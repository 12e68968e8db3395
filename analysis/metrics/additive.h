// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/layerstats.h"

#include <span>

namespace spectra::detail {

/// One row of additive statistics with its meaning.
struct StatView {
    const double *values = nullptr;
    const StatLayout *layout = nullptr;
    int slots = 0;
    double capacityFactor = 0;

    [[nodiscard]] double operator[](int scalar) const { return values[scalar]; }
    [[nodiscard]] std::span<const double> operator()(StatLayout::Vector v) const
    {
        return {values + layout->at(v), static_cast<std::size_t>(layout->experts)};
    }
};

/// A metric that is a function of additive statistics. NaN: undefined.
struct AdditiveMetric {
    const char *key;
    double (*value)(const StatView &);
    double (*chance)(const StatView &);
    StatLayout::Scalar count;
    bool jackknife; ///< biased under the bootstrap
};
[[nodiscard]] std::span<const AdditiveMetric> additiveMetrics();

/// A metric of the table expert × domain. `domains` has one view per domain, also for those without tokens.
struct DomainMetric {
    const char *key;
    double (*value)(std::span<const StatView> domains);
    double (*chance)(std::span<const StatView> domains);
    double (*ofDomain)(std::span<const StatView> domains, std::size_t d); ///< may be null
    std::vector<float> (*matrix)(std::span<const StatView> domains, std::int64_t &rows,
                                 std::int64_t &columns); ///< may be null
};
[[nodiscard]] std::span<const DomainMetric> domainMetrics();

} // namespace spectra::detail
