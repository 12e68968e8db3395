// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/romabank.h"

#include "engine/core/files.h"
#include "engine/core/npy.h"
#include "engine/core/parallel.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra {
namespace {

/// Row of the first value that is not finite, −1: none.
std::int64_t brokenRow(std::span<const float> values, std::int64_t width)
{
    for (std::size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i]))
            return static_cast<std::int64_t>(i) / std::max<std::int64_t>(1, width);
    return -1;
}

Result<void> writeArray(const std::filesystem::path &file, const std::vector<std::int64_t> &shape, std::span<const float> values, bool overwrite)
{
    SPECTRA_TRY(auto target, AtomicFile::create(file, overwrite));
    writeNpy(target.stream(), shape, values);
    return target.commit();
}

} // namespace

Result<void> RomaBank::check(const std::string &where) const
{
    if (samples < 1 || dimension < 1 || layers < 1 || experts < 1)
        return inputError("the bank holds no samples", where);
    if (static_cast<std::int64_t>(embeddings.size()) != samples * dimension || static_cast<std::int64_t>(routing.size()) != samples * layers * experts)
        return inputError("embeddings and routing are not of the same samples", where);
    if (const std::int64_t row = brokenRow(embeddings, dimension); row >= 0)
        return inputError("an embedding is not finite", fmt::format("{}, sample {}", where, row));
    for (std::int64_t r = 0; r < samples * layers; ++r) {
        double sum = 0, least = 0;
        for (std::int64_t e = 0; e < experts; ++e) {
            const auto value = static_cast<double>(routing[static_cast<std::size_t>(r * experts + e)]);
            sum += value;
            least = std::min(least, value);
        }
        if (!(least >= 0) || !(std::abs(sum - 1) < 1e-3))
            return inputError("routing weights must be at least 0 and sum to 1 over the experts", fmt::format("{}, sample {}, layer {}", where, r / layers, r % layers),
                              "store the softmax over all experts");
    }
    return {};
}

Result<RomaBank> RomaBank::open(const std::filesystem::path &folder)
{
    SPECTRA_TRY(auto embeddings, readNpy(folder / "embeddings.npy"));
    SPECTRA_TRY(auto routing, readNpy(folder / "routing.npy"));
    if (embeddings.shape.size() != 2)
        return inputError("embeddings must be [samples, size]", (folder / "embeddings.npy").string());
    if (routing.shape.size() != 3)
        return inputError("routing must be [samples, layers, experts]", (folder / "routing.npy").string());
    if (embeddings.shape[0] != routing.shape[0])
        return inputError(fmt::format("{} embeddings, but routing of {} samples", embeddings.shape[0], routing.shape[0]), folder.string());
    RomaBank bank{embeddings.shape[0], embeddings.shape[1], routing.shape[1], routing.shape[2], std::move(embeddings.values), std::move(routing.values)};
    SPECTRA_CHECK(bank.check(folder.string()));
    return bank;
}

Result<void> RomaBank::write(const std::filesystem::path &folder, bool overwrite) const
{
    SPECTRA_CHECK(check(folder.string()));
    SPECTRA_CHECK(writeArray(folder / "embeddings.npy", {samples, dimension}, embeddings, overwrite));
    return writeArray(folder / "routing.npy", {samples, layers, experts}, routing, overwrite);
}

Result<RomaNeighbours> romaNeighbours(const RomaBank &bank, std::span<const float> queries, std::int64_t k, double sigma, std::span<const std::int64_t> own)
{
    const std::int64_t d = bank.dimension;
    if (d < 1 || static_cast<std::int64_t>(queries.size()) % d != 0)
        return usageError(fmt::format("queries are not rows of the bank's {} numbers", d), "neighbours");
    const std::int64_t count = static_cast<std::int64_t>(queries.size()) / d;
    if (!own.empty() && static_cast<std::int64_t>(own.size()) != count)
        return usageError("each query has one own sample or none", "neighbours");
    if (k < 1 || k > bank.samples - (own.empty() ? 0 : 1))
        return usageError(fmt::format("{} neighbours of a bank of {} samples", k, bank.samples), "neighbours", "use 1 <= k < samples");
    if (!(sigma >= 0) || !std::isfinite(sigma))
        return usageError("σ must be a positive number, or 0 for the median distance", "neighbours");
    if (const std::int64_t row = brokenRow(queries, d); row >= 0)
        return inputError("an embedding is not finite", fmt::format("query {}", row));

    RomaNeighbours found;
    found.count = count;
    found.k = k;
    found.index.resize(static_cast<std::size_t>(count * k));
    std::vector<double> near(found.index.size());
    const auto search = [&](std::int64_t q, std::vector<double> &squares, std::vector<std::int64_t> &order) {
        squares.assign(static_cast<std::size_t>(bank.samples), 0);
        for (std::int64_t j = 0; j < bank.samples; ++j)
            for (std::int64_t i = 0; i < d; ++i) {
                const double step = static_cast<double>(queries[static_cast<std::size_t>(q * d + i)]) - static_cast<double>(bank.embeddings[static_cast<std::size_t>(j * d + i)]);
                squares[static_cast<std::size_t>(j)] += step * step;
            }
        if (!own.empty() && own[static_cast<std::size_t>(q)] >= 0 && own[static_cast<std::size_t>(q)] < bank.samples)
            squares[static_cast<std::size_t>(own[static_cast<std::size_t>(q)])] = INFINITY;
        std::iota(order.begin(), order.end(), std::int64_t(0));
        std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](std::int64_t a, std::int64_t b) {
            const double left = squares[static_cast<std::size_t>(a)], right = squares[static_cast<std::size_t>(b)];
            return left < right || (left == right && a < b);
        });
        for (std::int64_t i = 0; i < k; ++i) {
            found.index[static_cast<std::size_t>(q * k + i)] = order[static_cast<std::size_t>(i)];
            near[static_cast<std::size_t>(q * k + i)] = squares[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
        }
    };
    parallelFor(count, 0, [&](std::int64_t begin, std::int64_t end, int) {
        std::vector<double> squares;
        std::vector<std::int64_t> order(static_cast<std::size_t>(bank.samples));
        for (std::int64_t q = begin; q < end; ++q)
            search(q, squares, order);
    });
    found.sigma = sigma;
    if (sigma == 0 && !near.empty()) {
        std::vector<double> sorted = near;
        std::sort(sorted.begin(), sorted.end());
        const std::size_t middle = sorted.size() / 2;
        found.sigma = sorted.size() % 2 == 1 ? std::sqrt(sorted[middle]) : (std::sqrt(sorted[middle - 1]) + std::sqrt(sorted[middle])) / 2;
    }
    for (std::int64_t q = 0; q < count; ++q) {
        const auto row = std::span(near).subspan(static_cast<std::size_t>(q * k), static_cast<std::size_t>(k));
        // Relative to the nearest, so that far-away queries do not divide 0 by 0; σ = 0 means that all distances are 0.
        const double wide = 2 * found.sigma * found.sigma;
        std::vector<double> share;
        for (const double square : row)
            share.push_back(wide > 0 ? std::exp((row[0] - square) / wide) : square == row[0] ? 1 : 0);
        const double sum = std::accumulate(share.begin(), share.end(), 0.0);
        for (const double s : share)
            found.weights.push_back(static_cast<float>(s / sum));
    }
    return found;
}

Result<ManifoldTargets> romaTargets(const RomaBank &bank, const RomaNeighbours &neighbours, std::span<const std::int64_t> queries)
{
    const auto sequences = static_cast<std::int64_t>(queries.size());
    const std::int64_t k = neighbours.k, width = bank.layers * bank.experts;
    ManifoldTargets targets{torch::zeros({sequences, k}), torch::zeros({sequences, k, bank.layers, bank.experts})};
    for (std::int64_t s = 0; s < sequences; ++s) {
        const std::int64_t query = queries[static_cast<std::size_t>(s)];
        if (query < -1 || query >= neighbours.count)
            return usageError(fmt::format("no sample {} among {}", query, neighbours.count), "manifold targets");
        for (std::int64_t i = 0; query >= 0 && i < k; ++i) {
            const auto at = static_cast<std::size_t>(query * k + i);
            targets.weights.data_ptr<float>()[s * k + i] = neighbours.weights[at];
            std::copy_n(bank.routing.data() + neighbours.index[at] * width, width, targets.routing.data_ptr<float>() + (s * k + i) * width);
        }
    }
    return targets;
}

} // namespace spectra
