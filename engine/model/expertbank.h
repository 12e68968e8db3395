// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/model/linear.h"
#include "engine/model/pass.h"
#include "engine/model/weights.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

namespace spectra {

/// What one MoE layer's experts are to do with n rows.
struct ExpertTask {
    const FfnWeights *experts = nullptr;
    const FfnWeights *shared = nullptr;          ///< nullptr: none
    double routedScale = 1, sharedScale = 1;
    std::span<const std::uint8_t> mask;          ///< [n], 1 = counted; empty: all
    ExpertSums *sums = nullptr;                  ///< adds to them
    std::vector<std::int64_t> outputRows;        ///< rows whose unweighted outputs are wanted, ascending
};

/// residual [n,H] += routedScale·Σ_slots weight·FFN_expert(x) + sharedScale·FFN_shared(x). Runs only the chosen experts: rows
/// are sorted by expert and each expert does two matrix products; a few rows go one by one. Returns the wanted unweighted
/// outputs [m,k,H] (0 where a slot is empty), undefined when none were asked for. Errors: cancelled.
[[nodiscard]] Result<torch::Tensor> runExperts(torch::Tensor &residual, const torch::Tensor &x, const RoutingStep &step, const ExpertTask &task,
                                               Workspace &workspace, const std::stop_token &stop);

/// residual += FFN(x) for a dense layer.
void runFfn(torch::Tensor &residual, const torch::Tensor &x, const FfnWeights &ffn, double scale, Workspace &workspace);

/// Applies an intervention to experts [n,k] and weights [n,k] (pass.h says how).
void intervene(RoutingStep &step, const Intervention &intervention);

} // namespace spectra
