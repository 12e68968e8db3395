// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/affinities.h"
#include "analysis/embedding/repulsion.h"
#include "analysis/embedding/tsne.h"

#include <cstdint>
#include <stop_token>
#include <vector>

namespace spectra::detail {

/// Gradient descent on a map. Points are kept in the order of a space-filling curve, so that neighbours stand close in
/// memory; every result is the same at any thread count because all sums run over a fixed number of parts, in order.
class TsneOptimizer {
public:
    TsneOptimizer(Affinities affinities, std::vector<float> initial, const TsneOptions &options);

    /// Repulsion and Z of the map as it stands; comes before iterate() and divergence().
    void evaluate(int iteration, const std::stop_token &stop);
    /// One step down. False when `stop` was requested: the map is then as it was.
    bool iterate(int iteration, const std::stop_token &stop);
    /// KL of the map, with Z from the grid of the last evaluate().
    [[nodiscard]] double divergence() const;
    /// KL of the map with Z from the accurate grid, or from the exact sum for up to 4000 points.
    [[nodiscard]] double finalDivergence();
    /// Coordinates in the input's order, [n,2].
    void coordinates(std::vector<float> &into) const;
    [[nodiscard]] std::int64_t points() const { return m_n; }

private:
    void sortByCurve();
    void planar();
    [[nodiscard]] double divergence(double z) const;

    Affinities m_p;
    const TsneOptions m_options;
    const std::int64_t m_n;
    const int m_parts;
    double m_entropy = 0; ///< Σ p log p
    Repulsion m_repulsion;
    double m_z = 1;
    std::vector<float> m_position, m_update, m_gain, m_attractive, m_repulsive, m_x, m_y;
    std::vector<std::int64_t> m_original; ///< the input's number of each point
};

} // namespace spectra::detail
