// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct Llama4Options {
    double auxLossCoef = 0.001, jitterNoise = 0;
};

/// Llama 4's router: the k largest logits, σ(ℓ) of each multiplies the *input* of its expert (transformers, Llama4Router).
class Llama4Router : public LinearRouter {
public:
    using Options = Llama4Options;
    Llama4Router(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss on softmax(ℓ)", 0, 1000},
            {"router_jitter_noise", &Options::jitterNoise, "in training: router input times U(1-j, 1+j)", 0, 1},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] double weightSum() const override { return 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = step.selection = logits(jittered(input, m_options.jitterNoise), input.layer);
        step.probabilities = torch::softmax(step.logits, -1);
        choose(step, step.logits, torch::sigmoid(step.logits), m_shape.topK, false);
        step.weightOnInput = true;
        if (input.training && m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts, input);
        return step;
    }

private:
    Options m_options;
};

} // namespace

RouterRegistration llama4Entry()
{
    return registration<Llama4Router>({"llama4", "Llama 4: sigmoid weights on the experts' inputs", "transformers, Llama4Router and Llama4TextMoe", true,
                                       "Meta has published no loss: the load-balancing loss on softmax(ℓ), coefficient 0.001 as in the released config", {}});
}

} // namespace spectra
