// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/partition.h"

#include "analysis/metrics/loggamma.h"
#include "engine/core/parallel.h"

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

namespace spectra {
namespace {

double entropyOf(const std::vector<double> &counts, double total)
{
    double h = 0;
    for (const double c : counts)
        if (c > 0)
            h -= c / total * std::log(c / total);
    return h;
}

/// Expected mutual information of random tables with these margins. The hypergeometric weights fall off like a normal
/// density, so the sum runs outwards from the mode and ends where the weights no longer count in double precision.
double expectedInformation(const std::vector<double> &a, const std::vector<double> &b, double n)
{
    double emi = 0;
    for (const double x : a)
        for (const double y : b) {
            if (x <= 0 || y <= 0)
                continue;
            const double low = std::max(1.0, x + y - n), high = std::min(x, y);
            if (low > high)
                continue;
            const double mode = std::clamp(std::floor((x + 1) * (y + 1) / (n + 2)), low, high);
            const double logWeight = logGamma(x + 1) + logGamma(y + 1) + logGamma(n - x + 1) +
                                     logGamma(n - y + 1) - logGamma(n + 1) - logGamma(mode + 1) -
                                     logGamma(x - mode + 1) - logGamma(y - mode + 1) -
                                     logGamma(n - x - y + mode + 1);
            const double top = std::exp(logWeight);
            const double offset = std::log(n) - std::log(x * y);
            const auto term = [&](double m, double weight) { return m / n * (std::log(m) + offset) * weight; };
            emi += term(mode, top);
            double weight = top;
            for (double m = mode; m < high;) {
                weight *= (x - m) * (y - m) / ((m + 1) * (n - x - y + m + 1));
                m += 1;
                emi += term(m, weight);
                if (weight < 1e-18 * top)
                    break;
            }
            weight = top;
            for (double m = mode; m > low;) {
                weight *= m * (n - x - y + m) / ((x - m + 1) * (y - m + 1));
                m -= 1;
                emi += term(m, weight);
                if (weight < 1e-18 * top)
                    break;
            }
        }
    return emi;
}

} // namespace

Contingency Contingency::of(std::span<const int> a, std::span<const int> b)
{
    int rows = 0, columns = 0;
    const std::size_t n = std::min(a.size(), b.size());
    for (std::size_t i = 0; i < n; ++i) {
        rows = std::max(rows, a[i] + 1);
        columns = std::max(columns, b[i] + 1);
    }
    Contingency table(rows, columns);
    for (std::size_t i = 0; i < n; ++i)
        if (a[i] >= 0 && b[i] >= 0)
            table.at(a[i], b[i]) += 1;
    return table;
}

std::optional<PartitionAgreement> partitionAgreement(const Contingency &table, bool adjusted)
{
    std::vector<double> a(static_cast<std::size_t>(table.rows), 0.0), b(static_cast<std::size_t>(table.columns), 0.0);
    double n = 0;
    for (std::int64_t r = 0; r < table.rows; ++r)
        for (std::int64_t c = 0; c < table.columns; ++c) {
            a[static_cast<std::size_t>(r)] += table.at(r, c);
            b[static_cast<std::size_t>(c)] += table.at(r, c);
            n += table.at(r, c);
        }
    if (!(n > 0))
        return std::nullopt;
    PartitionAgreement result;
    result.entropyRows = entropyOf(a, n);
    result.entropyColumns = entropyOf(b, n);
    double chiSquare = 0;
    for (std::int64_t r = 0; r < table.rows; ++r)
        for (std::int64_t c = 0; c < table.columns; ++c) {
            const double ra = a[static_cast<std::size_t>(r)], cb = b[static_cast<std::size_t>(c)], x = table.at(r, c);
            if (x > 0)
                result.mutualInformation += x / n * std::log(n * x / (ra * cb));
            if (ra > 0 && cb > 0)
                chiSquare += (x - ra * cb / n) * (x - ra * cb / n) / (ra * cb / n);
        }
    result.mutualInformation = std::max(0.0, result.mutualInformation);
    const auto used = [](const std::vector<double> &counts) {
        return static_cast<double>(std::count_if(counts.begin(), counts.end(), [](double c) { return c > 0; }));
    };
    const double rows = used(a), columns = used(b);
    if (rows == 1 && columns == 1) {
        result.nmi = result.ami = 1;
        return result;
    }
    const double mean = (result.entropyRows + result.entropyColumns) / 2;
    result.nmi = rows == 1 || columns == 1 ? 0 : result.mutualInformation / mean;
    if (adjusted && rows > 1 && columns > 1) {
        result.expectedMutualInformation = expectedInformation(a, b, n);
        const double epsilon = std::numeric_limits<double>::epsilon();
        double room = mean - result.expectedMutualInformation;
        room = room < 0 ? std::min(room, -epsilon) : std::max(room, epsilon);
        result.ami = (result.mutualInformation - result.expectedMutualInformation) / room;
    }
    if (n > 1) {
        const double phi2 = std::max(0.0, chiSquare / n - (rows - 1) * (columns - 1) / (n - 1));
        const double r = rows - (rows - 1) * (rows - 1) / (n - 1),
                     c = columns - (columns - 1) * (columns - 1) / (n - 1);
        const double least = std::min(r, c) - 1;
        result.cramersV = least > 0 ? std::sqrt(phi2 / least) : 0;
    }
    return result;
}

double indicatorNmi(double both, double a, double b, double n)
{
    if (!(n > 0))
        return 0;
    const double cells[4] = {both, a - both, b - both, n - a - b + both};
    const double rows[2] = {a, n - a}, columns[2] = {b, n - b};
    const auto h = [n](double c) { return c > 0 ? -c / n * std::log(c / n) : 0.0; };
    const double ha = h(rows[0]) + h(rows[1]), hb = h(columns[0]) + h(columns[1]);
    const double joint = h(cells[0]) + h(cells[1]) + h(cells[2]) + h(cells[3]);
    if (ha + hb <= 0)
        return 1; // two constants say the same
    if (ha <= 0 || hb <= 0)
        return 0;
    return std::clamp(2 * (ha + hb - joint) / (ha + hb), 0.0, 1.0);
}

std::vector<double> silhouettes(MatrixView points, std::span<const int> labels, std::stop_token stop)
{
    const std::int64_t n = points.rows;
    int clusters = 0;
    for (const int l : labels)
        clusters = std::max(clusters, l + 1);
    std::vector<double> size(static_cast<std::size_t>(clusters), 0.0);
    for (const int l : labels)
        size[static_cast<std::size_t>(l)] += 1;
    if (n == 0 || std::count_if(size.begin(), size.end(), [](double s) { return s > 0; }) < 2)
        return {};
    using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Eigen::Map<const Matrix> raw(points.data, n, points.columns);
    // Centring keeps the cancellation in |x|² + |y|² − 2xy small.
    const Matrix x = raw.rowwise() - raw.colwise().mean();
    const Eigen::VectorXf norms = x.rowwise().squaredNorm();
    std::vector<double> result(static_cast<std::size_t>(n), 0.0);
    constexpr std::int64_t block = 256;
    const std::int64_t blocks = (n + block - 1) / block;
    parallelFor(blocks, static_cast<int>(std::min<std::int64_t>(blocks, 64)),
                [&](std::int64_t begin, std::int64_t end, int) {
                    Matrix product;
                    std::vector<double> sums(static_cast<std::size_t>(clusters));
                    for (std::int64_t at = begin; at < end && !stop.stop_requested(); ++at) {
                        const std::int64_t first = at * block, rows = std::min(block, n - first);
                        product.noalias() = x.middleRows(first, rows) * x.transpose();
                        for (std::int64_t i = 0; i < rows; ++i) {
                            std::fill(sums.begin(), sums.end(), 0.0);
                            for (std::int64_t j = 0; j < n; ++j)
                                if (j != first + i)
                                    sums[static_cast<std::size_t>(labels[static_cast<std::size_t>(j)])] +=
                                        std::sqrt(std::max(0.0f, norms[first + i] + norms[j] - 2 * product(i, j)));
                            const auto own = static_cast<std::size_t>(labels[static_cast<std::size_t>(first + i)]);
                            if (size[own] < 2)
                                continue;
                            const double inside = sums[own] / (size[own] - 1);
                            double outside = std::numeric_limits<double>::infinity();
                            for (std::size_t c = 0; c < sums.size(); ++c)
                                if (c != own && size[c] > 0)
                                    outside = std::min(outside, sums[c] / size[c]);
                            const double larger = std::max(inside, outside);
                            result[static_cast<std::size_t>(first + i)] = larger > 0 ? (outside - inside) / larger : 0;
                        }
                    }
                });
    if (stop.stop_requested())
        return {};
    return result;
}

std::optional<double> areaUnderCurve(std::span<const float> positives, std::span<const float> negatives)
{
    if (positives.empty() || negatives.empty())
        return std::nullopt;
    std::vector<float> p(positives.begin(), positives.end()), q(negatives.begin(), negatives.end());
    std::sort(p.begin(), p.end());
    std::sort(q.begin(), q.end());
    double wins = 0;
    std::size_t below = 0, upTo = 0;
    for (const float s : p) {
        while (below < q.size() && q[below] < s)
            ++below;
        while (upTo < q.size() && q[upTo] <= s)
            ++upTo;
        wins += static_cast<double>(below) + 0.5 * static_cast<double>(upTo - below);
    }
    return wins / (static_cast<double>(p.size()) * static_cast<double>(q.size()));
}

} // namespace spectra
