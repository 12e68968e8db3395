// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/optionset.h"
#include "engine/router/router.h"

#include <string>
#include <vector>

namespace spectra {

/// Options of the linear softmax router.
struct SoftmaxTopKOptions {
    bool normTopK = true;
    double jitterNoise = 0;
    double auxLossCoef = 0.02;
};
[[nodiscard]] const std::vector<OptionField<SoftmaxTopKOptions>> &softmaxTopKOptionTable();

/// Mixtral's router: softmax over all experts' logits, top-k, renormalised (Jiang et al. 2024, arXiv 2401.04088, section 2.1), with
/// the auxiliary load-balancing loss E·Σ f·P of Fedus et al. 2021 (arXiv 2101.03961, equations 4 to 6) over k slots.
class SoftmaxTopKRouter : public Router {
public:
    using Options = SoftmaxTopKOptions;
    [[nodiscard]] static const std::vector<OptionField<Options>> &table() { return softmaxTopKOptionTable(); }
    SoftmaxTopKRouter(SoftmaxTopKOptions options, RouterShape shape) : m_options(options), m_shape(std::move(shape)) {}

    void initialise(std::uint64_t seed);
    [[nodiscard]] Result<void> load(const TensorLookup &lookup);

    [[nodiscard]] std::string name() const override { return "softmax_topk"; }
    [[nodiscard]] RouterNeeds needs() const override { return {}; }
    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState &state, Capture capture) override;
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override;
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {}; }
    [[nodiscard]] std::string options() const override;
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }
    [[nodiscard]] torch::Tensor linearWeights(int layer) const override { return m_weights[static_cast<std::size_t>(layer)]; }
    void to(torch::Device device) override;

private:
    [[nodiscard]] std::string weightName(std::size_t layer) const;

    SoftmaxTopKOptions m_options;
    RouterShape m_shape;
    std::vector<torch::Tensor> m_weights; ///< [E,d] per layer
};

} // namespace spectra
