// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/statistics/powerlaw.h"

#include "analysis/statistics/resampling.h"
#include "engine/core/random.h"

#include <boost/math/tools/minima.hpp>

#include <algorithm>
#include <cmath>
#include <set>

namespace spectra {
namespace {

constexpr double kLeast = 1e-3, kMost = 10;
constexpr int kScan = 121; // of each sign, evenly in log |b|

/// The best a and c at a given exponent, x in units of its geometric mean.
PowerLaw project(std::span<const double> logX, std::span<const double> y, double b, bool offset)
{
    PowerLaw law;
    law.b = b;
    const double n = static_cast<double>(y.size());
    double su = 0, sy = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        su += std::exp(-b * logX[i]);
        sy += y[i];
    }
    const double mu = offset ? su / n : 0, my = offset ? sy / n : 0;
    double suu = 0, suy = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        const double u = std::exp(-b * logX[i]) - mu;
        suu += u * u;
        suy += u * (y[i] - my);
    }
    law.a = suu > 0 ? suy / suu : 0;
    law.c = offset ? my - law.a * mu : 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
        const double r = y[i] - law.a * std::exp(-b * logX[i]) - law.c;
        law.squares += r * r;
    }
    return law;
}

} // namespace

double PowerLaw::at(double x) const
{
    return a * std::pow(x, -b) + c;
}

std::optional<PowerLaw> fitPowerLaw(std::span<const double> x, std::span<const double> y, bool offset)
{
    if (x.size() != y.size())
        return std::nullopt;
    for (std::size_t i = 0; i < x.size(); ++i)
        if (!(x[i] > 0) || !std::isfinite(x[i]) || !std::isfinite(y[i]))
            return std::nullopt;
    if (std::set<double>(x.begin(), x.end()).size() < (offset ? 3u : 2u))
        return std::nullopt;
    std::vector<double> logX(x.size());
    double center = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
        center += (logX[i] = std::log(x[i])) / static_cast<double>(x.size());
    for (double &l : logX)
        l -= center;
    std::optional<PowerLaw> best;
    for (const double sign : {1.0, -1.0}) {
        const double low = std::log(kLeast), step = std::log(kMost / kLeast) / (kScan - 1);
        const auto squares = [&](double logB) { return project(logX, y, sign * std::exp(logB), offset).squares; };
        int at = 0;
        double least = INFINITY;
        for (int i = 0; i < kScan; ++i)
            if (const double s = squares(low + i * step); s < least) {
                least = s;
                at = i;
            }
        const auto found = boost::math::tools::brent_find_minima(squares, low + std::max(at - 1, 0) * step,
                                                                 low + std::min(at + 1, kScan - 1) * step, 40);
        const PowerLaw law = project(logX, y, sign * std::exp(found.first), offset);
        if (!best || law.squares < best->squares)
            best = law;
    }
    best->a *= std::exp(best->b * center);
    return best;
}

std::optional<PowerLawFit> bootstrapPowerLaw(std::span<const double> x, std::span<const double> y, std::span<const int> group,
                                             std::span<const double> at, bool offset, int resamples, std::uint64_t seed, double level)
{
    const auto law = fitPowerLaw(x, y, offset);
    if (!law || group.size() != x.size())
        return std::nullopt;
    PowerLawFit fit;
    fit.law = *law;
    const std::set<int> distinct(group.begin(), group.end());
    const std::vector<int> groups(distinct.begin(), distinct.end());
    if (groups.size() < 2)
        return fit;
    std::vector<double> as, bs, cs;
    std::vector<std::vector<double>> curves(at.size());
    for (int r = 0; r < resamples; ++r) {
        Random random(seed, static_cast<std::uint64_t>(r) + 1);
        std::vector<double> rx, ry;
        for (std::size_t g = 0; g < groups.size(); ++g) {
            const int drawn = groups[random.below(groups.size())];
            for (std::size_t i = 0; i < x.size(); ++i)
                if (group[i] == drawn) {
                    rx.push_back(x[i]);
                    ry.push_back(y[i]);
                }
        }
        const auto one = fitPowerLaw(rx, ry, offset);
        if (!one)
            continue;
        ++fit.resamples;
        as.push_back(one->a);
        bs.push_back(one->b);
        cs.push_back(one->c);
        for (std::size_t i = 0; i < at.size(); ++i)
            curves[i].push_back(one->at(at[i]));
    }
    fit.a = percentileInterval(as, level);
    fit.b = percentileInterval(bs, level);
    if (offset)
        fit.c = percentileInterval(cs, level);
    for (const auto &values : curves) {
        const auto band = percentileInterval(values, level);
        fit.low.push_back(band ? band->first : NAN);
        fit.high.push_back(band ? band->second : NAN);
    }
    return fit;
}

std::optional<std::pair<double, double>> fitLine(std::span<const double> x, std::span<const double> y)
{
    if (x.size() != y.size() || x.empty())
        return std::nullopt;
    const double n = static_cast<double>(x.size());
    double mx = 0, my = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        mx += x[i] / n;
        my += y[i] / n;
    }
    double sxx = 0, sxy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        sxx += (x[i] - mx) * (x[i] - mx);
        sxy += (x[i] - mx) * (y[i] - my);
    }
    if (!(sxx > 0))
        return std::nullopt;
    return std::pair{sxy / sxx, my - sxy / sxx * mx};
}

} // namespace spectra
