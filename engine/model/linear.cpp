// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/linear.h"

#include "engine/model/cpufeatures.h"
#include "engine/model/kernels.h"

#include <algorithm>

namespace spectra {

void linear(torch::Tensor &y, const torch::Tensor &x, const torch::Tensor &w, const torch::Tensor &bias, bool accumulate)
{
    const std::int64_t rows = x.size(0);
    const bool bf16 = w.scalar_type() == torch::kBFloat16;
    if (x.device().is_cpu() && rows <= kernels::kGemvRows) {
        const float *const b = bias.defined() ? bias.const_data_ptr<float>() : nullptr;
        if (bf16)
            kernels::gemv(y.data_ptr<float>(), static_cast<const kernels::bfloat *>(w.const_data_ptr()), x.const_data_ptr<float>(), b, rows,
                          w.size(0), w.size(1), accumulate);
        else
            kernels::gemv(y.data_ptr<float>(), w.const_data_ptr<float>(), x.const_data_ptr<float>(), b, rows, w.size(0), w.size(1), accumulate);
        return;
    }
    if (bf16 && x.device().is_cpu() && !amxUsable()) {
        // AVX-512 BF16 has no more multiply-adds per cycle than f32 has, and its products repack the weights: widening them
        // block by block and multiplying in f32 is quicker and rounds less.
        constexpr std::int64_t kBlock = 4096;
        for (std::int64_t first = 0; first < w.size(0); first += kBlock) {
            const std::int64_t n = std::min(kBlock, w.size(0) - first);
            const torch::Tensor wide = w.narrow(0, first, n).to(torch::kFloat32);
            torch::Tensor place = y.narrow(1, first, n);
            if (accumulate)
                place.addmm_(x, wide.t());
            else
                at::mm_out(place, x, wide.t());
        }
    } else if (bf16) {
        const torch::Tensor product = at::mm(x.to(torch::kBFloat16), w.t());
        if (accumulate)
            y.add_(product);
        else
            y.copy_(product);
    } else if (accumulate) {
        at::addmm_out(y, y, x, w.t());
    } else {
        at::mm_out(y, x, w.t());
    }
    if (bias.defined())
        y.add_(bias);
}

void rmsNorm(torch::Tensor &y, const torch::Tensor &x, const torch::Tensor &w, double epsilon)
{
    if (x.device().is_cpu()) {
        kernels::rmsNorm(y.data_ptr<float>(), x.const_data_ptr<float>(), w.const_data_ptr<float>(), epsilon, x.size(0), x.size(1));
        return;
    }
    const torch::Tensor scale = x.square().mean(-1, true).add_(epsilon).rsqrt_();
    at::mul_out(y, x, scale);
    y.mul_(w);
}

void siluMultiply(torch::Tensor &act, const torch::Tensor &gateUp)
{
    const std::int64_t intermediate = gateUp.size(1) / 2;
    if (gateUp.device().is_cpu()) {
        kernels::siluMultiply(act.data_ptr<float>(), gateUp.const_data_ptr<float>(), gateUp.size(0), intermediate);
        return;
    }
    at::silu_out(act, gateUp.narrow(1, 0, intermediate));
    act.mul_(gateUp.narrow(1, intermediate, intermediate));
}

torch::Tensor &Workspace::get(Slot slot, std::int64_t rows, std::int64_t columns)
{
    Buffer &b = m_buffers[slot];
    if (b.shaped.defined() && b.shaped.size(0) == rows && b.shaped.size(1) == columns)
        return b.shaped;
    const std::int64_t n = rows * columns;
    if (!b.flat.defined() || b.flat.numel() < n) {
        b.shaped.reset();
        b.flat = torch::Tensor();
        b.flat = torch::empty({n}, torch::TensorOptions().dtype(torch::kFloat32).device(m_device));
    }
    b.shaped = b.flat.narrow(0, 0, n).view({rows, columns});
    return b.shaped;
}

void Workspace::clear()
{
    for (Buffer &b : m_buffers)
        b = Buffer();
}

} // namespace spectra
