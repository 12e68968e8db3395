// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include <tuple>

namespace spectra {
namespace {

struct QuantileOptions {
    std::string scoring = "sigmoid";
    bool normTopK = true;
};

/// Quantile balancing: experts are chosen by s − β, and β is moved to the quantile of its expert's column at which the expert
/// would get exactly its share, one step of the dual of the balanced assignment. No coefficient and no step size.
class QuantileRouter : public LinearRouter {
public:
    using Options = QuantileOptions;
    QuantileRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(std::move(options))
    {
        addBuffer("balance_threshold");
        m_next.resize(m_shape.moeLayers.size());
        m_passes.resize(m_shape.moeLayers.size(), 0);
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"scoring_func", &Options::scoring, "score of an expert: σ(ℓ) or softmax(ℓ)", 0, 0, false, {"sigmoid", "softmax"}},
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        const torch::Tensor score = m_options.scoring == "sigmoid" ? torch::sigmoid(step.logits) : torch::softmax(step.logits, -1);
        step.probabilities = score / (score.sum(-1, true) + 1e-20);
        step.selection = score.detach() - buffer(input.layer);
        choose(step, step.selection, score, m_shape.topK, m_options.normTopK);
        if (input.training && !input.recomputing)
            gather(countedRows(score.detach(), input), input.layer);
        return step;
    }

    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override
    {
        for (std::size_t l = 0; l < m_next.size(); ++l) {
            if (m_passes[l] > 0)
                buffer(static_cast<int>(l)).copy_(m_next[l] / m_passes[l]);
            m_next[l] = torch::Tensor();
            m_passes[l] = 0;
        }
    }

private:
    /// β that would have balanced this micro-batch: with α_t the (k+1)-th largest of s_t − β, the (m·k/E + 1)-th largest of
    /// s_e − α.
    void gather(const torch::Tensor &score, int layer)
    {
        const std::int64_t m = score.size(0), k = m_shape.topK, e = m_shape.experts;
        if (m == 0 || k >= e)
            return;
        const torch::Tensor alpha = std::get<0>((score - buffer(layer)).topk(k + 1, -1)).select(1, k);
        const std::int64_t place = std::min(m - 1, (m * k + e / 2) / e);
        const torch::Tensor beta = std::get<0>(torch::sort(score - alpha.unsqueeze(1), 0, true)).select(0, place);
        torch::Tensor &next = m_next[static_cast<std::size_t>(layer)];
        next = next.defined() ? next + beta : beta;
        ++m_passes[static_cast<std::size_t>(layer)];
    }

    Options m_options;
    std::vector<torch::Tensor> m_next; ///< [E] sum over the micro-batches since the last optimiser step
    std::vector<int> m_passes;
};

} // namespace

RouterRegistration quantileEntry()
{
    return registration<QuantileRouter>({"quantile", "Quantile balancing of the selection threshold", "Su, \"MoE tour\" part 6 (kexue.fm); Megatron-LM, qb_dual_update", true,
                                         "m·k/E is rounded where it is no whole number; with gradient accumulation, and in several processes, the thresholds of the "
                                         "micro-batches are averaged",
                                         {}});
}

} // namespace spectra
