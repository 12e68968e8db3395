// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct SwitchOptions {
    double capacityFactor = 1.25;
    std::string dropPolicy = "position";
    double jitterNoise = 0.01, auxLossCoef = 0.01, zLossCoef = 0;
};

/// Switch Transformer's router: softmax over all experts, the best k, the load-balancing loss, and in training a capacity per
/// expert beyond which assignments are dropped (Fedus et al. 2021, arXiv 2101.03961, section 2). With k = 1 the weight is the
/// probability itself; with k = 2 the two are divided by their sum.
class SwitchRouter : public LinearRouter {
public:
    using Options = SwitchOptions;
    SwitchRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(std::move(options)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"capacity_factor", &Options::capacityFactor, "in training an expert takes ⌈factor·N·k/E⌉ assignments, the others are dropped; 0: no limit", 0, 1000},
            {"drop_policy", &Options::dropPolicy, "who keeps a slot: the earlier token, or the more probable one", 0, 0, false, {"position", "probs"}},
            {"router_jitter_noise", &Options::jitterNoise, "in training: router input times U(1-j, 1+j)", 0, 1},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss", 0, 1000},
            {"router_z_loss_coef", &Options::zLossCoef, "coefficient of the z-loss (ST-MoE: 0.001)", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] double weightSum() const override { return m_shape.topK > 1 ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(jittered(input, m_options.jitterNoise), input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, m_shape.topK, m_shape.topK > 1);
        if (!input.training)
            return step;
        if (m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts, input);
        if (m_options.zLossCoef > 0)
            step.losses["z"] = m_options.zLossCoef * zLoss(step.logits, input);
        if (m_options.capacityFactor > 0)
            applyCapacity(step, input, m_shape.experts, m_options.capacityFactor, m_options.dropPolicy, step.probabilities);
        return step;
    }

private:
    Options m_options;
};

constexpr const char *kSource = "Fedus et al. 2021, arXiv 2101.03961, section 2, equations 1 to 6; z-loss: Zoph et al. 2022, arXiv 2202.08906, equation 5";

} // namespace

RouterRegistration switchTop1Entry()
{
    RouterInfo info{"switch_top1", "Switch Transformer, one expert per token", kSource, true,
                    "no capacity at inference: a token's experts do not depend on how full they are", {}};
    info.topK = 1;
    return registration<SwitchRouter>(std::move(info));
}

RouterRegistration switchTop2Entry()
{
    RouterInfo info{"switch_top2", "Switch Transformer's router with two experts per token", kSource, true,
                    "no capacity at inference; the paper has one expert per token, with two their weights are divided by their sum as GShard does", {}};
    info.topK = 2;
    return registration<SwitchRouter>(std::move(info));
}

} // namespace spectra
