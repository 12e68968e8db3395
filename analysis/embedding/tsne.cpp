// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/tsne.h"

#include "analysis/embedding/affinities.h"
#include "analysis/embedding/pca.h"
#include "analysis/embedding/tsneoptimizer.h"
#include "engine/core/random.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <utility>

namespace spectra {
namespace {

constexpr double kInitialSpread = 1e-4;

class Clock {
public:
    [[nodiscard]] double lap()
    {
        const auto now = std::chrono::steady_clock::now();
        return std::chrono::duration<double>(now - std::exchange(m_last, now)).count();
    }

private:
    std::chrono::steady_clock::time_point m_last = std::chrono::steady_clock::now();
};

Result<void> validate(MatrixView points, const TsneOptions &o)
{
    if (points.rows < 1 || points.columns < 1 || points.data == nullptr)
        return inputError("there are no points to embed");
    if (!(o.perplexity >= 1) || !std::isfinite(o.perplexity))
        return usageError("the perplexity is at least 1", "perplexity");
    if (o.iterations < 0 || o.exaggerationIterations < 0 || o.reportEvery < 1)
        return usageError("numbers of iterations are not negative", "iterations");
    if (!(o.exaggeration >= 1) || !(o.momentum >= 0 && o.momentum < 1) || !(o.learningRate >= 0) ||
        !(o.maxStepNorm > 0) || !std::isfinite(o.exaggeration) || !std::isfinite(o.learningRate))
        return usageError("exaggeration ≥ 1, 0 ≤ momentum < 1, learning rate ≥ 0 and step bound > 0 are needed");
    if (o.init == TsneInit::given) {
        if (o.initial.size() != static_cast<std::size_t>(2 * points.rows))
            return usageError("the given initial map does not have two coordinates per point", "initial");
        if (!std::all_of(o.initial.begin(), o.initial.end(), [](float v) { return std::isfinite(v); }))
            return inputError("the given initial map holds NaN or infinite values", "initial");
    }
    for (std::int64_t i = 0; i < points.rows * points.columns; ++i)
        if (!std::isfinite(points.data[i]))
            return inputError("a value is NaN or infinite",
                              "row " + std::to_string(i / points.columns) + ", column " +
                                  std::to_string(i % points.columns),
                              "remove the row or the column");
    return {};
}

std::vector<float> randomMap(std::int64_t n, std::uint64_t seed)
{
    Random random(seed, 0x74736eull);
    std::vector<float> y(static_cast<std::size_t>(2 * n));
    for (float &v : y)
        v = static_cast<float>(kInitialSpread * random.normal());
    return y;
}

/// The first two principal components, the first with the small initial spread; what has no variance is drawn.
Result<std::vector<float>> pcaMap(MatrixView points, const TsneOptions &options, std::stop_token stop)
{
    std::vector<float> unit;
    if (options.metric == DistanceMetric::cosine) {
        unit.assign(points.data, points.data + points.rows * points.columns);
        for (std::int64_t i = 0; i < points.rows; ++i) {
            double squares = 0;
            for (std::int64_t j = 0; j < points.columns; ++j)
                squares += static_cast<double>(points(i, j)) * static_cast<double>(points(i, j));
            for (std::int64_t j = 0; squares > 0 && j < points.columns; ++j)
                unit[static_cast<std::size_t>(i * points.columns + j)] /= static_cast<float>(std::sqrt(squares));
        }
        points.data = unit.data();
    }
    PcaOptions pcaOptions;
    pcaOptions.seed = options.seed;
    SPECTRA_TRY(const PcaResult result, pca(points, pcaOptions, stop));
    std::vector<float> y = randomMap(points.rows, options.seed);
    const double spread = result.components > 0 ? std::sqrt(result.explainedVariance[0]) : 0;
    if (!(spread > 0))
        return y;
    for (int c = 0; c < result.components; ++c)
        if (result.explainedVariance[static_cast<std::size_t>(c)] > 0)
            for (std::int64_t i = 0; i < points.rows; ++i)
                y[static_cast<std::size_t>(2 * i + c)] = static_cast<float>(
                    kInitialSpread / spread *
                    static_cast<double>(result.scores[static_cast<std::size_t>(i * result.components + c)]));
    return y;
}

} // namespace

Result<Embedding> tsne(MatrixView points, const TsneOptions &options, std::stop_token stop,
                       const TsneCallback &callback, const ProgressFunction &progress)
{
    SPECTRA_CHECK(validate(points, options));
    const std::int64_t n = points.rows;
    Embedding result;
    result.rows = n;
    if (n == 1) {
        result.coordinates = {0, 0};
        return result;
    }
    std::vector<float> initial;
    switch (options.init) {
    case TsneInit::given:
        initial = options.initial;
        break;
    case TsneInit::random:
        initial = randomMap(n, options.seed);
        break;
    case TsneInit::pca: {
        SPECTRA_TRY(initial, pcaMap(points, options, stop));
        break;
    }
    }
    if (n < 4) {
        result.coordinates = std::move(initial);
        result.warnings.emplace_back("fewer than 4 points: the initial map is given");
        return result;
    }
    result.perplexity = options.perplexity;
    if (3 * options.perplexity > static_cast<double>(n - 1)) {
        result.perplexity = static_cast<double>(n - 1) / 3;
        result.warnings.push_back("perplexity lowered from " + std::to_string(options.perplexity) + " to " +
                                  std::to_string(result.perplexity) +
                                  ": three times it must not exceed the number of other points");
    }

    Clock clock;
    const int k = static_cast<int>(
        std::min<double>(static_cast<double>(n - 1), std::max(1.0, std::floor(3 * result.perplexity))));
    SPECTRA_TRY(const NeighborTable neighbors,
                nearestNeighbors(points, k, options.metric, options.neighbors, options.seed, stop, progress));
    result.exactNeighbors = neighbors.exact;
    result.seconds.knn = clock.lap();
    SPECTRA_TRY(Affinities affinities, tsneAffinities(neighbors, result.perplexity, stop));
    result.seconds.affinities = clock.lap();

    detail::TsneOptimizer optimizer(std::move(affinities), std::move(initial), options);
    for (int iteration = 0; iteration < options.iterations; ++iteration) {
        if (stop.stop_requested())
            return cancelledError();
        optimizer.evaluate(iteration, stop);
        if (iteration % options.reportEvery == 0 && !stop.stop_requested()) {
            if (progress)
                progress({"optimising the map", iteration, options.iterations, "iterations"});
            if (callback) {
                optimizer.coordinates(result.coordinates);
                const TsneUpdate update{iteration, options.iterations, optimizer.divergence(),
                                        iteration < options.exaggerationIterations, result.coordinates};
                if (!callback(update)) {
                    result.stopped = true;
                    break;
                }
            }
        }
        if (!optimizer.iterate(iteration, stop))
            return cancelledError();
        result.iterations = iteration + 1;
    }
    optimizer.coordinates(result.coordinates);
    result.kl = optimizer.finalDivergence();
    result.seconds.optimise = clock.lap();
    if (!std::all_of(result.coordinates.begin(), result.coordinates.end(), [](float v) { return std::isfinite(v); }))
        return workError("the map diverged", "t-SNE", "use a smaller learning rate");
    return result;
}

} // namespace spectra
