// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/collective.h"

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

/// The SPECTRA rule on tensors: differentiable, any device; f32 on the CPU takes the fused nodes of grufunction.h and osrfunction.h.
/// CPU inference runs engine/rule instead; tests hold the two equal.
/// N rows, E experts, D router dimension, H = E·D.
namespace spectra::tensors {

/// x / |x| along the last axis; 0 stays 0.
[[nodiscard]] torch::Tensor normalized(const torch::Tensor &x);

/// One GRU step (gate order r, z, n; formula of torch.nn.GRU): gi [n,3H] input part with its bias, h [n,H]. f32 on the CPU: fused.
[[nodiscard]] torch::Tensor gruStep(const torch::Tensor &gi, const torch::Tensor &h, const torch::Tensor &weightHh, const torch::Tensor &biasHh);

/// The GRU over the tokens of each sequence. gi [N,3H]; offsets [S+1]; start [S,H]; `depth` [N,H]: with it the state that goes
/// into step t is ½(h_{t-1} + depth_t) (axis `grid`); undefined without. Returns h [N,H]; `last` receives [S,H].
[[nodiscard]] torch::Tensor gruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                                          const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh,
                                          torch::Tensor &last);

/// What has a fused form, as compositions of torch's own operations: for other devices and precisions, and what tests compare with.
namespace composed {
[[nodiscard]] torch::Tensor gruStep(const torch::Tensor &gi, const torch::Tensor &h, const torch::Tensor &weightHh, const torch::Tensor &biasHh);
[[nodiscard]] torch::Tensor gruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                                          const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh,
                                          torch::Tensor &last);
[[nodiscard]] torch::Tensor similarity(const torch::Tensor &r, const torch::Tensor &e);
[[nodiscard]] torch::Tensor osrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau);
[[nodiscard]] torch::Tensor sinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, bool logDomain, double total = -1,
                                              Collective *collective = nullptr);
[[nodiscard]] torch::Tensor plan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon, bool logDomain);
} // namespace composed

/// The projector W [H,d] made (semi-)orthogonal: "none", "newton_schulz", "qr" (positive diagonal of R) or "svd" (polar factor).
[[nodiscard]] torch::Tensor orthogonalized(const torch::Tensor &w, const std::string &form, int newtonSchulzIterations);

/// cos(r, e) with the product of norms floored at 1e-8: [N,E,D] × [N or 1,E,D] → [N,E].
[[nodiscard]] torch::Tensor similarity(const torch::Tensor &r, const torch::Tensor &e);
/// Ē Ēᵀ of mean [E,D] → [E,E].
[[nodiscard]] torch::Tensor gram(const torch::Tensor &mean);
/// ((G ⊙ (1−I))² → [E,E].
[[nodiscard]] torch::Tensor repulsion(const torch::Tensor &gram);
/// −S + λ|S|R + β ReLU(|S|−τ)² → [N,E].
[[nodiscard]] torch::Tensor osrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau);

/// Column log-potentials g [E] of `iterations` row and column updates on the rows of cost [n,E] (method page, item 6), with gradient
/// through all of them. In several processes the rows of all take part: every process gives its own and `total`, the number of all
/// (< 0: those given). Each iteration joins the columns' log-sums; what comes back to g is summed over the processes, since each
/// one's loss depends on it.
[[nodiscard]] torch::Tensor sinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, bool logDomain, double total = -1,
                                              Collective *collective = nullptr);
/// Row-normalised plan of potentials g: softmax(−C/ε + g), with the kernel form's clamp when not in the log domain.
[[nodiscard]] torch::Tensor plan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon, bool logDomain);
/// max_i |Σ_t Q_ti − n/E| / (n/E) over the rows given.
[[nodiscard]] double violation(const torch::Tensor &q);

/// Speciality penalty of routing vectors r [n,E,D]: [1] ("global") or [E] ("per_expert").
[[nodiscard]] torch::Tensor specialityPenalty(const torch::Tensor &r, const std::string &form);
/// cos·(1+p) for "global", cos − |cos|·p for "per_expert", cos for "none".
[[nodiscard]] torch::Tensor domainScore(const torch::Tensor &s, const torch::Tensor &p, const std::string &form);

/// mean_t −Σ_i Q log Q, nats.
[[nodiscard]] torch::Tensor meanEntropy(const torch::Tensor &q);
/// 0.7‖M‖²_F + 0.3 σ_max(M)², or ‖M‖²_F without `srip`, of a symmetric M.
[[nodiscard]] torch::Tensor orthoLoss(const torch::Tensor &m, bool srip);

} // namespace spectra::tensors
