// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/layertensorrouter.h"
#include "engine/router/orthonormal.h"
#include "engine/router/registration.h"

#include <algorithm>

namespace spectra {
namespace {

struct ErmoeOptions {
    int rank = 32;
    std::string weighting = "renormalised";
    bool qrRetraction = true;
    double orthoLossCoef = 0;
};

/// ERMoE-like (arXiv 2511.10971): each expert has an orthonormal basis V_e, and a token goes to the experts whose subspace it lies in:
/// s_e = ‖V_eᵀx‖/‖x‖, the cosine between x and its projection, so between 0 and 1. No balance loss.
class ErmoeRouter : public LayerTensorRouter {
public:
    using Options = ErmoeOptions;
    ErmoeRouter(std::string name, Options options, RouterShape shape)
        : LayerTensorRouter(std::move(name), shape, {{"basis", {shape.experts, rankOf(options, shape), shape.hidden}}}), m_options(std::move(options))
    {
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"rank", &Options::rank, "directions of an expert's basis; at most half the hidden size, for a basis of the whole space would suit every token", 1, 65536, false, {}, true},
            {"weighting", &Options::weighting, "weights of the chosen: their scores over the scores' sum, or a softmax over their scores", 0, 0, false, {"renormalised", "softmax"}},
            {"qr_retraction", &Options::qrRetraction, "bases are made orthonormal again after every optimiser step"},
            {"ortho_loss_coef", &Options::orthoLossCoef, "coefficient of Σ_e ‖V_eᵀV_e − I‖²_F; does nothing beside qr_retraction", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        const torch::Tensor &basis = tensors(input.layer)[0];
        const torch::Tensor within = torch::linear(input.x, basis.flatten(0, 1)).view({input.x.size(0), basis.size(0), basis.size(1)});
        RoutingStep step;
        step.logits = step.selection = within.norm(2, -1) / input.x.norm(2, -1, true).clamp_min(1e-12);
        step.probabilities = m_options.weighting == "softmax" ? torch::softmax(step.logits, -1) : step.logits / (step.logits.sum(-1, true) + 1e-20);
        choose(step, step.selection, step.probabilities, m_shape.topK, true);
        if (input.training && m_options.orthoLossCoef > 0)
            step.losses["orthogonality"] = m_options.orthoLossCoef * orthonormalityPenalty(basis);
        return step;
    }
    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override
    {
        if (m_options.qrRetraction)
            for (std::size_t l = 0; l < layerCount(); ++l)
                retractRows(tensors(static_cast<int>(l))[0]);
    }

protected:
    [[nodiscard]] std::vector<torch::Tensor> fresh(std::uint64_t seed, std::uint64_t stream) const override
    {
        return {orthonormalRows(m_shape.experts, rankOf(m_options, m_shape), m_shape.hidden, seed, stream)};
    }

private:
    static std::int64_t rankOf(const Options &options, const RouterShape &shape)
    {
        return std::max<std::int64_t>(1, std::min<std::int64_t>(options.rank, shape.hidden / 2));
    }

    Options m_options;
};

} // namespace

RouterRegistration ermoeLikeEntry()
{
    return registration<ErmoeRouter>(
        {"ermoe_like", "ERMoE-like: experts by the subspace that a token lies in", "after ERMoE, arXiv 2511.10971 (abstract and summaries; the paper's code is not public)", true,
         "the score is the cosine between a token and its projection on the expert's basis, ‖V_eᵀx‖/‖x‖. The basis is a parameter of the router beside the experts, which keep the "
         "architecture of every other router here; in the paper it is that of the expert's own weights U diag(s) Vᵀ. Its rank (32), how it is kept orthonormal (QR after every "
         "optimiser step, gradients as they come; in the forward pass it is taken as it is) and the weights (scores of the chosen over their sum) are ours: the paper's penalty "
         "weight, normalisation and thresholds were not available. Top-k of the score without a threshold, no balance loss. Bases start independent of each other",
         {}});
}

} // namespace spectra
