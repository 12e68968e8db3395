// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include "engine/rule/mincostflow.h"
#include "engine/rule/selection.h"
#include "engine/rule/softtopk.h"

namespace spectra {
namespace {

struct MaxScoreOptions {
    double capacityFactor = 1, temperature = 1;
    bool norm = true;
    int groupRows = 4096;
};

std::span<const float> valuesOf(const torch::Tensor &t)
{
    return {t.const_data_ptr<float>(), static_cast<std::size_t>(t.numel())};
}

/// rule::softTopK() with its gradient: Σ_e g_e = k for all scores, so with w = g(1 − g)/τ the threshold moves by dλ = Σ w ds / Σ w and
/// dg_e = w_e (ds_e − dλ).
class SoftTopK : public torch::autograd::Function<SoftTopK> {
public:
    static torch::Tensor forward(torch::autograd::AutogradContext *context, const torch::Tensor &scores, std::int64_t k, double temperature)
    {
        const torch::Tensor here = scores.detach().cpu().contiguous();
        torch::Tensor g = torch::empty_like(here);
        rule::softTopK(valuesOf(here), here.size(1), k, temperature, {g.data_ptr<float>(), static_cast<std::size_t>(g.numel())});
        g = g.to(scores.device());
        context->save_for_backward({g});
        context->saved_data["temperature"] = temperature;
        return g;
    }
    static torch::autograd::tensor_list backward(torch::autograd::AutogradContext *context, torch::autograd::tensor_list gradients)
    {
        const torch::Tensor g = context->get_saved_variables()[0], w = g * (1 - g) / context->saved_data["temperature"].toDouble();
        const torch::Tensor shift = (gradients[0] * w).sum(-1, true) / w.sum(-1, true).clamp_min(1e-30);
        return {w * (gradients[0] - shift), torch::Tensor(), torch::Tensor()};
    }
};

/// MaxScore-like (arXiv 2508.12801): the tokens of a pass are divided over the experts by a minimum-cost maximum flow, so that the sum of
/// the chosen weights is largest while no expert takes more than its share and no token loses a slot; weights are a soft top-k of the
/// scores. At inference a token takes its own k best.
class MaxScoreRouter : public LinearRouter {
public:
    using Options = MaxScoreOptions;
    MaxScoreRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"capacity_factor", &Options::capacityFactor, "in training an expert takes at most ⌈factor·N·k/E⌉ of a group's N tokens; from 1 on no slot stays empty", 0, 1000, true},
            {"temperature", &Options::temperature, "τ of the soft top-k: the smaller, the nearer to 1 for the k best and 0 for the rest", 0, 1000, true},
            {"norm", &Options::norm, "a token's weights are divided by their sum"},
            {"group_rows", &Options::groupRows, "a training pass of more tokens is cut into groups of at most this many, each with an optimal flow of its own", 1, 65536},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.norm ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.selection = step.logits.detach();
        const torch::Tensor soft = SoftTopK::apply(step.logits, m_shape.topK, m_options.temperature);
        step.probabilities = soft / static_cast<double>(m_shape.topK);
        step.experts = topKColumns(step.selection, m_shape.topK);
        if (input.training)
            assign(step, soft.detach(), input);
        const torch::Tensor filled = step.experts >= 0;
        step.weights = soft.gather(1, step.experts.clamp_min(0)) * filled;
        if (m_options.norm)
            step.weights = step.weights / (step.weights.sum(-1, true) + 1e-20);
        if (input.training)
            step.dropped = filled.logical_not().sum(1).to(torch::kUInt8);
        return step;
    }

private:
    void assign(RoutingStep &step, const torch::Tensor &soft, const RouterInput &input) const
    {
        const torch::Tensor scores = countedRows(soft, input).cpu().contiguous();
        const std::int64_t n = scores.size(0), e = m_shape.experts, k = m_shape.topK;
        if (n == 0)
            return;
        const std::int64_t groups = (n + m_options.groupRows - 1) / m_options.groupRows;
        torch::Tensor chosen = torch::empty({n, k}, torch::kInt64);
        for (std::int64_t g = 0; g < groups; ++g) {
            const std::int64_t begin = n * g / groups, rows = n * (g + 1) / groups - begin;
            const auto answer = rule::maxScoreAssignment(valuesOf(scores.narrow(0, begin, rows)), e, k, rule::quotaCapacity(m_options.capacityFactor, rows, e, k));
            TORCH_CHECK(answer.ok(), "assignment by flow: ", answer.ok() ? "" : answer.error().what);
            chosen.narrow(0, begin, rows).copy_(torch::from_blob(const_cast<std::int64_t *>(answer->experts.data()), {rows, k}, torch::kInt64));
        }
        chosen = chosen.to(step.experts.device());
        if (input.mask.defined())
            step.experts.index_copy_(0, input.mask.nonzero().view({-1}), chosen);
        else
            step.experts = chosen;
    }

    Options m_options;
};

} // namespace

RouterRegistration maxScoreLikeEntry()
{
    return registration<MaxScoreRouter>(
        {"maxscore_like", "MaxScore-like: experts by minimum-cost maximum flow, soft top-k weights", "after MaxScore, arXiv 2508.12801 (abstract and summaries; the paper's code was not available)", true,
         "causal at inference, where a token takes its own k best by the same scores; in training a token's experts depend on the others of the pass. The flow is exact (successive "
         "shortest paths), within each process and within groups of at most group_rows tokens; the order of a row's experts plays no part in it. The soft top-k is ours: "
         "σ((ℓ_e − λ)/τ) with λ such that a row sums to k, τ = 1; it is also the score whose sum the flow makes largest, with no gradient through the flow. Weights are the chosen "
         "values over their sum; no auxiliary loss",
         {}});
}

} // namespace spectra
