// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace spectra {

/// How often each cluster (sequence) is drawn in each resample: [resamples, clusters], row-major. Clusters are drawn
/// with replacement inside their stratum (domain), so every stratum keeps its number of clusters; strata of one cluster
/// are pooled. Deterministic in the seed.
[[nodiscard]] std::vector<float> bootstrapWeights(std::span<const int> stratum, int resamples, std::uint64_t seed);

/// Percentile interval (linear interpolation, as numpy.percentile) of finite values; absent with fewer than two.
[[nodiscard]] std::optional<std::pair<double, double>> percentileInterval(std::vector<double> values, double level);

/// Groups 0..g−1 for the delete-group jackknife: clusters are shuffled by the seed and dealt round, stratum by stratum.
[[nodiscard]] std::vector<int> jackknifeGroups(std::span<const int> stratum, int groups, std::uint64_t seed);

/// value ± t_{g−1} · sqrt((g−1)/g Σ(θ_(i) − mean)²) from the leave-one-group-out values; absent with fewer than two.
[[nodiscard]] std::optional<std::pair<double, double>> jackknifeInterval(double value, std::span<const double> leaveOut,
                                                                         double level);

/// Percentile bootstrap of any statistic of weighted clusters, in memory: `statistic(weights)` gets one weight per
/// cluster.
[[nodiscard]] std::optional<std::pair<double, double>>
bootstrapInterval(std::span<const int> stratum, int resamples, std::uint64_t seed, double level,
                  const std::function<double(std::span<const float>)> &statistic);

} // namespace spectra
