// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/gram.h"
#include "analysis/metrics/segments.h"
#include "analysis/metrics/tokenindex.h"
#include "engine/core/tracesource.h"

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <stop_token>
#include <vector>

namespace spectra::detail {

/// Which columns are read and which accumulators run.
struct LayerPlan {
    bool stream = false; ///< anything at all from the token columns
    bool weights = false, probabilities = false, entropy = false, dropped = false;
    bool pairs = false, types = false, nextTypes = false, segments = false;
    bool sample = false; ///< random tokens for ranks and chance levels
    bool sampleProbabilities = false;
    bool silhouette = false;
    std::array<bool, kGramObjects> concentration{};
    bool keepTop1 = false;  ///< for metrics across layers
    bool sequences = false; ///< figures by sequence
    bool phases = false;
    int groups = 0; ///< jackknife groups, 0: none
    std::int64_t blockTokens = 16384, sampleTokens = 65536, silhouetteTokens = 2048;
};

/// Where one token's counts go: 0 is the whole, then domains, then jackknife groups, then the two phases.
struct Slices {
    int domains = 0, groups = 0;
    bool phases = false;
    [[nodiscard]] int count() const { return 1 + domains + groups + (phases ? 2 : 0); }
    [[nodiscard]] int domain(int d) const { return 1 + d; }
    [[nodiscard]] int group(int g) const { return 1 + domains + g; }
    [[nodiscard]] int phase(int p) const { return 1 + domains + groups + p; }
};

/// The additive statistics of a set of tokens: one row of numbers that may be summed, weighted and subtracted.
struct StatLayout {
    enum Scalar {
        tokens,
        slots,
        filled,
        dropped,
        probabilityTokens,
        marginSum,
        entropyTokens,
        entropySum,
        weightTokens,
        confidenceSum,
        chosenEntropySum,
        pairs,
        sameTop1,
        jaccardSum,
        segments,                                                         // covered, total for each length
        caches = segments + 2 * static_cast<int>(kSegmentLengths.size()), // hits, accesses for each size
        scalars = caches + 2 * static_cast<int>(kCacheSlots.size())
    };
    enum Vector { load, top1, weight, weight2, probability, vectors };
    int experts = 0;
    [[nodiscard]] std::size_t size() const
    {
        return scalars + static_cast<std::size_t>(vectors) * static_cast<std::size_t>(experts);
    }
    [[nodiscard]] std::size_t at(Vector v) const
    {
        return scalars + static_cast<std::size_t>(v) * static_cast<std::size_t>(experts);
    }
};

/// Sequences (or, beyond a bound, groups of sequences of one domain) as the units of resampling; units of one domain
/// are contiguous.
struct Units {
    std::vector<int> ofSequence;            ///< [S]
    std::vector<int> domain;                ///< [U] −1: none
    std::vector<std::pair<int, int>> range; ///< [Q] units [first, last) of a domain
    std::vector<int> group;                 ///< [U] jackknife group, empty without groups
    std::vector<std::int64_t> tokens;       ///< [U] counted
    bool merged = false;                    ///< units are not single sequences
    [[nodiscard]] int count() const { return static_cast<int>(domain.size()); }
};
[[nodiscard]] Units makeUnits(const TokenIndex &index, int domains, std::int64_t limit);

/// Joint assignments of pairs of experts in each slice.
struct PairCounts {
    std::vector<std::vector<std::uint32_t>> both; ///< [slice] [E,E], upper triangle
    std::vector<std::vector<std::uint32_t>> load; ///< [slice] [E] tokens that chose the expert
    std::vector<std::int64_t> tokens;             ///< [slice]
};

/// Assignments of token types to experts in each slice that memory allows.
struct TypeCounts {
    std::int64_t types = 0;
    std::vector<std::vector<std::uint32_t>> counts; ///< [slice] [T,E]; empty: left out for memory
    bool groupsLeftOut = false;
};

/// A regular sample of counted tokens with an expert.
struct TokenSample {
    int slots = 0;
    std::vector<std::uint16_t> experts; ///< [n,k]
    std::vector<std::int32_t> domain, group;
    std::vector<float> probabilities; ///< [n,E]
    bool all = true;                  ///< every such token is in it
};

/// Sampled hidden states with the top-1 expert of their token.
struct HiddenSample {
    std::int64_t width = 0;
    std::vector<float> values; ///< [n,H]
    std::vector<int> top1, unit, domain, phase;
};

/// Sums of unit vectors per expert in each slice.
struct VectorSums {
    std::int64_t width = 0;
    std::vector<std::vector<double>> sum;   ///< [slice] [E,D]
    std::vector<std::vector<double>> count; ///< [slice] [E]
};

/// What one layer's tokens amount to.
struct LayerStats {
    StatLayout layout;
    int slots = 0;
    std::vector<double> units; ///< [U, size]; prompt and generated apart when phases are asked: [2, U, size]
    PairCounts pairs;
    TypeCounts types, nextTypes;
    TokenSample sample;
    HiddenSample hidden;
    std::array<VectorSums, kGramObjects> vectors;
    std::vector<std::uint16_t> top1; ///< [N] with keepTop1; kNoExpert where not counted
    std::vector<double> sequenceOverlapPositions, sequenceOverlapTypes, sequenceCoActivation; ///< [S] with sequences
    std::int64_t invalidRows = 0; ///< rows left out because they hold NaN
};

/// Streams one layer. `tick(tokens)` is told what is done. Errors: input (damaged), cancelled.
[[nodiscard]] Result<LayerStats> readLayer(const TraceSource &trace, int layer, const TokenIndex &index,
                                           const Units &units, const Slices &slices, const LayerPlan &plan,
                                           const std::stop_token &stop, const std::function<void(std::int64_t)> &tick);

} // namespace spectra::detail
