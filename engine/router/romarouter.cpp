// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include <algorithm>

namespace spectra {
namespace {

struct RomaOptions {
    int layers = 5;
    bool normTopK = true;
    double manifoldCoef = 1, auxLossCoef = 0;
};

/// Routing manifold alignment (Li et al. 2025, arXiv 2511.07419): softmax top-k whose fine-tuning draws the routing weights r_i of a
/// sequence's last token, in the last MoE layers, to those cached of its successful neighbours: λ Σ_j W_ij ‖r_i − r_j‖². The square is
/// a sum over layers, so each layer adds its own part. Only the routers of those layers learn.
class RomaRouter : public LinearRouter {
public:
    using Options = RomaOptions;
    RomaRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"manifold_layers", &Options::layers, "MoE layers, counted from the last, whose routers are aligned and trained", 1, 65536},
            {"manifold_coef", &Options::manifoldCoef, "λ: coefficient of the alignment loss", 0, 1e6},
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
            {"router_aux_loss_coef", &Options::auxLossCoef, "coefficient of the load-balancing loss", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }
    void setManifold(ManifoldTargets targets) override { m_targets = std::move(targets); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        const std::int64_t aligned = std::min<std::int64_t>(m_options.layers, input.layers);
        const std::int64_t place = input.layer - (input.layers - aligned); // among the aligned layers; negative before them
        RoutingStep step;
        step.logits = input.training && place < 0 ? torch::linear(input.x, linearWeights(input.layer).detach()) : logits(input.x, input.layer);
        step.probabilities = step.selection = torch::softmax(step.logits, -1);
        choose(step, step.probabilities, step.probabilities, m_shape.topK, m_options.normTopK);
        if (!input.training)
            return step;
        if (m_options.auxLossCoef > 0)
            step.losses["balance"] = m_options.auxLossCoef * balanceLoss(step.probabilities, step.experts, input);
        if (m_targets.weights.defined() && place >= 0)
            addManifoldLoss(step, input, place, aligned);
        return step;
    }

private:
    void addManifoldLoss(RoutingStep &step, const RouterInput &input, std::int64_t place, std::int64_t aligned) const
    {
        const auto sequences = static_cast<std::int64_t>(input.offsets.size()) - 1;
        const torch::Tensor &cached = m_targets.routing, &share = m_targets.weights;
        TORCH_CHECK(share.dim() == 2 && share.size(0) == sequences, "the neighbours' weights are not those of this batch's sequences");
        TORCH_CHECK(cached.dim() == 4 && cached.size(0) == sequences && cached.size(1) == share.size(1) && cached.size(2) == aligned
                        && cached.size(3) == m_shape.experts,
                    "the cached routing is not [sequences, neighbours, ", aligned, " layers, ", m_shape.experts, " experts]");
        std::vector<std::int64_t> rows, kept;
        for (std::int64_t s = 0; s < sequences; ++s)
            if (const std::int64_t row = lastRow(input, s); row >= 0) {
                rows.push_back(row);
                kept.push_back(s);
            }
        if (rows.empty())
            return;
        const auto index = [&](const std::vector<std::int64_t> &at) { return torch::tensor(at, torch::kInt64).to(step.probabilities.device()); };
        const torch::Tensor routing = step.probabilities.index_select(0, index(rows)).unsqueeze(1); // [S,1,E]
        const torch::Tensor target = cached.to(routing.device()).select(2, place).index_select(0, index(kept)).detach();
        const torch::Tensor weight = share.to(routing.device()).index_select(0, index(kept)).detach();
        step.losses["manifold"] = m_options.manifoldCoef / static_cast<double>(sequences) * (weight * (routing - target).square().sum(-1)).sum();
    }

    /// A sequence's last counted row, −1: none.
    [[nodiscard]] static std::int64_t lastRow(const RouterInput &input, std::int64_t sequence)
    {
        const std::int64_t begin = input.offsets[static_cast<std::size_t>(sequence)], end = input.offsets[static_cast<std::size_t>(sequence) + 1];
        if (!input.mask.defined() || end == begin)
            return end - 1 >= begin ? end - 1 : -1;
        const torch::Tensor counted = input.mask.narrow(0, begin, end - begin).nonzero().view({-1});
        return counted.numel() == 0 ? -1 : begin + counted[-1].item<std::int64_t>();
    }

    Options m_options;
    ManifoldTargets m_targets;
};

} // namespace

RouterRegistration romaEntry()
{
    RouterInfo info{"roma_like", "RoMA-like: fine-tuning of routers towards successful neighbours", "Li et al. 2025, arXiv 2511.07419, equations of sections 3.1 and 3.2", true,
                    "the paper gives no λ (1 here), no σ (the median distance unless set) and no name of the embedding model: the bank that `spectra roma-bank` makes takes "
                    "embeddings from outside, or the mean of the model's final hidden states. A sample is a window of the training text, successful when the model's most "
                    "likely token after it is the text's (the paper: questions, and the right answer). r is the softmax over all experts, not the k that remain, so that "
                    "every expert's weight learns; cached routing is held fixed; the loss is a mean over the sequences of a batch. Routers before the aligned layers get "
                    "no gradient; everything else is frozen by training with start router_only. Without a bank (roma.bank of a run) this is softmax top-k",
                    {}};
    info.adopts = {"softmax_topk", "qwen3_moe", "glam", "expert_specialization", "laser_like"};
    return registration<RomaRouter>(std::move(info));
}

} // namespace spectra
