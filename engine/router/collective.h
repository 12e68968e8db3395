// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

namespace spectra {

/// The processes of a data-parallel run, as the code between them sees it. Every process calls the same members in the same
/// order with tensors of the same shape. Engine thread only.
class Collective {
public:
    virtual ~Collective() = default;
    [[nodiscard]] virtual int rank() const = 0;
    [[nodiscard]] virtual int size() const = 0;
    /// t ← the sum of every process's t, in place. No gradient. f32, f64 or i64, contiguous, on the CPU.
    virtual void sumInPlace(torch::Tensor &t) = 0;
    /// t ← that of process 0.
    virtual void broadcast(torch::Tensor &t) = 0;
};

/// The sum of every process's t, differentiable: the gradient that comes back is summed over the processes as well, since each
/// process's loss depends on the sum. Without a collective (nullptr) t itself.
[[nodiscard]] torch::Tensor sumOverProcesses(const torch::Tensor &t, Collective *collective);

} // namespace spectra
