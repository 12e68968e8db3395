// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/rule/executor.h"

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

/// Forward and backward passes of the OSR chain as training needs them: similarity, cost, transport potential, plan (method page,
/// section 1, items 3 to 6). n rows, E experts, D dimensions; every matrix row-major and dense. Sums over rows are formed in chunks of a
/// fixed length and added in order: the same bits for any number of threads. Thread-safe.
namespace spectra::rule {

/// S = cos(r, e), denominator floored at 1e-8: r [n,E,D], e [n,E,D] or, `shared`, [E,D]; s [n,E].
void similarityForward(const float *r, const float *e, bool shared, std::int64_t n, std::int64_t experts, std::int64_t dim, float *s,
                       const Executor &executor);
/// dr [n,E,D] and de (as e; either may be none) of ds [n,E]. Below the floor the norms are constants, as with torch's clamp_min.
void similarityBackward(const float *r, const float *e, bool shared, const float *s, const float *ds, std::int64_t n, std::int64_t experts,
                        std::int64_t dim, float *dr, float *de, const Executor &executor);

/// C = −S + λ|S|R + β ReLU(|S|−τ)².
struct CostWeights {
    float lambda = 0, beta = 0, tau = 0;
};
void costForward(const float *s, const float *r, std::int64_t n, std::int64_t experts, const CostWeights &w, float *c, const Executor &executor);
/// ds [n,E] and dr [E,E] (or none) of dc [n,E]; sign(0) = 0.
void costBackward(const float *s, const float *r, const float *dc, std::int64_t n, std::int64_t experts, const CostWeights &w, float *ds, float *dr,
                  const Executor &executor);

/// Joins what several processes know of the columns, in place. Called once per iteration, in every process.
struct ColumnReduction {
    /// Σ_t exp(…) of column i is exp(maxima[i])·sums[i]; sums of 0 say nothing. After it: those of all processes.
    std::function<void(std::span<double> maxima, std::span<double> sums)> logSums;
    std::function<void(std::span<double> values)> sums;
};

/// Column log-potentials after each iteration of f_t = −LSE_i(K_ti + g_i), g_i = log(total/E) − LSE_t(K_ti + f_t) with K = −C/ε:
/// potentials [iterations+1, E], the first row 0. `total` rows over all processes.
void potentialForward(const float *cost, std::int64_t n, std::int64_t experts, double epsilon, int iterations, double total, float *potentials,
                      const ColumnReduction &reduction, const Executor &executor);
/// dcost [n,E] of dg [E] through all iterations. Iterations are formed again from their potentials instead of being kept.
void potentialBackward(const float *cost, const float *potentials, const float *dg, std::int64_t n, std::int64_t experts, double epsilon,
                       int iterations, double total, float *dcost, const ColumnReduction &reduction, const Executor &executor);

/// Q = softmax(−C/ε + g).
void planForward(const float *cost, const float *g, std::int64_t n, std::int64_t experts, double epsilon, float *q, const Executor &executor);
/// dcost [n,E] and dg [E] (either may be none) of dq.
void planBackward(const float *q, const float *dq, std::int64_t n, std::int64_t experts, double epsilon, float *dcost, float *dg,
                  const Executor &executor);

} // namespace spectra::rule
