// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/qkclip.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace spectra {
namespace {

void scaleRows(const torch::Tensor &weight, const torch::Tensor &bias, std::int64_t head, std::int64_t headDim, double factor)
{
    if (factor == 1)
        return;
    weight.narrow(0, head * headDim, headDim).mul_(factor);
    if (bias.defined())
        bias.narrow(0, head * headDim, headDim).mul_(factor);
}

} // namespace

std::int64_t qkClip(torch::Tensor qkvWeight, torch::Tensor qkvBias, std::int64_t heads, std::int64_t kvHeads, std::int64_t headDim,
                    const torch::Tensor &maxLogits, double tau)
{
    const torch::NoGradGuard noGrad;
    const torch::Tensor largest = maxLogits.detach().to(torch::kCPU, torch::kFloat64).contiguous();
    const torch::Tensor weight = qkvWeight.detach(), bias = qkvBias.defined() ? qkvBias.detach() : qkvBias;
    TORCH_CHECK(tau > 0 && largest.numel() == heads && heads % kvHeads == 0 && weight.dim() == 2 && weight.size(0) == (heads + 2 * kvHeads) * headDim,
                "qkClip: sizes");
    std::vector<double> factors(static_cast<std::size_t>(heads), 1);
    std::int64_t clipped = 0;
    for (std::int64_t h = 0; h < heads; ++h)
        if (const double s = largest.const_data_ptr<double>()[h]; std::isfinite(s) && s > tau) {
            factors[static_cast<std::size_t>(h)] = tau / s;
            ++clipped;
        }
    const std::int64_t group = heads / kvHeads;
    for (std::int64_t k = 0; clipped > 0 && k < kvHeads; ++k) {
        const auto first = factors.begin() + k * group;
        const double key = std::sqrt(*std::max_element(first, first + group));
        scaleRows(weight, bias, heads + k, headDim, key);
        for (std::int64_t h = 0; h < group; ++h)
            scaleRows(weight, bias, k * group + h, headDim, first[h] / key);
    }
    return clipped;
}

} // namespace spectra
