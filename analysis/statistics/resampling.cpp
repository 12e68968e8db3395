// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/resampling.h"

#include "engine/core/random.h"

#include <boost/math/distributions/students_t.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>

namespace spectra {
namespace {

/// Clusters of each stratum; those that stand alone in theirs are put together.
std::vector<std::vector<int>> strata(std::span<const int> stratum)
{
    std::map<int, std::vector<int>> byLabel;
    for (std::size_t i = 0; i < stratum.size(); ++i)
        byLabel[stratum[i]].push_back(static_cast<int>(i));
    std::vector<std::vector<int>> result;
    std::vector<int> alone;
    for (auto &[label, members] : byLabel) {
        if (members.size() == 1)
            alone.push_back(members.front());
        else
            result.push_back(std::move(members));
    }
    if (!alone.empty())
        result.push_back(std::move(alone));
    return result;
}

} // namespace

std::vector<float> bootstrapWeights(std::span<const int> stratum, int resamples, std::uint64_t seed)
{
    const std::vector<std::vector<int>> groups = strata(stratum);
    std::vector<float> weights(static_cast<std::size_t>(std::max(resamples, 0)) * stratum.size(), 0.0f);
    for (int b = 0; b < resamples; ++b) {
        Random random(seed, static_cast<std::uint64_t>(b) + 1);
        float *row = weights.data() + static_cast<std::size_t>(b) * stratum.size();
        for (const std::vector<int> &members : groups)
            for (std::size_t i = 0; i < members.size(); ++i)
                row[members[random.below(members.size())]] += 1.0f;
    }
    return weights;
}

std::optional<std::pair<double, double>> percentileInterval(std::vector<double> values, double level)
{
    std::erase_if(values, [](double v) { return !std::isfinite(v); });
    if (values.size() < 2)
        return std::nullopt;
    std::sort(values.begin(), values.end());
    const auto at = [&](double share) {
        const double place = share * static_cast<double>(values.size() - 1);
        const auto low = static_cast<std::size_t>(place);
        const std::size_t high = std::min(low + 1, values.size() - 1);
        return values[low] + (place - static_cast<double>(low)) * (values[high] - values[low]);
    };
    return std::pair{at((1 - level) / 2), at((1 + level) / 2)};
}

std::vector<int> jackknifeGroups(std::span<const int> stratum, int groups, std::uint64_t seed)
{
    std::vector<int> result(stratum.size(), 0);
    if (groups < 1)
        return result;
    Random random(seed, 0x6a61636bull);
    int next = 0;
    for (std::vector<int> members : strata(stratum)) {
        random.shuffle(members);
        for (const int m : members)
            result[static_cast<std::size_t>(m)] = next++ % groups;
    }
    return result;
}

std::optional<std::pair<double, double>> jackknifeInterval(double value, std::span<const double> leaveOut, double level)
{
    double sum = 0;
    for (const double v : leaveOut) {
        if (!std::isfinite(v))
            return std::nullopt;
        sum += v;
    }
    const auto g = static_cast<double>(leaveOut.size());
    if (leaveOut.size() < 2 || !std::isfinite(value))
        return std::nullopt;
    double squares = 0;
    for (const double v : leaveOut)
        squares += (v - sum / g) * (v - sum / g);
    const double error = std::sqrt((g - 1) / g * squares);
    const double t = boost::math::quantile(boost::math::students_t(g - 1), (1 + level) / 2);
    return std::pair{value - t * error, value + t * error};
}

std::optional<std::pair<double, double>>
bootstrapInterval(std::span<const int> stratum, int resamples, std::uint64_t seed, double level,
                  const std::function<double(std::span<const float>)> &statistic)
{
    const std::vector<float> weights = bootstrapWeights(stratum, resamples, seed);
    std::vector<double> values;
    for (int b = 0; b < resamples; ++b)
        values.push_back(
            statistic(std::span(weights).subspan(static_cast<std::size_t>(b) * stratum.size(), stratum.size())));
    return percentileInterval(std::move(values), level);
}

} // namespace spectra
