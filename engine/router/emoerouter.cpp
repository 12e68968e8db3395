// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/layertensorrouter.h"
#include "engine/router/orthonormal.h"
#include "engine/router/registration.h"
#include "engine/router/routerinit.h"

#include <algorithm>

namespace spectra {
namespace {

struct EmoeOptions {
    int rank = 128;
    double temperature = 1;
    bool norm = false, qrRetraction = true;
    double orthoLossCoef = 1e-3;
};

/// EMoE-like (arXiv 2601.12137): a token's energy is divided over the directions of one learned orthonormal basis, and experts share the
/// directions among them: z = Uᵀx, e_j = z_j²/(Σ z² + ε), ℓ_e = Σ_j γ_j π_ej e_j + b_e with π = softmax over the experts. No balance loss.
class EmoeRouter : public LayerTensorRouter {
public:
    using Options = EmoeOptions;
    EmoeRouter(std::string name, Options options, RouterShape shape)
        : LayerTensorRouter(std::move(name), shape,
                            {{"basis", {1, rankOf(options, shape), shape.hidden}}, {"scale", {rankOf(options, shape)}}, {"shares", {shape.experts, rankOf(options, shape)}}, {"bias", {shape.experts}}}),
          m_options(options)
    {
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"rank", &Options::rank, "directions of the basis; at most the hidden size", 1, 65536, false, {}, true},
            {"temperature", &Options::temperature, "of the softmax over the experts' logits", 0, 1000, true},
            {"norm_topk_prob", &Options::norm, "weights of the chosen experts sum to 1"},
            {"qr_retraction", &Options::qrRetraction, "the basis is made orthonormal again after every optimiser step"},
            {"ortho_loss_coef", &Options::orthoLossCoef, "coefficient of ‖UᵀU − I‖²_F; does nothing beside qr_retraction", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.norm ? 1 : 0; }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        const auto &w = tensors(input.layer);
        const torch::Tensor square = torch::linear(input.x, w[Basis][0]).square();
        const torch::Tensor energy = square / (square.sum(-1, true) + 1e-6);
        RoutingStep step;
        step.logits = torch::linear(energy, w[Scale] * torch::softmax(w[Shares], 0), w[Bias]);
        step.probabilities = step.selection = torch::softmax(step.logits / m_options.temperature, -1);
        choose(step, step.selection, step.probabilities, m_shape.topK, m_options.norm);
        if (input.training && m_options.orthoLossCoef > 0)
            step.losses["orthogonality"] = m_options.orthoLossCoef * orthonormalityPenalty(w[Basis]);
        return step;
    }
    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override
    {
        if (m_options.qrRetraction)
            for (std::size_t l = 0; l < layerCount(); ++l)
                retractRows(tensors(static_cast<int>(l))[Basis]);
    }

protected:
    [[nodiscard]] std::vector<torch::Tensor> fresh(std::uint64_t seed, std::uint64_t stream) const override
    {
        const std::int64_t r = rankOf(m_options, m_shape);
        return {orthonormalRows(1, r, m_shape.hidden, seed, 2 * stream), torch::ones({r}), normalTensor(m_shape.experts, r, 1, seed, 2 * stream + 1), torch::zeros({m_shape.experts})};
    }

private:
    enum Part : std::size_t { Basis, Scale, Shares, Bias };

    static std::int64_t rankOf(const Options &options, const RouterShape &shape) { return std::min<std::int64_t>(options.rank, shape.hidden); }

    Options m_options;
};

} // namespace

RouterRegistration emoeLikeEntry()
{
    return registration<EmoeRouter>(
        {"emoe_like", "EMoE-like: experts by a token's energy along one basis", "after EMoE, arXiv 2601.12137; scores, start and defaults as its authors released them for vision transformers", true,
         "the paper routes image patches to adapters beside a frozen network; here every token of a language model goes to the k best experts. As released: shares are a softmax over the "
         "experts, ε = 1e-6, rank 128, weights are the probabilities of the chosen, not renormalised. Ours: the basis is retracted after every optimiser step, not in the forward "
         "pass (the same function of the step), with R's diagonal positive; the second basis of the released penalty, which routing never uses, is left out",
         {}});
}

} // namespace spectra
