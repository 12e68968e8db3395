// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"

#include <string>
#include <vector>

namespace spectra {

/// What the routers share that score a token by one linear map per layer, ℓ = x Wᵀ (+ b): the weights W [E,d], their names in a
/// checkpoint (`model.layers.i.mlp.router.weight`, `.bias`), loading, saving, moving.
class LinearRouter : public Router {
public:
    LinearRouter(std::string name, RouterShape shape, bool biased = false) : m_shape(std::move(shape)), m_name(std::move(name)), m_biased(biased) {}

    /// W ~ N(0, 0.02²), b = 0.
    void initialise(std::uint64_t seed);
    [[nodiscard]] Result<void> load(const TensorLookup &lookup);

    [[nodiscard]] std::string name() const override { return m_name; }
    [[nodiscard]] RouterNeeds needs() const override { return {}; }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override;
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override;
    [[nodiscard]] torch::Tensor linearWeights(int layer) const override { return m_weights[static_cast<std::size_t>(layer)]; }
    void to(torch::Device device) override;

protected:
    /// One [E] float buffer per layer, 0 when fresh, stored as `model.layers.i.mlp.router.NAME`. Call in the constructor.
    void addBuffer(std::string name) { m_bufferName = std::move(name); }
    [[nodiscard]] torch::Tensor &buffer(int layer) { return m_buffers[static_cast<std::size_t>(layer)]; }

    /// ℓ [N,E].
    [[nodiscard]] torch::Tensor logits(const torch::Tensor &x, int layer) const;
    [[nodiscard]] std::string tensorName(std::size_t layer, const std::string &what) const;

    RouterShape m_shape;

private:
    std::string m_name, m_bufferName;
    bool m_biased;
    std::vector<torch::Tensor> m_weights, m_biases, m_buffers;
};

} // namespace spectra
