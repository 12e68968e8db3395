// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/layertensorrouter.h"

#include "engine/router/gating.h"

namespace spectra {

std::string LayerTensorRouter::tensorName(std::size_t layer, std::size_t part) const
{
    return "model.layers." + std::to_string(m_shape.moeLayers[layer]) + ".mlp.router." + m_parts[part].name;
}

void LayerTensorRouter::initialise(std::uint64_t seed)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
        m_layers.push_back(fresh(seed, l + 1));
        for (torch::Tensor &t : m_layers.back())
            t.set_requires_grad(true);
    }
}

Result<void> LayerTensorRouter::load(const TensorLookup &lookup)
{
    for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
        std::vector<torch::Tensor> layer;
        for (std::size_t i = 0; i < m_parts.size(); ++i) {
            SPECTRA_TRY(const auto stored, storedTensor(lookup, tensorName(l, i), m_parts[i].shape));
            layer.push_back(stored.clone().set_requires_grad(true));
        }
        m_layers.push_back(std::move(layer));
    }
    return {};
}

std::map<std::string, torch::Tensor> LayerTensorRouter::parameters() const
{
    std::map<std::string, torch::Tensor> map;
    for (std::size_t l = 0; l < m_layers.size(); ++l)
        for (std::size_t i = 0; i < m_parts.size(); ++i)
            map[tensorName(l, i)] = m_layers[l][i];
    return map;
}

void LayerTensorRouter::to(torch::Device device)
{
    for (auto &layer : m_layers)
        for (torch::Tensor &t : layer)
            t = t.detach().to(device).set_requires_grad(true);
}

} // namespace spectra
