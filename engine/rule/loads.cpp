// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/rule/loads.h"

#include <algorithm>
#include <cmath>

namespace spectra::rule {

std::int64_t addLoads(std::span<const std::int64_t> experts, std::int64_t k, std::span<const std::uint8_t> counted, std::span<std::int64_t> load)
{
    const std::int64_t rows = k > 0 ? static_cast<std::int64_t>(experts.size()) / k : 0;
    std::int64_t n = 0;
    for (std::int64_t t = 0; t < rows; ++t) {
        if (!counted.empty() && !counted[static_cast<std::size_t>(t)])
            continue;
        ++n;
        for (std::int64_t j = 0; j < k; ++j) {
            const std::int64_t e = experts[static_cast<std::size_t>(t * k + j)];
            if (e >= 0 && e < static_cast<std::int64_t>(load.size()))
                ++load[static_cast<std::size_t>(e)];
        }
    }
    return n;
}

LoadStatistics loadStatistics(std::span<const std::int64_t> load)
{
    LoadStatistics s;
    for (const std::int64_t l : load) {
        s.assignments += l;
        s.unused += l == 0;
    }
    if (load.empty() || s.assignments == 0)
        return s;
    const double mean = static_cast<double>(s.assignments) / static_cast<double>(load.size());
    double square = 0;
    for (const std::int64_t l : load) {
        const double d = static_cast<double>(l) - mean, p = static_cast<double>(l) / static_cast<double>(s.assignments);
        square += d * d;
        s.entropyBits -= p > 0 ? p * std::log2(p) : 0;
        s.maxOverMean = std::max(s.maxOverMean, static_cast<double>(l) / mean);
    }
    s.cv = std::sqrt(square / static_cast<double>(load.size())) / mean;
    return s;
}

double meanEntropy(std::span<const float> q, std::int64_t experts, std::span<const std::uint8_t> counted)
{
    const std::int64_t rows = experts > 0 ? static_cast<std::int64_t>(q.size()) / experts : 0;
    double sum = 0;
    std::int64_t n = 0;
    for (std::int64_t t = 0; t < rows; ++t) {
        if (!counted.empty() && !counted[static_cast<std::size_t>(t)])
            continue;
        ++n;
        for (std::int64_t e = 0; e < experts; ++e) {
            const auto p = static_cast<double>(q[static_cast<std::size_t>(t * experts + e)]);
            sum -= p > 0 ? p * std::log(p) : 0;
        }
    }
    return n > 0 ? sum / static_cast<double>(n) : 0;
}

double CalibrationSchedule::step(int batch) const
{
    if (batches < 2)
        return firstStep;
    return firstStep * std::pow(lastStep / firstStep, static_cast<double>(batch) / (batches - 1));
}

void calibrationStep(std::span<float> potential, std::span<const std::int64_t> load, std::int64_t tokens, std::int64_t k, double eta)
{
    if (tokens <= 0 || k <= 0)
        return;
    const double fair = static_cast<double>(tokens) * static_cast<double>(k) / static_cast<double>(potential.size());
    double mean = 0;
    for (std::size_t i = 0; i < potential.size(); ++i) {
        potential[i] = static_cast<float>(static_cast<double>(potential[i]) + eta * (1 - static_cast<double>(load[i]) / fair));
        mean += static_cast<double>(potential[i]);
    }
    mean /= static_cast<double>(potential.size());
    for (float &g : potential)
        g = static_cast<float>(static_cast<double>(g) - mean);
}

} // namespace spectra::rule
