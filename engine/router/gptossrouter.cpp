// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct GptOssOptions {
    double auxLossCoef = 0.01;
};

/// GPT-OSS's router: ℓ = xWᵀ + b, the k largest, softmax over those k (OpenAI 2025, arXiv 2508.10925; transformers, GptOssTopKRouter).
class GptOssRouter : public LinearRouter {
public:
    using Options = GptOssOptions;
    GptOssRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape), true), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss on softmax(ℓ)", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = step.selection = logits(input.x, input.layer);
        step.probabilities = torch::softmax(step.logits, -1);
        choose(step, step.logits, step.logits, m_shape.topK, false);
        step.weights = torch::softmax(step.weights, -1);
        if (input.training && m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts, input);
        return step;
    }

private:
    Options m_options;
};

} // namespace

RouterRegistration gptOssEntry()
{
    return registration<GptOssRouter>({"gpt_oss", "GPT-OSS: softmax over the k chosen logits, with a bias", "OpenAI 2025, arXiv 2508.10925; transformers, GptOssTopKRouter", true,
                                       "how it was balanced in training is not published: load-balancing loss, coefficient 0.01", {}});
}

} // namespace spectra
