// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/tsneexact.h"

#include <cmath>

namespace spectra {
namespace {

struct Difference {
    double x, y, q;
};

Difference difference(std::span<const float> y, std::int64_t i, std::int64_t j)
{
    const auto a = static_cast<std::size_t>(2 * i), b = static_cast<std::size_t>(2 * j);
    const double dx = static_cast<double>(y[a]) - static_cast<double>(y[b]),
                 dy = static_cast<double>(y[a + 1]) - static_cast<double>(y[b + 1]);
    return {dx, dy, 1 / (1 + dx * dx + dy * dy)};
}

} // namespace

double exactRepulsion(std::span<const float> y, std::vector<double> &force)
{
    const auto n = static_cast<std::int64_t>(y.size() / 2);
    force.assign(y.size(), 0.0);
    double z = 0;
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < i; ++j) {
            const Difference d = difference(y, i, j);
            z += 2 * d.q;
            for (const auto &[point, sign] : {std::pair{i, 1.0}, std::pair{j, -1.0}}) {
                force[static_cast<std::size_t>(2 * point)] += sign * d.x * d.q * d.q;
                force[static_cast<std::size_t>(2 * point + 1)] += sign * d.y * d.q * d.q;
            }
        }
    return z;
}

std::vector<double> exactGradient(const Affinities &p, std::span<const float> y)
{
    std::vector<double> gradient;
    const double z = exactRepulsion(y, gradient);
    for (double &g : gradient)
        g /= -z;
    for (std::int64_t i = 0; i < p.points; ++i)
        for (auto k = static_cast<std::size_t>(p.row[static_cast<std::size_t>(i)]);
             k < static_cast<std::size_t>(p.row[static_cast<std::size_t>(i) + 1]); ++k) {
            const Difference d = difference(y, i, p.column[k]);
            gradient[static_cast<std::size_t>(2 * i)] += static_cast<double>(p.value[k]) * d.q * d.x;
            gradient[static_cast<std::size_t>(2 * i + 1)] += static_cast<double>(p.value[k]) * d.q * d.y;
        }
    return gradient;
}

double exactKl(const Affinities &p, std::span<const float> y)
{
    std::vector<double> unused;
    const double z = exactRepulsion(y, unused);
    double kl = 0;
    for (std::int64_t i = 0; i < p.points; ++i)
        for (auto k = static_cast<std::size_t>(p.row[static_cast<std::size_t>(i)]);
             k < static_cast<std::size_t>(p.row[static_cast<std::size_t>(i) + 1]); ++k)
            if (const double v = static_cast<double>(p.value[k]); v > 0)
                kl += v * (std::log(v) - std::log(difference(y, i, p.column[k]).q / z));
    return kl;
}

} // namespace spectra
