// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct Qwen3MoeOptions {
    bool normTopK = true;
    double auxLossCoef = 0.001;
};

/// Qwen3's router: softmax, top-k, renormalised, and the balance loss with the loads of the whole global batch (Qiu et al. 2025,
/// arXiv 2501.11873, equation 4): f comes from all micro-batches of all processes since the last optimiser step, P from the present one.
class Qwen3MoeRouter : public LinearRouter {
public:
    using Options = Qwen3MoeOptions;
    Qwen3MoeRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options)
    {
        m_loads.resize(m_shape.moeLayers.size());
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the global-batch balance loss", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, m_shape.topK, m_options.normTopK);
        if (input.training && m_options.auxLossCoef > 0) {
            const torch::Tensor counted = countedRows(step.probabilities, input);
            torch::Tensor &load = m_loads[static_cast<std::size_t>(input.layer)];
            if (!input.recomputing) {
                const torch::NoGradGuard noGrad;
                const torch::Tensor own = countedRows(chosenMask(step.experts, m_shape.experts), input).sum(0);
                const torch::Tensor now = sumOverProcesses(own.cpu(), input.collective).to(own.device());
                load = load.defined() ? load + now : now;
            }
            if (counted.size(0) > 0)
                step.losses["global_balance"] = m_options.auxLossCoef * static_cast<double>(m_shape.experts)
                    * (load / load.sum().clamp_min(1) * counted.mean(0)).sum();
        }
        return step;
    }
    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override
    {
        for (torch::Tensor &load : m_loads)
            load = torch::Tensor();
    }

private:
    Options m_options;
    std::vector<torch::Tensor> m_loads; ///< [E] assignments per layer, of all processes, since the last optimiser step
};

} // namespace

RouterRegistration qwen3MoeEntry()
{
    return registration<Qwen3MoeRouter>({"qwen3_moe", "Qwen3-MoE: softmax top-k with the global-batch balance loss", "Qiu et al. 2025, arXiv 2501.11873, equation 4; Qwen3 report, arXiv 2505.09388", true,
                                         "with gradient accumulation a micro-batch sees the loads up to itself, as the paper's buffer does", {}});
}

} // namespace spectra
