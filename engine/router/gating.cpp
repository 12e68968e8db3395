// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"

#include "engine/rule/selection.h"

#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <numeric>
#include <tuple>
#include <vector>

namespace spectra {

Result<torch::Tensor> storedTensor(const TensorLookup &lookup, const std::string &name, const std::vector<std::int64_t> &shape)
{
    SPECTRA_TRY(const auto tensor, lookup(name, shape));
    if (!tensor.defined())
        return inputError("the checkpoint has no tensor of this name", name, "the router options in config.json must match the tensors");
    if (tensor.sizes() != torch::IntArrayRef(shape))
        return inputError("the tensor's shape does not fit the router", name);
    return tensor.detach().to(torch::kFloat32).contiguous();
}

torch::Generator stepGenerator(const RouterInput &input, std::uint64_t stream)
{
    return at::detail::createCPUGenerator(input.seed * 0x9E3779B97F4A7C15ull + static_cast<std::uint64_t>(input.layer) + stream * 0xD1B54A32D192ED03ull);
}

torch::Tensor jittered(const RouterInput &input, double j)
{
    if (!input.training || j <= 0)
        return input.x;
    return input.x * torch::empty(input.x.sizes(), torch::kFloat32).uniform_(1 - j, 1 + j, stepGenerator(input)).to(input.x.device());
}

torch::Tensor topKColumns(const torch::Tensor &selection, std::int64_t k)
{
    return std::get<1>(torch::sort(selection.detach(), true, -1, true)).slice(1, 0, k).contiguous();
}

void choose(RoutingStep &step, const torch::Tensor &selection, const torch::Tensor &scores, std::int64_t k, bool normalise)
{
    if (selection.device().is_cpu() && !scores.requires_grad()) {
        const std::int64_t n = selection.size(0), e = selection.size(1);
        const torch::Tensor rows = selection.contiguous();
        step.experts = torch::empty({n, k}, torch::kInt64);
        step.weights = torch::empty({n, k}, torch::kFloat32);
        const auto count = static_cast<std::size_t>(n * k);
        rule::topK({rows.const_data_ptr<float>(), static_cast<std::size_t>(n * e)}, e, k, false, {step.experts.data_ptr<std::int64_t>(), count},
                   {step.weights.data_ptr<float>(), count});
    } else {
        step.experts = topKColumns(selection, k);
    }
    step.weights = scores.gather(1, step.experts);
    if (normalise)
        step.weights = step.weights / (step.weights.sum(-1, true) + 1e-20);
}

torch::Tensor chosenMask(const torch::Tensor &experts, std::int64_t count)
{
    torch::Tensor wide = torch::zeros({experts.size(0), count + 1}, torch::TensorOptions(torch::kFloat32).device(experts.device()));
    wide.scatter_(1, torch::where(experts < 0, torch::full_like(experts, count), experts), 1.0);
    return wide.narrow(1, 0, count);
}

torch::Tensor countedRows(const torch::Tensor &t, const RouterInput &input)
{
    return input.mask.defined() ? t.index_select(0, input.mask.nonzero().view({-1})) : t;
}

namespace {

torch::Tensor balance(const torch::Tensor &probabilities, const torch::Tensor &chosen)
{
    const torch::Tensor load = chosen.sum(0);
    return static_cast<double>(probabilities.size(1)) * (load / load.sum().clamp_min(1) * probabilities.mean(0)).sum();
}

} // namespace

torch::Tensor balanceLoss(const torch::Tensor &probabilities, const torch::Tensor &experts, const RouterInput &input)
{
    const torch::Tensor p = countedRows(probabilities, input);
    if (p.size(0) == 0)
        return probabilities.sum() * 0;
    return balance(p, countedRows(chosenMask(experts, probabilities.size(1)), input));
}

torch::Tensor sequenceBalanceLoss(const torch::Tensor &probabilities, const torch::Tensor &experts, const RouterInput &input)
{
    const torch::Tensor chosen = chosenMask(experts, probabilities.size(1));
    torch::Tensor total = probabilities.sum() * 0;
    int sequences = 0;
    for (std::size_t s = 0; s + 1 < input.offsets.size(); ++s) {
        const std::int64_t begin = input.offsets[s], n = input.offsets[s + 1] - begin;
        torch::Tensor p = probabilities.narrow(0, begin, n), c = chosen.narrow(0, begin, n);
        if (input.mask.defined()) {
            const torch::Tensor rows = input.mask.narrow(0, begin, n).nonzero().view({-1});
            p = p.index_select(0, rows);
            c = c.index_select(0, rows);
        }
        if (p.size(0) == 0)
            continue;
        total = total + balance(p, c);
        ++sequences;
    }
    return total / std::max(1, sequences);
}

torch::Tensor zLoss(const torch::Tensor &logits, const RouterInput &input)
{
    const torch::Tensor counted = countedRows(logits, input);
    return counted.size(0) == 0 ? logits.sum() * 0 : torch::logsumexp(counted, -1).square().mean();
}

void applyCapacity(RoutingStep &step, const RouterInput &input, std::int64_t experts, double factor, const std::string &policy, const torch::Tensor &priority)
{
    const torch::Tensor chosen = step.experts.cpu().contiguous();
    const std::int64_t n = chosen.size(0), k = chosen.size(1);
    const torch::Tensor mask = input.mask.defined() ? input.mask.cpu().to(torch::kUInt8).contiguous() : torch::ones({n}, torch::kUInt8);
    const auto *const counted = mask.const_data_ptr<std::uint8_t>();
    const std::int64_t rows = std::accumulate(counted, counted + n, std::int64_t(0), [](std::int64_t a, std::uint8_t b) { return a + (b != 0); });
    const std::int64_t capacity = rule::quotaCapacity(factor, rows, experts, k);
    const auto *const expert = chosen.const_data_ptr<std::int64_t>();

    std::vector<std::int64_t> order; // slots in the order in which they are served
    for (std::int64_t slot = 0; slot < k; ++slot)
        for (std::int64_t t = 0; t < n; ++t)
            if (counted[t] != 0 && expert[t * k + slot] >= 0)
                order.push_back(t * k + slot);
    if (policy == "probs") {
        const torch::Tensor value = priority.detach().cpu().contiguous();
        const float *const p = value.const_data_ptr<float>();
        std::sort(order.begin(), order.end());
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return p[a / k * experts + expert[a]] > p[b / k * experts + expert[b]]; });
    }
    torch::Tensor kept = torch::ones({n, k}, torch::kUInt8);
    auto *const keep = kept.data_ptr<std::uint8_t>();
    std::vector<std::int64_t> used(static_cast<std::size_t>(experts), 0);
    for (const std::int64_t at : order)
        if (++used[static_cast<std::size_t>(expert[at])] > capacity)
            keep[at] = 0;
    const torch::Tensor here = kept.to(step.experts.device());
    step.experts = torch::where(here > 0, step.experts, torch::full_like(step.experts, -1));
    step.weights = step.weights * here;
    step.dropped = (1 - kept).sum(1).to(torch::kUInt8);
}

} // namespace spectra
