// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/mapquality.h"

#include "analysis/embedding/kernels.h"
#include "analysis/embedding/nearest.h"
#include "engine/core/parallel.h"
#include "engine/core/random.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

namespace spectra {
namespace {

constexpr std::int64_t kSample = 5000;
constexpr std::array<int, 3> kRecall{10, 30, 90};

struct Sums {
    double intrusions = 0, extrusions = 0;
    std::array<double, kRecall.size()> kept{};
};

/// The distances from one point to all others, and its nearest ones.
class View {
public:
    View(const float *x, std::int64_t n, std::int64_t d, int keep)
        : m_x(x)
        , m_n(n)
        , m_d(d)
        , m_keep(keep)
        , m_distance(static_cast<std::size_t>(n))
    {
    }

    void look(std::int64_t from)
    {
        m_from = from;
        m_best.reset(m_keep);
        for (std::int64_t j = 0; j < m_n; ++j) {
            const float distance = detail::squaredDistance(m_x + from * m_d, m_x + j * m_d, m_d);
            m_distance[static_cast<std::size_t>(j)] = distance;
            if (j != from && distance <= m_best.bound())
                m_best.add({distance, static_cast<std::int32_t>(j)});
        }
        nearest = m_best.finish();
        std::sort(nearest.begin(), nearest.end());
    }
    /// 1 for the nearest.
    [[nodiscard]] std::int64_t rank(std::int32_t point) const
    {
        const float bound = m_distance[static_cast<std::size_t>(point)];
        std::int64_t before = 0;
        for (std::int64_t j = 0; j < m_n; ++j)
            before += m_distance[static_cast<std::size_t>(j)] < bound;
        for (std::int64_t j = 0; j < point; ++j)
            before += m_distance[static_cast<std::size_t>(j)] == bound;
        const bool self = m_distance[static_cast<std::size_t>(m_from)] < bound ||
                          (m_distance[static_cast<std::size_t>(m_from)] == bound && m_from < point);
        return before - (self ? 1 : 0) + 1;
    }

    std::vector<detail::Candidate> nearest;

private:
    const float *m_x;
    const std::int64_t m_n, m_d;
    const int m_keep;
    std::int64_t m_from = 0;
    std::vector<float> m_distance;
    detail::Nearest m_best;
};

/// Σ (rank in `truth` − k) over the k nearest in `claim` that are not among the k nearest in `truth`.
double misplaced(const View &claim, const View &truth, int k)
{
    double sum = 0;
    for (int i = 0; i < k; ++i) {
        const std::int64_t rank = truth.rank(claim.nearest[static_cast<std::size_t>(i)].index);
        if (rank > k)
            sum += static_cast<double>(rank - k);
    }
    return sum;
}

double kept(const View &a, const View &b, int k)
{
    std::vector<std::int32_t> x, y, both;
    for (int i = 0; i < k; ++i) {
        x.push_back(a.nearest[static_cast<std::size_t>(i)].index);
        y.push_back(b.nearest[static_cast<std::size_t>(i)].index);
    }
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    std::set_intersection(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(both));
    return static_cast<double>(both.size()) / k;
}

Result<std::vector<float>> prepared(MatrixView x, DistanceMetric metric)
{
    std::vector<float> v(x.data, x.data + x.rows * x.columns);
    for (std::int64_t i = 0; i < x.rows; ++i) {
        double squares = 0;
        for (std::int64_t j = 0; j < x.columns; ++j) {
            if (!std::isfinite(x(i, j)))
                return inputError("a value is NaN or infinite",
                                  "row " + std::to_string(i) + ", column " + std::to_string(j));
            squares += static_cast<double>(x(i, j)) * static_cast<double>(x(i, j));
        }
        for (std::int64_t j = 0; metric == DistanceMetric::cosine && squares > 0 && j < x.columns; ++j)
            v[static_cast<std::size_t>(i * x.columns + j)] /= static_cast<float>(std::sqrt(squares));
    }
    return v;
}

} // namespace

Result<MapQuality> mapQuality(MatrixView original, MatrixView map, DistanceMetric metric, int k, std::uint64_t seed,
                              std::stop_token stop)
{
    if (original.rows != map.rows)
        return usageError("the map has " + std::to_string(map.rows) + " points, the data " +
                          std::to_string(original.rows));
    if (k < 1)
        return usageError("the neighbourhood has at least one point");
    MapQuality quality;
    quality.k = k;
    const std::int64_t n = original.rows;
    SPECTRA_TRY(const std::vector<float> x, prepared(original, metric));
    SPECTRA_TRY(const std::vector<float> y, prepared(map, DistanceMetric::euclidean));
    if (n < 3)
        return quality;
    std::vector<std::int64_t> sample(static_cast<std::size_t>(n));
    std::iota(sample.begin(), sample.end(), std::int64_t(0));
    if (n > kSample) {
        Random random(seed, 0x6d6170ull);
        for (std::size_t i = 0; i < static_cast<std::size_t>(kSample); ++i)
            std::swap(sample[i], sample[i + random.below(sample.size() - i)]);
        sample.resize(static_cast<std::size_t>(kSample));
        std::sort(sample.begin(), sample.end());
    }
    const auto judged = static_cast<std::int64_t>(sample.size());
    quality.sampledPoints = judged;
    const bool ranks = 2 * k < n;
    const int keep = static_cast<int>(std::min<std::int64_t>(n - 1, std::max(k, kRecall.back())));
    const int parts = static_cast<int>(std::clamp<std::int64_t>(judged / 16, 1, 256));
    std::vector<Sums> sums(static_cast<std::size_t>(parts));
    parallelFor(judged, parts, [&](std::int64_t begin, std::int64_t end, int part) {
        View high(x.data(), n, original.columns, keep), low(y.data(), n, map.columns, keep);
        Sums &to = sums[static_cast<std::size_t>(part)];
        for (std::int64_t s = begin; s < end && !stop.stop_requested(); ++s) {
            high.look(sample[static_cast<std::size_t>(s)]);
            low.look(sample[static_cast<std::size_t>(s)]);
            if (ranks) {
                to.intrusions += misplaced(low, high, k);
                to.extrusions += misplaced(high, low, k);
            }
            for (std::size_t r = 0; r < kRecall.size(); ++r)
                if (kRecall[r] < n)
                    to.kept[r] += kept(high, low, kRecall[r]);
        }
    });
    if (stop.stop_requested())
        return cancelledError();
    Sums all;
    for (const Sums &s : sums) {
        all.intrusions += s.intrusions;
        all.extrusions += s.extrusions;
        for (std::size_t r = 0; r < kRecall.size(); ++r)
            all.kept[r] += s.kept[r];
    }
    if (ranks) {
        const auto size = static_cast<double>(n);
        const double scale = 2 / (static_cast<double>(judged) * k * (2 * size - 3 * k - 1));
        quality.trustworthiness = 1 - scale * all.intrusions;
        quality.continuity = 1 - scale * all.extrusions;
    }
    std::optional<double> *recalls[] = {&quality.knnRecall10, &quality.knnRecall30, &quality.knnRecall90};
    for (std::size_t r = 0; r < kRecall.size(); ++r)
        if (kRecall[r] < n)
            *recalls[r] = all.kept[r] / static_cast<double>(judged);
    return quality;
}

} // namespace spectra
