// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/router/router.h"

namespace spectra {

/// No experts, nothing to decide: the lower bound that routers are compared with. A model without MoE layers never calls it;
/// called all the same it gives every token to expert 0 with weight 1.
class DenseRouter : public Router {
public:
    explicit DenseRouter(RouterShape shape) : m_shape(std::move(shape)) {}

    [[nodiscard]] std::string name() const override { return "dense"; }
    [[nodiscard]] RouterNeeds needs() const override { return {}; }
    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState &state, Capture capture) override;
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override { return {}; }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {}; }
    [[nodiscard]] std::string options() const override { return R"({"type":"dense"})"; }
    void to(torch::Device /*device*/) override {}

private:
    RouterShape m_shape;
};

} // namespace spectra
