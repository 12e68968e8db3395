// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include "engine/rule/sinkhorn.h"

namespace spectra {
namespace {

struct SBaseOptions {
    std::string scoring = "softmax";
    double tolerance = 1e-4;
    int maxIterations = 1000;
};

/// S-BASE (Clark et al. 2022, arXiv 2202.01169, section 3.1): in training the experts are the k largest of the entropic transport plan of
/// exp(ℓ) between tokens and experts, at inference those of ℓ itself. Weights come from ℓ alone; the transport has no gradient.
class SBaseRouter : public LinearRouter {
public:
    using Options = SBaseOptions;
    SBaseRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(std::move(options)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"scoring", &Options::scoring, "weight of a chosen expert: softmax(ℓ) or σ(ℓ) there", 0, 0, false, {"softmax", "sigmoid"}},
            {"sinkhorn_tolerance", &Options::tolerance, "in training: largest relative error of an expert's share of the plan", 0, 1, true},
            {"sinkhorn_max_iterations", &Options::maxIterations, "in training: the transport stops here at the latest", 1, 100000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.selection = step.logits.detach();
        step.probabilities = torch::softmax(step.logits, -1);
        torch::Tensor order = step.selection;
        if (input.training)
            order = transport(step, input);
        choose(step, order, m_options.scoring == "softmax" ? step.probabilities : torch::sigmoid(step.logits), m_shape.topK, false);
        return step;
    }

private:
    /// Sets step.selection to the plan and returns its logarithm up to a term per row: the same order, and none lost to underflow.
    [[nodiscard]] torch::Tensor transport(RoutingStep &step, const RouterInput &input) const
    {
        const std::int64_t e = m_shape.experts;
        const torch::Tensor scores = step.logits.detach().cpu().contiguous();
        const auto size = static_cast<std::size_t>(scores.numel());
        std::vector<std::uint8_t> counted;
        if (input.mask.defined()) {
            const torch::Tensor mask = input.mask.cpu().to(torch::kUInt8).contiguous();
            counted.assign(mask.const_data_ptr<std::uint8_t>(), mask.const_data_ptr<std::uint8_t>() + mask.numel());
            if (mask.sum().item<std::int64_t>() == 0)
                return step.selection;
        } else if (size == 0) {
            return step.selection;
        }
        rule::SinkhornOptions options;
        options.epsilon = 1;
        options.tolerance = m_options.tolerance;
        options.maxIterations = m_options.maxIterations;
        const torch::Tensor plan = torch::empty_like(scores);
        const auto result = rule::sinkhorn({scores.const_data_ptr<float>(), size}, e, options, {plan.data_ptr<float>(), size}, counted);
        TORCH_CHECK(result.ok(), "Sinkhorn: ", result.ok() ? "" : result.error().what);
        step.violation = result->violation;
        step.selection = plan.to(step.logits.device());
        const torch::Tensor potential = torch::tensor(result->potential, torch::kFloat64).to(torch::kFloat32);
        return (scores + potential).to(step.logits.device());
    }

    Options m_options;
};

} // namespace

RouterRegistration sbaseEntry()
{
    return registration<SBaseRouter>(
        {"sbase", "S-BASE: experts by entropic transport in training", "Clark et al. 2022, arXiv 2202.01169, section 3.1 and appendix B", true,
         "causal at inference, where a token takes the k largest of its own scores; in training the transport runs over the tokens of a pass (in several processes, "
         "of each by itself), so a token's experts "
         "depend on the others. The transport goes on until every expert's share is right to the tolerance, not until the potentials stand still; weights are not "
         "divided by their sum",
         {}});
}

} // namespace spectra
