// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include "engine/rule/selection.h"

#include <algorithm>
#include <tuple>

namespace spectra {
namespace {

struct ExpertChoiceOptions {
    double capacityFactor = 0;
    bool norm = false;
};

/// Expert choice (Zhou et al. 2022, arXiv 2202.09368, section 3.2): S = softmax(ℓ) over the experts, and every expert takes the c
/// tokens of the pass that score it highest. Loads are equal by construction; a token gets 0 to E experts, weighted with S.
class ExpertChoiceRouter : public LinearRouter {
public:
    using Options = ExpertChoiceOptions;
    ExpertChoiceRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"capacity_factor", &Options::capacityFactor, "an expert takes ⌈factor·N/E⌉ of the N tokens of a pass: the mean number of experts per token; 0: k", 0, 1000},
            {"norm", &Options::norm, "a token's weights are divided by their sum"},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return 0; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.scope = RouterNeeds::Scope::batch;
        needs.causal = false;
        return needs;
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        const torch::Tensor chosen = taken(step.selection.detach(), input);
        const std::int64_t most = chosen.size(0) == 0 ? 1 : std::max<std::int64_t>(1, chosen.sum(1).max().item<std::int64_t>());
        const torch::Tensor order = topKColumns(torch::where(chosen, step.selection.detach(), -1), most);
        const torch::Tensor filled = chosen.gather(1, order);
        step.experts = torch::where(filled, order, -1);
        step.weights = step.probabilities.gather(1, order) * filled;
        if (m_options.norm)
            step.weights = step.weights / (step.weights.sum(-1, true) + 1e-20);
        return step;
    }

private:
    /// Pairs of row and expert [N,E] bool. Rows that do not count stand in no expert's list and keep their own k best.
    [[nodiscard]] torch::Tensor taken(const torch::Tensor &s, const RouterInput &input) const
    {
        const torch::Tensor rows = input.mask.defined() ? input.mask.nonzero().view({-1}) : torch::arange(s.size(0), torch::TensorOptions(torch::kInt64).device(s.device()));
        const std::int64_t n = rows.size(0);
        const double factor = m_options.capacityFactor > 0 ? m_options.capacityFactor : static_cast<double>(m_shape.topK);
        const std::int64_t c = std::min(n, rule::quotaCapacity(factor, n, m_shape.experts, 1));
        const torch::Tensor best = std::get<1>(torch::sort(s.index_select(0, rows), true, 0, true)).narrow(0, 0, c);
        torch::Tensor chosen = input.mask.defined() ? torch::logical_and(chosenMask(topKColumns(s, m_shape.topK), m_shape.experts) > 0, input.mask.logical_not().unsqueeze(1))
                                                    : torch::zeros(s.sizes(), torch::TensorOptions(torch::kBool).device(s.device()));
        if (n > 0)
            chosen.scatter_(0, rows.index_select(0, best.reshape({-1})).view({c, m_shape.experts}), true);
        return chosen;
    }

    Options m_options;
};

} // namespace

RouterRegistration expertChoiceEntry()
{
    return registration<ExpertChoiceRouter>(
        {"expert_choice", "Expert choice: experts take tokens", "Zhou et al. 2022, arXiv 2202.09368, section 3.2, equation 1", false,
         "not causal: whether a token is taken depends on the other tokens of the pass, later ones too, so a text is routed otherwise token by token than in one "
         "prefill, and a single token is taken by every expert; no cap on the experts per token; no capacity factor given: k; equal scores: the earlier token; "
         "in several processes the tokens of a pass are each process's own",
         {}});
}

} // namespace spectra
