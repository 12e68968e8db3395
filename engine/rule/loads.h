// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spectra::rule {

/// Adds to load [E] how often each expert is named in experts [n,k] (-1 = none) of the rows with counted != 0 (empty: all).
/// Returns the number of counted rows.
std::int64_t addLoads(std::span<const std::int64_t> experts, std::int64_t k, std::span<const std::uint8_t> counted, std::span<std::int64_t> load);

/// How evenly a load is spread over the experts.
struct LoadStatistics {
    std::int64_t assignments = 0;
    double cv = 0;             ///< standard deviation over mean, population form (divisor E)
    double entropyBits = 0;    ///< of load / assignments; log2 E when even
    double maxOverMean = 0;    ///< largest load in units of the fair share
    std::int64_t unused = 0;   ///< experts without any assignment
};
[[nodiscard]] LoadStatistics loadStatistics(std::span<const std::int64_t> load);

/// Mean over counted rows of −Σ_i Q_ti log Q_ti, nats. q [n,E].
[[nodiscard]] double meanEntropy(std::span<const float> q, std::int64_t experts, std::span<const std::uint8_t> counted = {});

/// Calibration of the causal rule's potentials by dual ascent on its own top-k load (method page, "Details").
struct CalibrationSchedule {
    int batches = 80;
    std::int64_t tokensPerBatch = 4096;
    double firstStep = 0.5, lastStep = 0.01;

    /// η of batch b (0-based): falls geometrically from firstStep to lastStep.
    [[nodiscard]] double step(int batch) const;
};
/// g_i ← g_i + η·(1 − E·load_i/(N·k)), then centred to mean 0. `tokens` = N counted tokens of the batch.
void calibrationStep(std::span<float> potential, std::span<const std::int64_t> load, std::int64_t tokens, std::int64_t k, double eta);

} // namespace spectra::rule
