// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

// The inner loops of t-SNE, compiled with associative mathematics and for several instruction sets. Sums run over fixed
// ranges, so a result does not depend on the number of threads.
namespace spectra::detail {

/// Probabilities exp(−β d) over one row of squared distances, with β such that the entropy is `logPerplexity` (nats).
void conditionalRow(const float *distance, int k, double logPerplexity, float *p);

/// Attraction Σ_j p_ij (y_i − y_j) / (1 + |y_i − y_j|²) of points [first, last), times `scale`. `x`, `y` are [n] each;
/// writes `force` [n,2].
void attraction(const std::int64_t *row, const std::uint32_t *column, const float *value, const float *x,
                const float *y, float scale, std::int64_t first, std::int64_t last, float *force);

/// Σ_ij p_ij log(1 + |y_i − y_j|²) over rows [first, last).
double logDistances(const std::int64_t *row, const std::uint32_t *column, const float *value, const float *x,
                    const float *y, std::int64_t first, std::int64_t last);

/// Σ_i Σ_j 1 / (1 + |y_i − y_j|²) of points [first, last) against all n, self terms included.
double exactNormalization(const float *x, const float *y, std::int64_t n, std::int64_t first, std::int64_t last);

/// Σ_j (y_i − y_j) / (1 + |y_i − y_j|²)² of points [first, last) against all n; writes `force` [n,2]. Returns the part of
/// Z = Σ_{i≠j} 1 / (1 + |y_i − y_j|²) that belongs to them.
double exactForces(const float *x, const float *y, std::int64_t n, std::int64_t first, std::int64_t last, float *force);

struct StepOptions {
    float learningRate = 0, momentum = 0, maxStep = 0, inverseZ = 0;
};
/// One gradient step with gains of points [first, last): attraction less repulsion / Z. Adds the new positions to
/// sum[2].
void step(const float *attractive, const float *repulsive, const StepOptions &options, std::int64_t first,
          std::int64_t last, float *position, float *update, float *gain, double *sum);

/// Squared Euclidean distance.
float squaredDistance(const float *a, const float *b, std::int64_t d);

/// Products of six rows `a` [6][d] (stride `strideA`) with sixteen columns `b` [d][16]: out [6][16].
void productTile(const float *a, std::int64_t strideA, const float *b, std::int64_t d, float *out);

} // namespace spectra::detail
