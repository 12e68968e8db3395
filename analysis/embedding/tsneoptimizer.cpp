// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/tsneoptimizer.h"

#include "analysis/embedding/kernels.h"
#include "engine/core/parallel.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace spectra::detail {
namespace {

constexpr std::int64_t kExactZ = 4000;
/// Up to here all pairs cost less than the grid, and a map of few groups that drift apart, whose grid would grow without
/// end, costs no more than any other.
constexpr std::int64_t kExactForces = 1000;

float spacingOf(TsneMode mode, bool exaggerating)
{
    switch (mode) {
    case TsneMode::fast:
        return exaggerating ? 0.7f : 0.5f;
    case TsneMode::standard:
        return 0.5f;
    case TsneMode::accurate:
        break;
    }
    return 1.0f / 3;
}

/// Interleaves the low 16 bits with zeros.
std::uint32_t spreadBits(std::uint32_t v)
{
    v &= 0xffff;
    v = (v | (v << 8)) & 0x00ff00ff;
    v = (v | (v << 4)) & 0x0f0f0f0f;
    v = (v | (v << 2)) & 0x33333333;
    return (v | (v << 1)) & 0x55555555;
}

} // namespace

TsneOptimizer::TsneOptimizer(Affinities affinities, std::vector<float> initial, const TsneOptions &options)
    : m_p(std::move(affinities))
    , m_options(options)
    , m_n(m_p.points)
    , m_parts(static_cast<int>(std::clamp<std::int64_t>(m_n / 512, 1, 64)))
    , m_repulsion(0.5f)
    , m_position(std::move(initial))
{
    const auto size = static_cast<std::size_t>(2 * m_n);
    m_update.assign(size, 0.0f);
    m_gain.assign(size, 1.0f);
    m_attractive.assign(size, 0.0f);
    m_repulsive.assign(size, 0.0f);
    m_x.resize(static_cast<std::size_t>(m_n));
    m_y.resize(static_cast<std::size_t>(m_n));
    m_original.resize(static_cast<std::size_t>(m_n));
    std::iota(m_original.begin(), m_original.end(), std::int64_t(0));
    for (const float p : m_p.value)
        if (p > 0)
            m_entropy += static_cast<double>(p) * std::log(static_cast<double>(p));
    planar();
}

void TsneOptimizer::planar()
{
    for (std::size_t i = 0; i < m_x.size(); ++i) {
        m_x[i] = m_position[2 * i];
        m_y[i] = m_position[2 * i + 1];
    }
}

void TsneOptimizer::sortByCurve()
{
    const auto [lowX, highX] = std::minmax_element(m_x.begin(), m_x.end());
    const auto [lowY, highY] = std::minmax_element(m_y.begin(), m_y.end());
    const float originX = *lowX, originY = *lowY, span = std::max({*highX - originX, *highY - originY, 1e-30f});
    struct Key {
        std::uint32_t code, index;
    };
    std::vector<Key> keys(static_cast<std::size_t>(m_n));
    for (std::size_t i = 0; i < keys.size(); ++i) {
        const auto cell = [&](float v, float origin) {
            return static_cast<std::uint32_t>((v - origin) / span * 65535.0f);
        };
        keys[i] = {spreadBits(cell(m_x[i], originX)) | (spreadBits(cell(m_y[i], originY)) << 1),
                   static_cast<std::uint32_t>(i)};
    }
    std::sort(keys.begin(), keys.end(),
              [](const Key &a, const Key &b) { return a.code < b.code || (a.code == b.code && a.index < b.index); });

    std::vector<std::uint32_t> place(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i)
        place[keys[i].index] = static_cast<std::uint32_t>(i);
    const auto permute = [&](std::vector<float> &values) {
        std::vector<float> sorted(values.size());
        for (std::size_t i = 0; i < keys.size(); ++i)
            for (std::size_t a = 0; a < 2; ++a)
                sorted[2 * i + a] = values[2 * keys[i].index + a];
        values.swap(sorted);
    };
    permute(m_position);
    permute(m_update);
    permute(m_gain);
    std::vector<std::int64_t> original(keys.size());
    Affinities sorted;
    sorted.points = m_n;
    sorted.row.assign(keys.size() + 1, 0);
    for (std::size_t i = 0; i < keys.size(); ++i) {
        original[i] = m_original[keys[i].index];
        sorted.row[i + 1] = sorted.row[i] + m_p.row[keys[i].index + 1] - m_p.row[keys[i].index];
    }
    sorted.column.resize(m_p.column.size());
    sorted.value.resize(m_p.value.size());
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t i = begin; i < end; ++i) {
            auto to = static_cast<std::size_t>(sorted.row[static_cast<std::size_t>(i)]);
            const std::size_t from = keys[static_cast<std::size_t>(i)].index;
            for (auto k = static_cast<std::size_t>(m_p.row[from]); k < static_cast<std::size_t>(m_p.row[from + 1]);
                 ++k, ++to) {
                sorted.column[to] = place[m_p.column[k]];
                sorted.value[to] = m_p.value[k];
            }
        }
    });
    m_p = std::move(sorted);
    m_original.swap(original);
    planar();
}

void TsneOptimizer::evaluate(int iteration, const std::stop_token &stop)
{
    const bool settled = iteration > 250 && (iteration - 250) % 150 == 0;
    if (iteration == 30 || iteration == 120 || iteration == 250 || settled)
        sortByCurve();
    m_repulsion.setSpacing(spacingOf(m_options.mode, iteration < m_options.exaggerationIterations));
    if (m_n > kExactForces) {
        m_z = m_repulsion.evaluate(m_position.data(), m_n, m_repulsive.data(), stop);
        return;
    }
    std::vector<double> sums(static_cast<std::size_t>(m_parts), 0.0);
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int part) {
        sums[static_cast<std::size_t>(part)] =
            exactForces(m_x.data(), m_y.data(), m_n, begin, end, m_repulsive.data());
    });
    m_z = std::accumulate(sums.begin(), sums.end(), 0.0);
}

bool TsneOptimizer::iterate(int iteration, const std::stop_token &stop)
{
    const bool exaggerating = iteration < m_options.exaggerationIterations;
    const double exaggeration = exaggerating ? m_options.exaggeration : 1.0;
    StepOptions step;
    step.learningRate = static_cast<float>(m_options.learningRate > 0 ? m_options.learningRate
                                                                      : static_cast<double>(m_n) / exaggeration);
    step.momentum = static_cast<float>(m_options.momentum);
    step.maxStep = static_cast<float>(m_options.maxStepNorm);
    step.inverseZ = static_cast<float>(1 / m_z);
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int) {
        if (!stop.stop_requested())
            attraction(m_p.row.data(), m_p.column.data(), m_p.value.data(), m_x.data(), m_y.data(),
                       static_cast<float>(exaggeration), begin, end, m_attractive.data());
    });
    if (stop.stop_requested())
        return false;
    std::vector<double> sums(static_cast<std::size_t>(2 * m_parts), 0.0);
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int part) {
        detail::step(m_attractive.data(), m_repulsive.data(), step, begin, end, m_position.data(), m_update.data(),
                     m_gain.data(), sums.data() + 2 * part);
    });
    double mean[2] = {0, 0};
    for (std::size_t i = 0; i < sums.size(); ++i)
        mean[i % 2] += sums[i] / static_cast<double>(m_n);
    const float centre[2] = {static_cast<float>(mean[0]), static_cast<float>(mean[1])};
    parallelFor(m_n, std::min(m_parts, 16), [&](std::int64_t begin, std::int64_t end, int) {
        for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            m_x[i] = m_position[2 * i] -= centre[0];
            m_y[i] = m_position[2 * i + 1] -= centre[1];
        }
    });
    return true;
}

double TsneOptimizer::divergence(double z) const
{
    std::vector<double> sums(static_cast<std::size_t>(m_parts), 0.0);
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int part) {
        sums[static_cast<std::size_t>(part)] =
            logDistances(m_p.row.data(), m_p.column.data(), m_p.value.data(), m_x.data(), m_y.data(), begin, end);
    });
    return m_entropy + std::accumulate(sums.begin(), sums.end(), 0.0) + std::log(z);
}

double TsneOptimizer::divergence() const
{
    return divergence(m_z);
}

double TsneOptimizer::finalDivergence()
{
    if (m_n > kExactZ) {
        m_repulsion.setSpacing(1.0f / 3);
        return divergence(m_repulsion.evaluate(m_position.data(), m_n, m_repulsive.data()));
    }
    std::vector<double> sums(static_cast<std::size_t>(m_parts), 0.0);
    parallelFor(m_n, m_parts, [&](std::int64_t begin, std::int64_t end, int part) {
        sums[static_cast<std::size_t>(part)] = exactNormalization(m_x.data(), m_y.data(), m_n, begin, end);
    });
    return divergence(std::accumulate(sums.begin(), sums.end(), 0.0) - static_cast<double>(m_n));
}

void TsneOptimizer::coordinates(std::vector<float> &into) const
{
    into.resize(m_position.size());
    for (std::size_t i = 0; i < m_original.size(); ++i)
        for (std::size_t a = 0; a < 2; ++a)
            into[2 * static_cast<std::size_t>(m_original[i]) + a] = m_position[2 * i + a];
}

} // namespace spectra::detail
