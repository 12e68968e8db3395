// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>

/// The experts of a layer with gradients; what trainops.h says of its operations holds here.
namespace spectra::train {

/// Which token's slot goes to which expert, in ascending expert order and token order within. All i64 on the CPU.
struct Assignments {
    torch::Tensor begin;                 ///< [E+1] first sorted row of each expert
    torch::Tensor slot;                  ///< [R] place n·k + s of each sorted row; its token is slot / k
    torch::Tensor rowOf;                 ///< [N,k] sorted row of each slot, −1 for an empty one
    std::int64_t tokens = 0, slots = 0;  ///< N, k
    [[nodiscard]] std::int64_t rows() const { return slot.size(0); }
    [[nodiscard]] std::int64_t experts() const { return begin.size(0) - 1; }
};
/// Of experts [N,k] i64; entries outside 0 … count−1 are empty slots.
[[nodiscard]] Assignments assign(const torch::Tensor &experts, std::int64_t count);
/// Every token to the one expert of a dense FFN.
[[nodiscard]] Assignments assignAll(std::int64_t tokens);

/// Gated FFNs: [E,2I,H], [E,H,I], [E,2I], [E,H], or without the expert axis. Biases may be undefined.
struct BankWeights {
    torch::Tensor gateUp, down, gateUpBias, downBias;
};
/// FFN_expert(x) of every sorted row: [R,H]. `weights` [N,k], where given, multiply the inputs.
[[nodiscard]] torch::Tensor expertRows(const torch::Tensor &x, const torch::Tensor &weights, const Assignments &assignments, const BankWeights &bank, bool bf16);

/// residual [N,H] + scale·Σ_slots weight·row, over the slots that are not empty; undefined weights [N,k] count as 1.
[[nodiscard]] torch::Tensor combine(const torch::Tensor &residual, const torch::Tensor &rows, const torch::Tensor &weights, const Assignments &assignments,
                                    double scale);

/// The sorted rows at their slots: [N,k,H], 0 in empty ones.
[[nodiscard]] torch::Tensor slotOutputs(const torch::Tensor &rows, const Assignments &assignments);

} // namespace spectra::train
