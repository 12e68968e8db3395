// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/collective.h"

namespace spectra {
namespace {

class SumOverProcesses : public torch::autograd::Function<SumOverProcesses> {
public:
    static torch::Tensor forward(torch::autograd::AutogradContext *context, const torch::Tensor &t, std::int64_t collective)
    {
        context->saved_data["collective"] = collective;
        auto sum = t.contiguous().clone();
        reinterpret_cast<Collective *>(collective)->sumInPlace(sum);
        return sum;
    }
    static torch::autograd::tensor_list backward(torch::autograd::AutogradContext *context, torch::autograd::tensor_list gradients)
    {
        auto gradient = gradients[0].contiguous().clone();
        reinterpret_cast<Collective *>(context->saved_data["collective"].toInt())->sumInPlace(gradient);
        return {gradient, torch::Tensor()};
    }
};

} // namespace

torch::Tensor sumOverProcesses(const torch::Tensor &t, Collective *collective)
{
    if (!collective || collective->size() < 2)
        return t;
    return SumOverProcesses::apply(t, reinterpret_cast<std::int64_t>(collective));
}

} // namespace spectra
