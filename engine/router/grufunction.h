// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

/// The GRU of the SPECTRA router as one node of the autograd graph, on the kernels of engine/rule: no graph per token. First
/// derivatives only. f32 on the CPU; `fusedGruFits()` says whether that holds, and the composition in spectratensors.h serves all
/// else. Results and gradients do not depend on the number of threads.
namespace spectra::tensors {

/// True when all defined tensors are f32 on the CPU.
[[nodiscard]] bool fusedGruFits(const std::vector<torch::Tensor> &tensors);

/// As gruOverTokens(): gi [N,3H]; offsets [S+1]; start [S,H]; depth [N,H] or undefined. Returns h [N,H]; `last` receives [S,H].
[[nodiscard]] torch::Tensor fusedGruOverTokens(const torch::Tensor &gi, const std::vector<std::int64_t> &offsets, const torch::Tensor &start,
                                               const torch::Tensor &depth, const torch::Tensor &weightHh, const torch::Tensor &biasHh,
                                               torch::Tensor &last);

/// The gates of one step: gi, gh [n,3H], h [n,H] → h' [n,H]. The recurrent product gh = W_hh h + b_hh is the caller's.
[[nodiscard]] torch::Tensor fusedGruGates(const torch::Tensor &gi, const torch::Tensor &gh, const torch::Tensor &h);

} // namespace spectra::tensors
