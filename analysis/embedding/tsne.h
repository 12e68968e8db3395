// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/embedding/neighbors.h"
#include "analysis/matrixview.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// How finely the repulsion grid samples the map: force error against the exact gradient about 6e-2, 2e-2, 3e-3.
enum class TsneMode : std::uint8_t { fast, standard, accurate };
enum class TsneInit : std::uint8_t { pca, random, given };

struct TsneOptions {
    double perplexity = 30;           ///< clamped with a warning when 3·perplexity > n − 1
    int iterations = 750;             ///< in all
    int exaggerationIterations = 250; ///< of which with exaggeration
    double exaggeration = 12;
    double momentum = 0.8;
    double learningRate = 0; ///< 0: n / exaggeration of the phase
    double maxStepNorm = 5;
    TsneMode mode = TsneMode::standard;
    TsneInit init = TsneInit::pca;
    std::vector<float> initial; ///< [n,2] with TsneInit::given; used as they are
    DistanceMetric metric = DistanceMetric::euclidean;
    NeighborMethod neighbors = NeighborMethod::automatic; ///< exact for n ≤ 50,000, HNSW above
    std::uint64_t seed = 0;
    int reportEvery = 10; ///< iterations between two callbacks
};

/// What the callback sees. `coordinates` [n,2] in the input's order is valid during the call only.
struct TsneUpdate {
    int iteration = 0, iterations = 0;
    double kl = 0; ///< nats, without exaggeration
    bool exaggerating = false;
    std::span<const float> coordinates;
};
/// Answers whether to go on. Called on the calling thread.
using TsneCallback = std::function<bool(const TsneUpdate &)>;

struct EmbeddingSeconds {
    double knn = 0, affinities = 0, optimise = 0;
};

/// A map of n points.
struct Embedding {
    std::int64_t rows = 0;
    int dimensions = 2;
    std::vector<float> coordinates; ///< [n,2]
    std::optional<double> kl;       ///< nats, un-exaggerated, with Z from the accurate grid (exact sum for n ≤ 4000)
    int iterations = 0;             ///< done
    bool stopped = false;           ///< the callback ended it early
    double perplexity = 0;          ///< used
    bool exactNeighbors = true;     ///< false: HNSW, then the map is not bit-reproducible
    EmbeddingSeconds seconds;
    std::vector<std::string> warnings;
};

/// t-SNE (van der Maaten and Hinton 2008) with interpolated repulsion on a grid (Linderman et al. 2019): one scalar
/// charge on cubic B-splines, one forward and one inverse FFT, Z by Parseval's theorem; up to 1,000 points the sums over
/// all pairs. float32. O(n) per iteration.
/// One seed gives one map, bit for bit, at any thread count.
/// n = 0 is an input error; n = 1 gives the origin; n < 4 gives the initial map without affinities.
/// Errors: input (NaN or infinite value, empty), usage (option out of range), cancelled (within 100 ms of a stop
/// request).
[[nodiscard]] Result<Embedding> tsne(MatrixView points, const TsneOptions &options, std::stop_token stop = {},
                                     const TsneCallback &callback = {}, const ProgressFunction &progress = {});

} // namespace spectra
