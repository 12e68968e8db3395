// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <string>

namespace spectra {

// Steps that many routers have in common, differentiable where the method is.

/// A stored tensor of this name and shape as contiguous f32. Errors (input): missing or mis-shaped.
[[nodiscard]] Result<torch::Tensor> storedTensor(const TensorLookup &lookup, const std::string &name, const std::vector<std::int64_t> &shape);

/// A generator for one layer of one step: the same draws whatever ran before. `stream` tells several uses in a layer apart.
[[nodiscard]] torch::Generator stepGenerator(const RouterInput &input, std::uint64_t stream = 0);

/// In training x·U(1−j, 1+j) elementwise, else x.
[[nodiscard]] torch::Tensor jittered(const RouterInput &input, double j);

/// Columns of the k largest of each row of `selection` [N,E], descending, ties to the lower index: [N,k] i64. No gradient.
[[nodiscard]] torch::Tensor topKColumns(const torch::Tensor &selection, std::int64_t k);

/// Fills step.experts by top-k of `selection` and step.weights with `scores` there, divided by their sum when `normalise`.
/// The gradient goes through `scores` only.
void choose(RoutingStep &step, const torch::Tensor &selection, const torch::Tensor &scores, std::int64_t k, bool normalise);

/// 1 where expert e is among the chosen of row t: [N,E] f32, empty slots (−1) left out.
[[nodiscard]] torch::Tensor chosenMask(const torch::Tensor &experts, std::int64_t count);
/// The rows of t [N,…] that count.
[[nodiscard]] torch::Tensor countedRows(const torch::Tensor &t, const RouterInput &input);

/// Load-balancing loss E·Σ_e f_e P_e, with f_e the share of the assignments that expert e got and P_e the mean probability
/// (Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6, for k slots: 1 at balance whatever k). Counted rows only. In several
/// processes this loss and those below are formed of a process's own rows, as data-parallel training of these methods has it; being products
/// of means, their average over processes is not that of one process with the whole batch.
[[nodiscard]] torch::Tensor balanceLoss(const torch::Tensor &probabilities, const torch::Tensor &experts, const RouterInput &input);
/// The same formed in every sequence and averaged over those with counted rows.
[[nodiscard]] torch::Tensor sequenceBalanceLoss(const torch::Tensor &probabilities, const torch::Tensor &experts, const RouterInput &input);
/// mean_t (log Σ_e exp ℓ_te)² (Zoph et al. 2022, arXiv 2202.08906, equation 5). Counted rows only.
[[nodiscard]] torch::Tensor zLoss(const torch::Tensor &logits, const RouterInput &input);

/// Slots per expert ⌈factor·N·k/E⌉ of N counted rows; an expert's assignments beyond that lose their slot (expert −1, weight 0,
/// counted in step.dropped). Who keeps a slot: "position", first choices before second ones and then the earlier row;
/// "probs", the larger `priority` [N,E], ties to the earlier row. Rows that do not count keep theirs and take none.
void applyCapacity(RoutingStep &step, const RouterInput &input, std::int64_t experts, double factor, const std::string &policy, const torch::Tensor &priority);

} // namespace spectra
