// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace spectra::rule {

/// Orthogonal Sinkhorn Routing (SPECTRA drafts; method page, section 1, items 3 to 5): the cost and the causal rule, row by row.
/// No row looks at another, so results do not depend on grouping or threads. All functions run in the calling thread.
struct OsrOptions {
    double repulsionWeight = 0.5;     ///< λ
    double confidencePenalty = 0.5;   ///< β
    double confidenceThreshold = 0.7; ///< τ
    double epsilon = 0.05;            ///< ε, temperature
    bool clampLogits = false;         ///< the kernel form's clamp of −C/ε to ±50

    [[nodiscard]] bool isValid(std::string *why = nullptr) const;
};

/// S_ti = cos(r_ti, e_ti), denominator floored at 1e-8. r [n,E,D]; e [n,E,D], or [E,D] shared by all rows; s [n,E].
void similarity(std::span<const float> r, std::span<const float> e, std::int64_t n, std::int64_t experts, std::int64_t dim, std::span<float> s);

/// cos(x_t, w_i) of tokens x [n,d] with one vector per expert w [E,d]; s [n,E].
void linearSimilarity(std::span<const float> x, std::span<const float> w, std::int64_t n, std::int64_t experts, std::int64_t hidden, std::span<float> s);

/// G = Ē Ēᵀ of the row-normalised mean [E,D] (a zero row stays zero) into g [E,E].
void gram(std::span<const float> mean, std::int64_t experts, std::int64_t dim, std::span<float> g);

/// R = (G ⊙ (1−I))², [E,E].
void repulsionMatrix(std::span<const float> g, std::int64_t experts, std::span<float> r);

/// C = −S + λ|S|R + β ReLU(|S|−τ)². s, c [n,E], r [E,E].
void osrCost(std::span<const float> s, std::span<const float> r, std::int64_t n, std::int64_t experts, const OsrOptions &options, std::span<float> c);

/// Q_t = softmax(scale·v_t + g), g [E] or empty. With `clamp` scale·v is first held to ±50. v, q [n,E]; q may be v.
void softmaxRows(std::span<const float> v, std::span<const float> g, std::int64_t n, std::int64_t experts, double scale, bool clamp, std::span<float> q);

/// One block of rows through the whole rule: C (kept where `cost` is not empty) and Q = softmax(−C/ε + g). Equal, bit for bit, to
/// osrCost() and softmaxRows() one after the other.
void causalRule(std::span<const float> s, std::span<const float> r, std::span<const float> g, std::int64_t n, std::int64_t experts,
                const OsrOptions &options, std::span<float> cost, std::span<float> q);

} // namespace spectra::rule
