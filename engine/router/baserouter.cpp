// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"
#include "engine/router/routerinit.h"

#include "engine/rule/assignment.h"

namespace spectra {
namespace {

struct BaseOptions {};

/// BASE layers (Lewis et al. 2021, arXiv 2103.16716, equations 1 to 3): ℓ = x·centroidᵀ; in training the tokens of a pass are divided
/// over the experts so that Σ ℓ is largest and no expert has more than its share, at inference a token takes its best expert.
class BaseRouter : public LinearRouter {
public:
    using Options = BaseOptions;
    BaseRouter(std::string name, Options /*options*/, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields;
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), Options{}, table()); }
    [[nodiscard]] double weightSum() const override { return 0; }

    void initialise(std::uint64_t seed)
    {
        LinearRouter::initialise(seed);
        const torch::NoGradGuard noGrad;
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l)
            linearWeights(static_cast<int>(l)).copy_(orthogonal(m_shape.experts, m_shape.hidden, 0.1, seed, l + 1));
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.selection = step.logits.detach();
        step.probabilities = torch::softmax(step.logits, -1);
        step.experts = topKColumns(step.selection, 1);
        if (input.training)
            assign(step, input);
        step.weights = torch::sigmoid(step.logits.gather(1, step.experts));
        return step;
    }

private:
    void assign(RoutingStep &step, const RouterInput &input) const
    {
        const torch::Tensor scores = countedRows(step.selection, input).cpu().contiguous();
        const std::int64_t n = scores.size(0), e = m_shape.experts;
        const auto answer = rule::balancedAssignment({scores.const_data_ptr<float>(), static_cast<std::size_t>(n * e)}, e, (n + e - 1) / e);
        TORCH_CHECK(answer.ok(), "balanced assignment: ", answer.ok() ? "" : answer.error().what);
        const torch::Tensor chosen = torch::tensor(answer->experts, torch::kInt64).view({n, 1}).to(step.experts.device());
        if (input.mask.defined())
            step.experts.index_copy_(0, input.mask.nonzero().view({-1}), chosen);
        else
            step.experts = chosen;
    }
};

} // namespace

RouterRegistration baseEntry()
{
    RouterInfo info{"base", "BASE layers: balanced assignment in training", "Lewis et al. 2021, arXiv 2103.16716, equations 1 to 3", true,
                    "causal at inference, where a token takes its best expert; in training a token's expert depends on the others of the pass (in several processes, of "
                    "its own). The assignment is optimal, by an "
                    "auction of our own; an expert takes at most ⌈N/E⌉ tokens where N is no multiple of E. The paper's output is α·E(x) + (1 − α)·x with α = σ(ℓ): the weight "
                    "is α, and the part (1 − α)·x is left to the residual connection, which adds x whole",
                    {}};
    info.topK = 1;
    return registration<BaseRouter>(std::move(info));
}

} // namespace spectra
