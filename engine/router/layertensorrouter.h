// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"

#include <cstdint>
#include <string>
#include <vector>

namespace spectra {

/// What the routers share whose parameters are a few tensors of each layer under fixed names (`model.layers.i.mlp.router.NAME`):
/// making, loading, saving, moving.
class LayerTensorRouter : public Router {
public:
    struct Part {
        std::string name;
        std::vector<std::int64_t> shape;
    };
    LayerTensorRouter(std::string name, RouterShape shape, std::vector<Part> parts) : m_shape(std::move(shape)), m_name(std::move(name)), m_parts(std::move(parts)) {}

    void initialise(std::uint64_t seed);
    [[nodiscard]] Result<void> load(const TensorLookup &lookup);

    [[nodiscard]] std::string name() const override { return m_name; }
    [[nodiscard]] RouterNeeds needs() const override { return {}; }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override;
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {}; }
    void to(torch::Device device) override;

protected:
    /// Fresh tensors of a layer in the order of the parts; `stream` is the layer's own.
    [[nodiscard]] virtual std::vector<torch::Tensor> fresh(std::uint64_t seed, std::uint64_t stream) const = 0;
    [[nodiscard]] const std::vector<torch::Tensor> &tensors(int layer) const { return m_layers[static_cast<std::size_t>(layer)]; }
    [[nodiscard]] std::size_t layerCount() const { return m_layers.size(); }

    RouterShape m_shape;

private:
    [[nodiscard]] std::string tensorName(std::size_t layer, std::size_t part) const;

    std::string m_name;
    std::vector<Part> m_parts;
    std::vector<std::vector<torch::Tensor>> m_layers; ///< by layer and part
};

} // namespace spectra
