// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/traintasks.h"

#include <array>
#include <vector>

namespace spectra::train {

void multiply(at::Tensor c, const at::Tensor &a, const at::Tensor &b, bool add, bool bf16)
{
    if (bf16) {
        const at::Tensor product = at::mm(a.to(at::kBFloat16), b.to(at::kBFloat16));
        if (add)
            c.add_(product);
        else
            c.copy_(product);
        return;
    }
    if (add)
        c.addmm_(a, b);
    else
        at::mm_out(c, a, b);
}

at::Tensor scratch(int slot, std::int64_t rows, std::int64_t columns)
{
    thread_local std::array<std::vector<float>, 4> memory;
    std::vector<float> &own = memory.at(static_cast<std::size_t>(slot));
    const auto size = static_cast<std::size_t>(rows * columns);
    if (own.size() < size)
        own.resize(size);
    return at::from_blob(own.data(), {rows, columns}, at::kFloat);
}

GradientPlace gradientPlace(const at::Tensor &leaf)
{
    if (!leaf.defined() || !leaf.requires_grad())
        return {};
    at::Tensor &gradient = leaf.mutable_grad();
    if (gradient.defined())
        return {gradient, true};
    gradient = at::empty(leaf.sizes(), leaf.options().requires_grad(false));
    return {gradient, false};
}

} // namespace spectra::train
