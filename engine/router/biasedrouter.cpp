// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct BiasedOptions {
    std::string scoring = "sigmoid";
    int groups = 1, keptGroups = 1;
    bool normTopK = true;
    double scalingFactor = 1, biasUpdateRate = 0.001, sequenceLossCoef = 0;
    Result<void> isValid() const
    {
        if (keptGroups > groups)
            return usageError("topk_group is larger than n_group", "router option topk_group", "keep at most as many groups as there are");
        return {};
    }
};

/// Auxiliary-loss-free balancing (Wang et al. 2024, arXiv 2408.15664) as DeepSeek-V3 uses it (arXiv 2412.19437, equations 12 to 20):
/// the experts are chosen by score + b, the weights are the scores alone; after every optimiser step b rises by a fixed rate
/// for experts below the mean load and falls for those above. Optionally experts are first cut to the groups with the largest
/// sum of their two best (score + b), and a small loss balances each sequence.
class BiasedRouter : public LinearRouter {
public:
    using Options = BiasedOptions;
    BiasedRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(std::move(options))
    {
        addBuffer("e_score_correction_bias");
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"scoring_func", &Options::scoring, "score of an expert: σ(ℓ) or softmax(ℓ)", 0, 0, false, {"sigmoid", "softmax"}},
            {"n_group", &Options::groups, "equal groups of experts that are chosen first; must divide E", 1, 65534},
            {"topk_group", &Options::keptGroups, "groups of which a token's experts are taken", 1, 65534},
            {"norm_topk_prob", &Options::normTopK, "the chosen scores are divided by their sum"},
            {"routed_scaling_factor", &Options::scalingFactor, "factor on the weights", 0, 1000, true},
            {"bias_update_rate", &Options::biasUpdateRate, "step of the selection bias after each optimiser step; 0: fixed", 0, 1},
            {"seq_aux_loss_coef", &Options::sequenceLossCoef, "coefficient of the balance loss inside each sequence", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? m_options.scalingFactor : 0; }
    [[nodiscard]] Result<void> fits() const
    {
        if (m_shape.experts % m_options.groups != 0)
            return usageError(std::to_string(m_shape.experts) + " experts do not make " + std::to_string(m_options.groups) + " equal groups", "router option n_group",
                              "use a divisor of the number of experts");
        if (m_shape.topK > m_shape.experts / m_options.groups * m_options.keptGroups)
            return usageError("the kept groups hold fewer experts than a token takes", "router option topk_group", "keep more groups");
        return {};
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        const torch::Tensor score = m_options.scoring == "sigmoid" ? torch::sigmoid(step.logits) : torch::softmax(step.logits, -1);
        step.probabilities = score / (score.sum(-1, true) + 1e-20);
        step.selection = restricted(score.detach() + buffer(input.layer));
        choose(step, step.selection, score, m_shape.topK, m_options.normTopK);
        step.weights = step.weights * m_options.scalingFactor;
        if (input.training && m_options.sequenceLossCoef > 0)
            step.losses["sequence_balance"] = m_options.sequenceLossCoef * sequenceBalanceLoss(step.probabilities, topKColumns(score, m_shape.topK), input);
        return step;
    }

    void afterOptimizerStep(const std::vector<torch::Tensor> &loads) override
    {
        const torch::NoGradGuard noGrad;
        for (std::size_t l = 0; l < loads.size(); ++l) {
            torch::Tensor &bias = buffer(static_cast<int>(l));
            const torch::Tensor load = loads[l].to(bias.device(), torch::kFloat32);
            bias += m_options.biasUpdateRate * torch::sign(load.mean() - load);
        }
    }

private:
    /// −∞ outside the kept groups.
    [[nodiscard]] torch::Tensor restricted(const torch::Tensor &selection) const
    {
        if (m_options.groups == m_options.keptGroups)
            return selection;
        const std::int64_t n = selection.size(0), perGroup = m_shape.experts / m_options.groups;
        const torch::Tensor grouped = selection.view({n, m_options.groups, perGroup});
        const torch::Tensor value = std::get<0>(grouped.topk(std::min<std::int64_t>(2, perGroup), -1)).sum(-1);
        const torch::Tensor kept = chosenMask(topKColumns(value, m_options.keptGroups), m_options.groups);
        return torch::where(kept.unsqueeze(-1) > 0, grouped, torch::full_like(grouped, -std::numeric_limits<float>::infinity())).view({n, m_shape.experts});
    }

    Options m_options;
};

constexpr const char *kBias = "Wang et al. 2024, arXiv 2408.15664, algorithm 1";

/// All presets: σ(ℓ), one group, and the rate 0.001 of the bias.
RouterRegistration preset(RouterInfo info, double scale, double sequenceLoss)
{
    BiasedOptions o;
    o.scalingFactor = scale;
    o.sequenceLossCoef = sequenceLoss;
    return registration<BiasedRouter>(std::move(info), o);
}

} // namespace

RouterRegistration lossFreeEntry()
{
    return preset({"loss_free", "Auxiliary-loss-free balancing by a selection bias", kBias, true, "", {}}, 1, 0);
}

RouterRegistration deepSeekV3Entry()
{
    return preset({"deepseek_v3", "DeepSeek-V3: sigmoid scores, selection bias, groups, sequence-wise loss", "DeepSeek-AI 2024, arXiv 2412.19437, equations 12 to 20", true,
                   "the released model has n_group 8, topk_group 4 and routed_scaling_factor 2.5 with 256 experts; the defaults here have one group and factor 1, so that "
                   "the weights of any number of experts sum to 1",
                   {}},
                  1, 1e-4);
}

RouterRegistration glm4MoeEntry()
{
    return preset({"glm4_moe", "GLM-4.5's setting of the biased sigmoid router", "Zeng et al. 2025, arXiv 2508.06471, section 2; config.json of the released model", true,
                   "one group; routed_scaling_factor 2.5 as GLM-4.5 has it (Air: 1); the rate of the bias is 0.001",
                   {}},
                  2.5, 1e-4);
}

RouterRegistration kimiK2Entry()
{
    return preset({"kimi_k2", "Kimi K2's setting of the biased sigmoid router", "Kimi Team 2025, arXiv 2507.20534, section 2; config.json of the released model", true,
                   "one group, routed_scaling_factor 2.827; rate of the bias and sequence-wise loss as DeepSeek-V3",
                   {}},
                  2.827, 1e-4);
}

RouterRegistration minimaxEntry()
{
    return preset({"minimax", "MiniMax-M2's setting of the biased sigmoid router", "config.json of MiniMax-M2 (scoring_func sigmoid, use_routing_bias true)", true,
                   "MiniMax-Text-01 has softmax top-2 with an auxiliary loss instead (softmax_topk); the rate of the bias is not published: 0.001",
                   {}},
                  1, 0);
}

} // namespace spectra
