// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/collective.h"

#include <torch/torch.h>

/// The OSR chain as nodes of the autograd graph on the kernels of engine/rule: one pass over memory forward, one backward. First
/// derivatives only; f32 on the CPU (fusedOsrFits()), and the compositions in spectratensors.h serve all else. Results and
/// gradients do not depend on the number of threads.
namespace spectra::tensors {

/// True when all tensors are f32 on the CPU.
[[nodiscard]] bool fusedOsrFits(std::initializer_list<torch::Tensor> tensors);

/// As similarity(): r [N,E,D], e [N or 1,E,D] → [N,E].
[[nodiscard]] torch::Tensor fusedSimilarity(const torch::Tensor &r, const torch::Tensor &e);
/// As osrCost(): s [N,E], r [E,E] → [N,E].
[[nodiscard]] torch::Tensor fusedOsrCost(const torch::Tensor &s, const torch::Tensor &r, double lambda, double beta, double tau);
/// As sinkhornPotential() in the log domain: cost [n,E] → g [E]. `total` rows over all processes of `collective`.
[[nodiscard]] torch::Tensor fusedSinkhornPotential(const torch::Tensor &cost, double epsilon, int iterations, double total, Collective *collective);
/// As plan() in the log domain: softmax(−C/ε + g).
[[nodiscard]] torch::Tensor fusedPlan(const torch::Tensor &cost, const torch::Tensor &g, double epsilon);

} // namespace spectra::tensors
