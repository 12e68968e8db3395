// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/linearrouter.h"

#include "engine/router/gating.h"
#include "engine/router/routerinit.h"

namespace spectra {

std::string LinearRouter::tensorName(std::size_t layer, const std::string &what) const
{
    return "model.layers." + std::to_string(m_shape.moeLayers[layer]) + ".mlp.router." + what;
}

void LinearRouter::initialise(std::uint64_t seed)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
        m_weights.push_back(normalTensor(m_shape.experts, m_shape.hidden, 0.02, seed, l + 1).set_requires_grad(true));
        if (m_biased)
            m_biases.push_back(torch::zeros({m_shape.experts}).set_requires_grad(true));
        if (!m_bufferName.empty())
            m_buffers.push_back(torch::zeros({m_shape.experts}));
    }
}

Result<void> LinearRouter::load(const TensorLookup &lookup)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
        SPECTRA_TRY(const auto weight, storedTensor(lookup, tensorName(l, "weight"), {m_shape.experts, m_shape.hidden}));
        m_weights.push_back(weight.clone().set_requires_grad(true));
        if (m_biased) {
            SPECTRA_TRY(const auto bias, storedTensor(lookup, tensorName(l, "bias"), {m_shape.experts}));
            m_biases.push_back(bias.clone().set_requires_grad(true));
        }
        if (!m_bufferName.empty()) {
            SPECTRA_TRY(const auto kept, storedTensor(lookup, tensorName(l, m_bufferName), {m_shape.experts}));
            m_buffers.push_back(kept.clone());
        }
    }
    return {};
}

std::map<std::string, torch::Tensor> LinearRouter::parameters() const
{
    std::map<std::string, torch::Tensor> map;
    for (std::size_t l = 0; l < m_weights.size(); ++l) {
        map[tensorName(l, "weight")] = m_weights[l];
        if (m_biased)
            map[tensorName(l, "bias")] = m_biases[l];
    }
    return map;
}

std::map<std::string, torch::Tensor> LinearRouter::buffers() const
{
    std::map<std::string, torch::Tensor> map;
    for (std::size_t l = 0; l < m_buffers.size(); ++l)
        map[tensorName(l, m_bufferName)] = m_buffers[l];
    return map;
}

void LinearRouter::to(torch::Device device)
{
    for (auto *list : {&m_weights, &m_biases})
        for (torch::Tensor &t : *list)
            t = t.detach().to(device).set_requires_grad(true);
    for (torch::Tensor &t : m_buffers)
        t = t.to(device);
}

torch::Tensor LinearRouter::logits(const torch::Tensor &x, int layer) const
{
    const auto l = static_cast<std::size_t>(layer);
    return m_biased ? torch::linear(x, m_weights[l], m_biases[l]) : torch::linear(x, m_weights[l]);
}

} // namespace spectra
