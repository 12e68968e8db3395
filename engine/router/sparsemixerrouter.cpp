// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include <limits>
#include <tuple>

namespace spectra {
namespace {

struct SparseMixerOptions {
    double jitterEps = 0.1, auxLossCoef = 0.01;
};

/// Midpoint form of one sampled expert: forward w·(½ or 1), backward twice the incoming gradient for all rows.
class Midpoint : public torch::autograd::Function<Midpoint> {
public:
    static torch::Tensor forward(torch::autograd::AutogradContext * /*context*/, const torch::Tensor &weight, const torch::Tensor &factor) { return weight * factor; }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext * /*context*/, const torch::autograd::variable_list &gradients)
    {
        return {gradients[0] * 2, torch::Tensor()};
    }
};

/// Third-order form of one of two sampled experts: forward p_e·(⅓ or 1), backward as though the factor were 1, the gradient of p_e
/// with respect to the scores: g·p_e·(1[j = e] − p_j).
class ThirdOrder : public torch::autograd::Function<ThirdOrder> {
public:
    static torch::Tensor forward(torch::autograd::AutogradContext *context, const torch::Tensor & /*scores*/, const torch::Tensor &p, const torch::Tensor &expert,
                                 const torch::Tensor &factor)
    {
        context->save_for_backward({p, expert});
        return p.gather(1, expert) * factor;
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context, const torch::autograd::variable_list &gradients)
    {
        const auto saved = context->get_saved_variables();
        const torch::Tensor &p = saved[0], &expert = saved[1];
        const torch::Tensor g = gradients[0] * p.gather(1, expert);
        return {(-p * g).scatter_add(1, expert, g), torch::Tensor(), torch::Tensor(), torch::Tensor()};
    }
};

/// SparseMixer (Liu et al. 2023, arXiv 2310.00811): in training an expert is drawn from the softmax over the experts whose score is near
/// the best, and the gradient of its weight estimates that of the whole mixture. One expert: midpoint form; two: the form of
/// SparseMixer-v2 (Liu et al. 2024, arXiv 2409.12136) as in Phi-3.5-MoE, the second drawn with the first left out.
class SparseMixerRouter : public LinearRouter {
public:
    using Options = SparseMixerOptions;
    SparseMixerRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"jitter_eps", &Options::jitterEps, "an expert is left out where (max ℓ − ℓ)/max(|ℓ|, max ℓ) > 2·jitter_eps (Phi-3.5-MoE: 0.01)", 0, 1000},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return 0; }
    [[nodiscard]] Result<void> fits() const
    {
        if (m_shape.topK > 2)
            return usageError("SparseMixer is defined for one or two experts per token, not " + std::to_string(m_shape.topK), "router " + name(), "use --top-k 1 or 2");
        return {};
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = step.selection = logits(input.x, input.layer);
        torch::Generator random = stepGenerator(input);
        const Pick first = pick(step.logits, torch::Tensor(), input.training, random);
        step.experts = first.expert;
        step.weights = first.weight;
        step.probabilities = m_shape.topK == 1 ? first.p : torch::softmax(step.logits, -1);
        if (m_shape.topK == 2) {
            const Pick second = pick(step.logits, first.expert, input.training, random);
            const torch::Tensor weights = torch::cat({first.weight, second.weight}, 1);
            const torch::Tensor order = topKColumns(weights, 2); // each weight is of a softmax of its own: the second may be the larger
            step.weights = weights.gather(1, order);
            step.experts = torch::cat({first.expert, second.expert}, 1).gather(1, order);
        }
        if (input.training && m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts, input);
        return step;
    }

private:
    struct Pick {
        torch::Tensor expert, weight, p; ///< [N,1] i64, [N,1], [N,E]
    };

    /// One expert for each row, `without` left out.
    [[nodiscard]] Pick pick(const torch::Tensor &scores, const torch::Tensor &without, bool training, torch::Generator &random) const
    {
        constexpr double kNone = -std::numeric_limits<double>::infinity();
        const torch::Tensor open = without.defined() ? scores.scatter(1, without, kNone) : scores;
        const torch::Tensor plain = scores.detach(), best = topKColumns(open, 1), highest = open.detach().gather(1, best);
        const torch::Tensor far = (highest - plain) / torch::maximum(plain.abs(), highest) > 2 * m_options.jitterEps;
        const torch::Tensor near = open.masked_fill(far, kNone);
        Pick picked;
        picked.p = torch::softmax(near, -1);
        picked.expert = best;
        if (!training) {
            picked.weight = picked.p.gather(1, best);
            return picked;
        }
        const torch::Tensor noise = torch::empty(scores.sizes(), torch::kFloat32).exponential_(1, random).log().to(scores.device());
        const torch::Tensor coin = torch::rand({scores.size(0), 1}, random).to(scores.device());
        picked.expert = topKColumns(near - noise, 1);
        const bool one = m_shape.topK == 1;
        const torch::Tensor whole = torch::logical_or(picked.expert == best, coin > (one ? 0.5 : 0.75));
        const torch::Tensor factor = torch::where(whole, torch::ones_like(coin), torch::full_like(coin, one ? 1.0 / 2 : 1.0 / 3));
        picked.weight = one ? Midpoint::apply(picked.p.gather(1, picked.expert), factor) : ThirdOrder::apply(scores, picked.p.detach(), picked.expert, factor);
        return picked;
    }

    Options m_options;
};

} // namespace

RouterRegistration sparseMixerEntry()
{
    return registration<SparseMixerRouter>(
        {"sparsemixer", "SparseMixer: sampled experts with a gradient estimate", "Liu et al. 2023, arXiv 2310.00811, section 3; two experts: Liu et al. 2024, arXiv 2409.12136", true,
         "with one expert the learned vector ω on the expert's output is left out (it is 1 at the start); with two the factor of the third-order form is exactly 1/3; "
         "the balance loss is formed on the restricted softmax with one expert and on the whole one with two, as released, over all chosen slots",
         {}});
}

} // namespace spectra
