// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct GShardOptions {
    double capacityFactor = 1;           ///< 2N/E in all, as section 2.2 has it
    bool randomSecond = true;
    double auxLossCoef = 0.01;
};

/// GShard's top-2 gating (Lepikhin et al. 2020, arXiv 2006.16668, algorithm 1): weights p₁ and p₂ divided by their sum; in
/// training the second expert is used with probability min(1, 2·w₂) only; capacity 2N/E in order of position, first choices first;
/// loss E·Σ f_e·P_e with f from the first choices.
class GShardRouter : public LinearRouter {
public:
    using Options = GShardOptions;
    GShardRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"capacity_factor", &Options::capacityFactor, "in training an expert takes ⌈factor·N·2/E⌉ assignments, the others are dropped; 0: no limit", 0, 1000},
            {"random_second_expert", &Options::randomSecond, "in training the second expert is used with probability min(1, 2·its weight)"},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss over first choices", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, 2, true);
        if (!input.training)
            return step;
        if (m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts.narrow(1, 0, 1), input);
        if (m_options.randomSecond) {
            // The first expert keeps its weight when the second is left out: the residual carries the rest.
            const torch::Tensor second = step.weights.select(1, 1);
            const torch::Tensor use = (torch::rand({second.size(0)}, stepGenerator(input)).to(second.device()) < 2 * second.detach());
            const torch::Tensor both = torch::stack({torch::ones_like(use), use}, 1);
            step.experts = torch::where(both, step.experts, torch::full_like(step.experts, -1));
            step.weights = step.weights * both;
        }
        if (m_options.capacityFactor > 0)
            applyCapacity(step, input, m_shape.experts, m_options.capacityFactor, "position", step.probabilities);
        return step;
    }

private:
    Options m_options;
};

} // namespace

RouterRegistration gshardEntry()
{
    RouterInfo info{"gshard", "GShard top-2 gating with a random second expert", "Lepikhin et al. 2020, arXiv 2006.16668, algorithm 1", true,
                    "the loss is scaled by E² against the paper's mean so that it is 1 at balance, and formed over the whole pass instead of groups; no capacity and no "
                    "random choice at inference",
                    {}};
    info.topK = 2;
    return registration<GShardRouter>(std::move(info));
}

RouterRegistration glamEntry()
{
    RouterInfo info{"glam", "GLaM: GShard's gating, both experts always used, in every other layer", "Du et al. 2021, arXiv 2112.06905, section 4", true,
                    "the router alone: that every other layer is dense is the model's layout (upcycle with --layers every:2)", {}};
    info.topK = 2;
    GShardOptions options;
    options.randomSecond = false;
    return registration<GShardRouter>(std::move(info), options);
}

} // namespace spectra
