// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/neighbors.h"

#include "analysis/embedding/kernels.h"
#include "analysis/embedding/lanes.h"
#include "analysis/embedding/nearest.h"
#include "engine/core/parallel.h"

// hnswlib's prefetching reads one link past the end of its lists; its own distance functions are not used here.
#define NO_MANUAL_VECTORIZATION
#include <hnswlib/hnswlib.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>

namespace spectra {
namespace {

using detail::kLanes;
constexpr std::int64_t kExactLimit = 50000;
constexpr int kTileRows = 6;
constexpr std::int64_t kQueryBlock = 48;

using detail::Candidate;
using detail::Nearest;

/// Centred (Euclidean) or unit-length (cosine) copy: distances keep their precision and cosine becomes Euclidean.
Result<std::vector<float>> prepare(MatrixView points, DistanceMetric metric)
{
    const std::int64_t n = points.rows, d = points.columns;
    std::vector<float> x(points.data, points.data + n * d);
    std::vector<double> mean(static_cast<std::size_t>(d), 0.0);
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t j = 0; j < d; ++j) {
            const float v = x[static_cast<std::size_t>(i * d + j)];
            if (!std::isfinite(v))
                return inputError("a value is NaN or infinite",
                                  "row " + std::to_string(i) + ", column " + std::to_string(j));
            mean[static_cast<std::size_t>(j)] += static_cast<double>(v);
        }
    for (std::int64_t i = 0; i < n; ++i) {
        float *row = x.data() + i * d;
        if (metric == DistanceMetric::euclidean) {
            for (std::int64_t j = 0; j < d; ++j)
                row[j] -= static_cast<float>(mean[static_cast<std::size_t>(j)] / static_cast<double>(n));
        } else {
            double squares = 0;
            for (std::int64_t j = 0; j < d; ++j)
                squares += static_cast<double>(row[j]) * static_cast<double>(row[j]);
            const auto scale = static_cast<float>(squares > 0 ? 1 / std::sqrt(squares) : 0);
            for (std::int64_t j = 0; j < d; ++j)
                row[j] *= scale;
        }
    }
    return x;
}

class ExactSearch {
public:
    ExactSearch(const std::vector<float> &x, std::int64_t n, std::int64_t d)
        : m_x(x)
        , m_n(n)
        , m_d(d)
    {
        // Sixteen points side by side, coordinate by coordinate: the tile kernel reads them in one go.
        const std::int64_t tiles = (n + kLanes - 1) / kLanes;
        m_packed.assign(static_cast<std::size_t>(tiles * d * kLanes), 0.0f);
        m_norm.assign(static_cast<std::size_t>(tiles * kLanes), std::numeric_limits<float>::infinity());
        for (std::int64_t i = 0; i < n; ++i) {
            float norm = 0;
            for (std::int64_t j = 0; j < d; ++j) {
                const float v = x[static_cast<std::size_t>(i * d + j)];
                m_packed[static_cast<std::size_t>((i / kLanes * d + j) * kLanes + i % kLanes)] = v;
                norm += v * v;
            }
            m_norm[static_cast<std::size_t>(i)] = norm;
        }
    }

    /// Working space of one thread.
    struct Space {
        std::vector<float> queries;
        std::vector<Nearest> nearest;
    };

    void block(std::int64_t first, std::int64_t last, NeighborTable &table, Space &space,
               const std::stop_token &stop) const
    {
        const std::int64_t rows = last - first, padded = (rows + kTileRows - 1) / kTileRows * kTileRows;
        space.queries.assign(static_cast<std::size_t>(padded * m_d), 0.0f);
        std::copy(m_x.begin() + first * m_d, m_x.begin() + last * m_d, space.queries.begin());
        // A few more than asked for: |a|² + |b|² − 2ab rounds, the final order comes from true differences.
        const int keep = static_cast<int>(std::min<std::int64_t>(m_n - 1, table.k + 8));
        space.nearest.resize(static_cast<std::size_t>(rows));
        for (Nearest &best : space.nearest)
            best.reset(keep);
        alignas(64) float products[kTileRows * kLanes];
        const std::int64_t tiles = (m_n + kLanes - 1) / kLanes;
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
            if (tile % 256 == 0 && stop.stop_requested())
                return;
            const float *packed = m_packed.data() + tile * m_d * kLanes, *norm = m_norm.data() + tile * kLanes;
            for (std::int64_t r = 0; r < rows; r += kTileRows) {
                detail::productTile(space.queries.data() + r * m_d, m_d, packed, m_d, products);
                for (std::int64_t q = r; q < std::min(rows, r + kTileRows); ++q) {
                    Nearest &best = space.nearest[static_cast<std::size_t>(q)];
                    const float own = m_norm[static_cast<std::size_t>(first + q)], bound = best.bound();
                    float *p = products + (q - r) * kLanes;
                    int hits = 0;
                    for (int l = 0; l < kLanes; ++l) {
                        p[l] = own + norm[l] - 2 * p[l];
                        hits += p[l] <= bound;
                    }
                    if (hits == 0)
                        continue;
                    for (int l = 0; l < kLanes; ++l) {
                        const std::int64_t j = tile * kLanes + l;
                        if (p[l] <= bound && j != first + q && j < m_n)
                            best.add({p[l], static_cast<std::int32_t>(j)});
                    }
                }
            }
        }
        for (std::int64_t q = 0; q < rows; ++q) {
            std::vector<Candidate> &found = space.nearest[static_cast<std::size_t>(q)].finish();
            for (Candidate &c : found)
                c.distance = detail::squaredDistance(m_x.data() + (first + q) * m_d, m_x.data() + c.index * m_d, m_d);
            std::sort(found.begin(), found.end());
            for (int i = 0; i < table.k; ++i) {
                const auto at = static_cast<std::size_t>((first + q) * table.k + i);
                table.index[at] = found[static_cast<std::size_t>(i)].index;
                table.distance[at] = found[static_cast<std::size_t>(i)].distance;
            }
        }
    }

private:
    const std::vector<float> &m_x;
    const std::int64_t m_n, m_d;
    std::vector<float> m_packed, m_norm;
};

/// hnswlib's own distance follows the compiler's flags; ours is chosen for the processor at load time.
class ClonedSpace : public hnswlib::SpaceInterface<float> {
public:
    explicit ClonedSpace(std::size_t dimension)
        : m_dimension(dimension)
    {
    }
    std::size_t get_data_size() override { return m_dimension * sizeof(float); }
    hnswlib::DISTFUNC<float> get_dist_func() override { return &distance; }
    void *get_dist_func_param() override { return &m_dimension; }

private:
    static float distance(const void *a, const void *b, const void *dimension)
    {
        return detail::squaredDistance(static_cast<const float *>(a), static_cast<const float *>(b),
                                       static_cast<std::int64_t>(*static_cast<const std::size_t *>(dimension)));
    }
    std::size_t m_dimension;
};

Result<void> searchGraph(const std::vector<float> &x, std::int64_t n, std::int64_t d, NeighborTable &table,
                         std::uint64_t seed, const std::stop_token &stop, const std::function<void(std::int64_t)> &tick)
{
    const auto breadth = static_cast<std::size_t>(table.k + table.k / 4 + 8);
    try {
        ClonedSpace space(static_cast<std::size_t>(d));
        hnswlib::HierarchicalNSW<float> graph(&space, static_cast<std::size_t>(n), 16,
                                              std::max<std::size_t>(100, breadth), seed + 100);
        graph.addPoint(x.data(), 0);
        const int parts = static_cast<int>(std::clamp<std::int64_t>(n / 512, 1, 4096));
        // In one thread: hnswlib draws levels from one generator without a lock, and the graph of several threads depends on
        // who comes first, so that no seed would give the same neighbours twice.
        for (std::int64_t i = 1; i < n && !stop.stop_requested(); ++i) {
            graph.addPoint(x.data() + i * d, static_cast<std::size_t>(i));
            if (i % 512 == 0)
                tick(512);
        }
        graph.setEf(breadth);
        std::atomic<bool> complete{true};
        parallelFor(n, parts, [&](std::int64_t begin, std::int64_t end, int) {
            for (std::int64_t i = begin; i < end && !stop.stop_requested(); ++i) {
                auto heap = graph.searchKnn(x.data() + i * d, static_cast<std::size_t>(table.k) + 1);
                std::vector<Candidate> found;
                for (; !heap.empty(); heap.pop())
                    if (heap.top().second != static_cast<std::size_t>(i))
                        found.push_back({heap.top().first, static_cast<std::int32_t>(heap.top().second)});
                std::sort(found.begin(), found.end());
                if (found.size() < static_cast<std::size_t>(table.k)) {
                    complete = false;
                    return;
                }
                for (int j = 0; j < table.k; ++j) {
                    table.index[static_cast<std::size_t>(i * table.k + j)] = found[static_cast<std::size_t>(j)].index;
                    table.distance[static_cast<std::size_t>(i * table.k + j)] =
                        found[static_cast<std::size_t>(j)].distance;
                }
            }
            tick(end - begin);
        });
        if (!complete && !stop.stop_requested())
            return workError("the neighbour graph is not connected", "HNSW", "ask for exact neighbours");
    } catch (const std::exception &error) {
        return workError(error.what(), "HNSW");
    }
    return {};
}

} // namespace

Result<NeighborTable> nearestNeighbors(MatrixView points, int k, DistanceMetric metric, NeighborMethod method,
                                       std::uint64_t seed, std::stop_token stop, const ProgressFunction &progress)
{
    const std::int64_t n = points.rows, d = points.columns;
    if (n > std::numeric_limits<std::int32_t>::max())
        return inputError("more points than neighbour search can number");
    if (k < 1)
        return usageError("the number of neighbours is at least 1");
    NeighborTable table;
    table.points = n;
    table.k = static_cast<int>(std::min<std::int64_t>(k, std::max<std::int64_t>(0, n - 1)));
    SPECTRA_TRY(const std::vector<float> x, prepare(points, metric));
    if (table.k == 0)
        return table;
    table.index.assign(static_cast<std::size_t>(n * table.k), 0);
    table.distance.assign(table.index.size(), 0.0f);
    table.exact = method == NeighborMethod::exact || (method == NeighborMethod::automatic && n <= kExactLimit);
    const auto caller = std::this_thread::get_id();
    std::atomic<std::int64_t> done{0};
    const std::int64_t total = table.exact ? n : 2 * n;
    const auto tick = [&](std::int64_t points_) {
        const std::int64_t now = done.fetch_add(points_) + points_;
        if (progress && std::this_thread::get_id() == caller)
            progress({"finding neighbours", now, total, "points"});
    };
    if (table.exact) {
        const ExactSearch shared(x, n, d);
        const std::int64_t blocks = (n + kQueryBlock - 1) / kQueryBlock;
        parallelFor(blocks, static_cast<int>(std::min<std::int64_t>(blocks, 4096)),
                    [&](std::int64_t begin, std::int64_t end, int) {
                        ExactSearch::Space space;
                        for (std::int64_t b = begin; b < end && !stop.stop_requested(); ++b) {
                            const std::int64_t last = std::min(n, (b + 1) * kQueryBlock);
                            shared.block(b * kQueryBlock, last, table, space, stop);
                            tick(last - b * kQueryBlock);
                        }
                    });
    } else {
        SPECTRA_CHECK(searchGraph(x, n, d, table, seed, stop, tick));
    }
    if (stop.stop_requested())
        return cancelledError();
    return table;
}

} // namespace spectra
