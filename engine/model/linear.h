// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <vector>

namespace spectra {

/// y [n, out] (+)= x [n, in]·wᵀ (+ bias), y and x f32 and contiguous, w [out, in] f32 or bf16. With bf16 weights x is
/// rounded to bf16 too where AMX or a GPU multiplies. `accumulate` adds to y.
void linear(torch::Tensor &y, const torch::Tensor &x, const torch::Tensor &w, const torch::Tensor &bias, bool accumulate);

/// y = RMSNorm(x), f32.
void rmsNorm(torch::Tensor &y, const torch::Tensor &x, const torch::Tensor &w, double epsilon);

/// act [n, I] = silu(gate)·up of gateUp [n, 2I].
void siluMultiply(torch::Tensor &act, const torch::Tensor &gateUp);

/// Buffers that live from layer to layer and pass to pass, so that neither prefill nor decode allocates per operation.
/// Contents are undefined between uses. Asking for the shape of the last time costs nothing.
class Workspace {
public:
    enum Slot { hidden, normed, qkv, attention, gateUp, active, gathered, expertOut, cosines, sines, logits, slotCount };
    explicit Workspace(torch::Device device = torch::kCPU) : m_device(device) {}
    [[nodiscard]] torch::Tensor &get(Slot slot, std::int64_t rows, std::int64_t columns);
    /// Gives back buffers larger than a chunk needs.
    void clear();

private:
    struct Buffer {
        torch::Tensor flat, shaped;
    };
    torch::Device m_device;
    Buffer m_buffers[slotCount];
};

} // namespace spectra
