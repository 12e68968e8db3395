// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct SoftmaxTopKOptions {
    bool normTopK = true;
    double jitterNoise = 0, auxLossCoef = 0.02;
};

/// Mixtral's router: softmax over all experts' logits, top-k, renormalised (Jiang et al. 2024, arXiv 2401.04088, section 2.1), with
/// the auxiliary load-balancing loss of transformers, which is k times that of Fedus et al. 2021, in each layer by itself.
class SoftmaxTopKRouter : public LinearRouter {
public:
    using Options = SoftmaxTopKOptions;
    SoftmaxTopKRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
            {"router_jitter_noise", &Options::jitterNoise, "in training: router input times U(1-j, 1+j)", 0, 1},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(jittered(input, m_options.jitterNoise), input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, m_shape.topK, m_options.normTopK);
        if (input.training && m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * static_cast<double>(m_shape.topK) * balanceLoss(step.probabilities, step.experts, input);
        return step;
    }

private:
    Options m_options;
};

} // namespace

RouterRegistration softmaxTopKEntry()
{
    return registration<SoftmaxTopKRouter>({"softmax_topk", "Softmax top-k (Mixtral)",
                                            "Jiang et al. 2024, arXiv 2401.04088, section 2.1; auxiliary loss after transformers", true,
                                            "the auxiliary loss is formed in each layer and summed over the layers; transformers forms loads and mean probabilities over all "
                                            "layers together, so its loss has the size of one layer's and lets layers make up for each other",
                                            {}});
}

} // namespace spectra
