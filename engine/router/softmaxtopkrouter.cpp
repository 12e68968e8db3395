// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/softmaxtopkrouter.h"

#include "engine/router/routerinit.h"
#include "engine/rule/selection.h"

#include <ATen/CPUGeneratorImpl.h>

#include <tuple>

namespace spectra {

const std::vector<OptionField<SoftmaxTopKOptions>> &softmaxTopKOptionTable()
{
    using O = SoftmaxTopKOptions;
    const double inf = std::numeric_limits<double>::infinity();
    static const std::vector<OptionField<O>> table = {
        {"norm_topk_prob", &O::normTopK, "weights of the chosen experts sum to 1", -inf, inf, false, {}, false},
        {"router_jitter_noise", &O::jitterNoise, "in training: router input times U(1-j, 1+j)", 0, 1, false, {}, false},
        {"router_aux_loss_coef", &O::auxLossCoef, "coefficient of the load-balancing loss", 0, 1000, false, {}, false},
    };
    return table;
}

std::string SoftmaxTopKRouter::weightName(std::size_t layer) const
{
    return "model.layers." + std::to_string(m_shape.moeLayers[layer]) + ".mlp.router.weight";
}

void SoftmaxTopKRouter::initialise(std::uint64_t seed)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l)
        m_weights.push_back(normalTensor(m_shape.experts, m_shape.hidden, 0.02, seed, l + 1).set_requires_grad(true));
}

Result<void> SoftmaxTopKRouter::load(const TensorLookup &lookup)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
        SPECTRA_TRY(auto tensor, lookup(weightName(l), {m_shape.experts, m_shape.hidden}));
        if (!tensor.defined())
            return inputError("the checkpoint has no tensor of this name", weightName(l));
        if (tensor.dim() != 2 || tensor.size(0) != m_shape.experts || tensor.size(1) != m_shape.hidden)
            return inputError("the tensor's shape does not fit the router", weightName(l));
        m_weights.push_back(tensor.detach().to(torch::kFloat32).contiguous().clone().set_requires_grad(true));
    }
    return {};
}

std::map<std::string, torch::Tensor> SoftmaxTopKRouter::parameters() const
{
    std::map<std::string, torch::Tensor> map;
    for (std::size_t l = 0; l < m_weights.size(); ++l)
        map[weightName(l)] = m_weights[l];
    return map;
}

std::string SoftmaxTopKRouter::options() const
{
    return writeOptions("softmax_topk", m_options, softmaxTopKOptionTable());
}

void SoftmaxTopKRouter::to(torch::Device device)
{
    for (torch::Tensor &w : m_weights)
        w = w.detach().to(device).set_requires_grad(true);
}

RoutingStep SoftmaxTopKRouter::route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/)
{
    const std::int64_t n = input.x.size(0), e = m_shape.experts, k = m_shape.topK;
    RoutingStep step;
    auto x = input.x;
    if (input.training && m_options.jitterNoise > 0) {
        auto generator = at::detail::createCPUGenerator(input.seed * 0x9E3779B97F4A7C15ull + static_cast<std::uint64_t>(input.layer));
        x = x * torch::empty(x.sizes(), torch::kFloat32).uniform_(1 - m_options.jitterNoise, 1 + m_options.jitterNoise, generator).to(x.device());
    }
    step.logits = torch::linear(x, m_weights[static_cast<std::size_t>(input.layer)]);
    const auto p = torch::softmax(step.logits, -1);
    step.probabilities = step.selection = p;
    if (!input.training && !p.requires_grad() && p.device().is_cpu()) {
        const auto rows = p.contiguous();
        step.experts = torch::empty({n, k}, torch::kInt64);
        step.weights = torch::empty({n, k}, torch::kFloat32);
        const auto count = static_cast<std::size_t>(n * k);
        rule::topK({rows.const_data_ptr<float>(), static_cast<std::size_t>(n * e)}, e, k, m_options.normTopK,
                   {step.experts.data_ptr<std::int64_t>(), count}, {step.weights.data_ptr<float>(), count});
        return step;
    }
    step.experts = std::get<1>(torch::sort(p.detach(), true, -1, true)).slice(1, 0, k).contiguous();
    step.weights = p.gather(1, step.experts);
    if (m_options.normTopK)
        step.weights = step.weights / step.weights.sum(-1, true);
    if (input.training && m_options.auxLossCoef > 0) {
        auto counted = p;
        auto chosen = torch::one_hot(step.experts, e).sum(1).to(torch::kFloat32); // [N,E]
        if (input.mask.defined()) {
            const auto rows = input.mask.nonzero().view({-1});
            counted = counted.index_select(0, rows);
            chosen = chosen.index_select(0, rows);
        }
        if (counted.size(0) > 0)
            step.losses["balance"] = m_options.auxLossCoef * static_cast<double>(e) * (chosen.mean(0) * counted.mean(0)).sum();
    }
    return step;
}

} // namespace spectra
