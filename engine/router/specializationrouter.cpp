// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include <cmath>

namespace spectra {
namespace {

struct SpecializationOptions {
    bool normTopK = true;
    double auxCoef = 1e-3, orthoCoef = 1e-3, varianceCoef = 1e-3, orthoTarget = 1e-4, varianceTarget = 1e-3;
    std::string varianceForm = "paper", rescaling = "aux_loss";
};

constexpr double kEpsilon = 1e-8; // of the projection's denominator

/// Advancing expert specialization (Guo et al. 2025, arXiv 2505.22323): softmax top-k with the usual balance loss, a loss that sets the
/// outputs of a token's experts at right angles, and one that lets an expert's scores differ from token to token.
class SpecializationRouter : public LinearRouter {
public:
    using Options = SpecializationOptions;
    SpecializationRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(std::move(options)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
            {"router_aux_loss_coef", &Options::auxCoef, "α: coefficient of the load-balancing loss", 0, 1000},
            {"ortho_loss_coef", &Options::orthoCoef, "β: coefficient of the orthogonality loss", 0, 1000},
            {"variance_loss_coef", &Options::varianceCoef, "γ: coefficient of the variance loss", 0, 1000},
            {"variance_form", &Options::varianceForm,
             "paper: over tokens, of the chosen experts' normalised scores (equation 7); released_code: over experts, of each token's softmax", 0, 0, false, {"paper", "released_code"}},
            {"rescaling", &Options::rescaling,
             "a power of ten fixed at a layer's first pass; aux_loss: brings both losses to the balance loss's size; target: takes the coefficients' place and brings them to the "
             "targets; none",
             0, 0, false, {"aux_loss", "target", "none"}},
            {"ortho_loss_target", &Options::orthoTarget, "rescaling target: size of the orthogonality loss with its factor", 0, 1000, true},
            {"variance_loss_target", &Options::varianceTarget, "rescaling target: size of the variance loss with its factor", 0, 1000, true},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.expertOutputs = m_options.orthoCoef > 0;
        return needs;
    }

    void initialise(std::uint64_t seed)
    {
        LinearRouter::initialise(seed);
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l)
            m_scales.push_back(torch::zeros({2}));
    }
    [[nodiscard]] Result<void> load(const TensorLookup &lookup)
    {
        SPECTRA_CHECK(LinearRouter::load(lookup));
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
            SPECTRA_TRY(const auto scales, storedTensor(lookup, tensorName(l, kScales), {2}));
            m_scales.push_back(scales.cpu().clone());
        }
        return {};
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override
    {
        std::map<std::string, torch::Tensor> map;
        for (std::size_t l = 0; l < m_scales.size(); ++l)
            map[tensorName(l, kScales)] = m_scales[l];
        return map;
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, m_shape.topK, m_options.normTopK);
        if (!input.training)
            return step;
        const torch::Tensor balance = balanceLoss(step.probabilities, step.experts, input);
        m_pass = {input.layer, input.mask, input.collective, balance.detach().item<double>()};
        if (m_options.auxCoef > 0)
            step.losses["balance"] = m_options.auxCoef * balance;
        if (m_options.varianceCoef > 0)
            if (const torch::Tensor variance = varianceOf(step, input); variance.defined())
                step.losses["variance"] = factor(1, m_options.varianceCoef, m_options.varianceTarget, variance) * -variance;
        return step;
    }

    void lossAfterExperts(RoutingStep &step, const torch::Tensor &outputs) override
    {
        const std::int64_t k = m_shape.topK;
        if (m_options.orthoCoef <= 0 || k < 2)
            return;
        RouterInput counted;
        counted.mask = m_pass.mask;
        const torch::Tensor x = countedRows(outputs, counted), taken = (countedRows(step.experts, counted) >= 0).to(x.scalar_type());
        if (x.size(0) == 0)
            return;
        const torch::Tensor gram = x.matmul(x.transpose(1, 2)), square = gram.diagonal(0, 1, 2).unsqueeze(1); // [n,k,k], [n,1,k]
        // ‖⟨a,b⟩/(⟨b,b⟩+ε)·b‖² for every ordered pair of a token's experts.
        const torch::Tensor pairs = taken.unsqueeze(2) * taken.unsqueeze(1) * (1 - torch::eye(k, gram.options()));
        const torch::Tensor overlap = torch::where(pairs > 0, gram.square() * square / (square + kEpsilon).square(), torch::zeros_like(gram)).sum()
            / static_cast<double>(x.size(0) * k * (k - 1));
        step.losses["orthogonality"] = factor(0, m_options.orthoCoef, m_options.orthoTarget, overlap) * overlap;
    }

private:
    static constexpr const char *kScales = "specialization_scale";

    [[nodiscard]] torch::Tensor varianceOf(const RoutingStep &step, const RouterInput &input) const
    {
        const torch::Tensor probabilities = countedRows(step.probabilities, input);
        if (probabilities.size(0) == 0)
            return {};
        if (m_options.varianceForm == "released_code")
            return m_shape.experts < 2 ? torch::Tensor() : probabilities.var(1, true).mean();
        const torch::Tensor weights = countedRows(step.weights, input);
        const torch::Tensor scores = torch::zeros_like(probabilities).scatter(1, countedRows(step.experts, input), weights / weights.sum(-1, true));
        const torch::Tensor sums = torch::cat({scores.sum(0), torch::full({1}, static_cast<double>(scores.size(0)), scores.options())});
        const torch::Tensor all = sumOverProcesses(sums, input.collective);
        const torch::Tensor mean = all.narrow(0, 0, m_shape.experts) / all[m_shape.experts].detach();
        return (scores - mean).square().mean();
    }

    /// What a loss is multiplied by. `which` of the layer's two factors is found at its first pass and then kept, also by checkpoints.
    [[nodiscard]] double factor(std::int64_t which, double coefficient, double target, const torch::Tensor &loss)
    {
        if (m_options.rescaling == "none")
            return coefficient;
        const torch::NoGradGuard noGrad;
        float &kept = m_scales[static_cast<std::size_t>(m_pass.layer)].data_ptr<float>()[which];
        if (kept == 0) {
            torch::Tensor sizes = torch::tensor({loss.item<double>(), m_pass.balance}, torch::kFloat64);
            sizes = sumOverProcesses(sizes, m_pass.collective); // one factor for all processes; their number cancels or is divided out
            const double processes = m_pass.collective ? m_pass.collective->size() : 1, size = sizes[0].item<double>() / processes;
            const double wanted = m_options.rescaling == "aux_loss" ? sizes[1].item<double>() / processes : target;
            const double power = std::round(std::log10(wanted / size));
            if (std::isfinite(power) && std::abs(power) <= 30)
                kept = static_cast<float>(std::pow(10.0, power));
        }
        const double scale = kept == 0 ? 1 : static_cast<double>(kept);
        return m_options.rescaling == "target" ? scale : coefficient * scale;
    }

    /// The latest training pass of a layer, for the loss that follows it.
    struct Pass {
        int layer = 0;
        torch::Tensor mask;
        Collective *collective = nullptr;
        double balance = 0;
    };
    Options m_options;
    std::vector<torch::Tensor> m_scales; ///< per layer [2], on the CPU: factors of orthogonality and variance, 0 before the first pass
    Pass m_pass;
};

} // namespace

RouterRegistration specializationEntry()
{
    RouterInfo info{"expert_specialization", "Advancing expert specialization: orthogonal outputs, varied scores", "Guo et al. 2025, arXiv 2505.22323, equations 5 to 9", true,
                    "the paper's equations with its best coefficients (table 3); sums are means here: the orthogonality loss over T·k(k−1) ordered pairs (ε = 1e-8), the variance "
                    "over T·E scores. Rescaling is per layer. The released code differs: its variance is that of each token's softmax over experts (variance_form released_code), "
                    "its orthogonality loss is the projection on a Gram-Schmidt basis of the other outputs, over rows that are grouped by expert instead of by token, "
                    "and its factors are found once for all layers from the first layer's router weights and used instead of coefficients (rescaling target is the like of it)",
                    {}};
    info.adopts = {"softmax_topk", "qwen3_moe", "glam", "roma_like", "laser_like"};
    return registration<SpecializationRouter>(std::move(info));
}

} // namespace spectra
