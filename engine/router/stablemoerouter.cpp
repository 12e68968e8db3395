// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"
#include "engine/router/routerinit.h"

#include <limits>

namespace spectra {
namespace {

struct StableMoeOptions {
    int twoStageUpdates = 6000, distilledDim = 50;
    double balanceFactor = 0.3, distillFactor = 0.3, capacityFactor = 2;
};

/// StableMoE (Dai et al. 2022, arXiv 2204.08396). Stage 1: a token goes to the expert with the largest x·centroid, a loss balances, and
/// a light router over word embeddings learns to foretell the choice. Stage 2, from a given optimiser step on: the light router decides
/// and never changes again, so a token id always has the same expert. The gate is σ(x·centroid) of the chosen expert in both.
class StableMoeRouter : public LinearRouter {
public:
    using Options = StableMoeOptions;
    StableMoeRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"two_stage_updates", &Options::twoStageUpdates, "optimiser steps of stage 1 (the paper: a tenth of all)", 0, std::numeric_limits<int>::max()},
            {"distill_dim", &Options::distilledDim, "size of the word embeddings of the distilled router", 1, 65536, false, {}, true},
            {"balance_loss_factor", &Options::balanceFactor, "coefficient of the balance loss of stage 1", 0, 1000},
            {"distill_loss_factor", &Options::distillFactor, "coefficient of the distillation loss of stage 1", 0, 1000},
            {"capacity_factor", &Options::capacityFactor, "in training an expert takes this many times N/E tokens, later ones pass by; 0: all", 0, 65536},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return 0; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.tokenIds = true;
        return needs;
    }
    [[nodiscard]] Result<void> fits() const
    {
        if (m_shape.vocabulary < 1)
            return usageError("the distilled router has a table over token ids and needs the vocabulary's size", "router " + name());
        return {};
    }

    void initialise(std::uint64_t seed)
    {
        LinearRouter::initialise(seed);
        const torch::NoGradGuard noGrad;
        const std::uint64_t count = m_shape.moeLayers.size();
        for (std::uint64_t l = 0; l < count; ++l) {
            linearWeights(static_cast<int>(l)).copy_(orthogonal(m_shape.experts, m_shape.hidden, 0.1, seed, l + 1));
            m_words.push_back(normalTensor(m_shape.vocabulary, m_options.distilledDim, 1, seed, count + 2 * l + 1).set_requires_grad(true));
            m_distilled.push_back(orthogonal(m_shape.experts, m_options.distilledDim, 0.1, seed, count + 2 * l + 2).set_requires_grad(true));
        }
        m_stage = torch::full({1}, m_options.twoStageUpdates == 0 ? 2.0 : 1.0);
    }
    [[nodiscard]] Result<void> load(const TensorLookup &lookup)
    {
        SPECTRA_CHECK(LinearRouter::load(lookup));
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
            SPECTRA_TRY(const auto words, storedTensor(lookup, tensorName(l, kWords), {m_shape.vocabulary, m_options.distilledDim}));
            SPECTRA_TRY(const auto distilled, storedTensor(lookup, tensorName(l, kDistilled), {m_shape.experts, m_options.distilledDim}));
            m_words.push_back(words.clone().set_requires_grad(true));
            m_distilled.push_back(distilled.clone().set_requires_grad(true));
        }
        SPECTRA_TRY(const auto stage, storedTensor(lookup, kStage, {1}));
        m_stage = stage.cpu().clone();
        if (const float s = m_stage.item<float>(); s != 1 && s != 2)
            return inputError("the stage of a StableMoE router is 1 or 2, not " + numberText(static_cast<double>(s)), kStage);
        return {};
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override
    {
        auto map = LinearRouter::parameters();
        for (std::size_t l = 0; l < m_words.size(); ++l) {
            map[tensorName(l, kWords)] = m_words[l];
            map[tensorName(l, kDistilled)] = m_distilled[l];
        }
        return map;
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {{kStage, m_stage}}; }
    void to(torch::Device device) override
    {
        LinearRouter::to(device);
        for (auto *list : {&m_words, &m_distilled})
            for (torch::Tensor &t : *list)
                t = t.detach().to(device).set_requires_grad(true);
        m_frozen.clear();
    }

    void setTrainingStep(std::int64_t step) override
    {
        m_steps = step;
        enterStage();
    }
    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override
    {
        // Frozen means frozen: momentum and weight decay move tensors that have no gradient too.
        const torch::NoGradGuard noGrad;
        for (std::size_t l = 0; l < m_frozen.size(); ++l) {
            m_words[l].copy_(m_frozen[l].first);
            m_distilled[l].copy_(m_frozen[l].second);
        }
        ++m_steps;
        enterStage();
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        TORCH_CHECK(input.tokenIds.defined(), "StableMoE routing needs the token ids");
        const bool stable = m_stage.item<float>() == 2;
        RoutingStep step;
        step.logits = logits(input.x, input.layer);
        const torch::Tensor deciding = stable ? distilledScores(input.tokenIds, input.layer).detach() : step.logits;
        step.selection = deciding.detach();
        step.probabilities = torch::softmax(deciding, -1);
        step.experts = topKColumns(step.selection, 1);
        step.weights = torch::sigmoid(step.logits.gather(1, step.experts));
        if (!input.training)
            return step;
        if (!stable)
            addLosses(step, input);
        else if (m_frozen.empty())
            freeze();
        if (m_options.capacityFactor > 0)
            applyCapacity(step, input, m_shape.experts, m_options.capacityFactor, "position", {});
        return step;
    }

private:
    static constexpr const char *kWords = "word_embedding", *kDistilled = "distilled_weight", *kStage = "model.router.stage";

    void enterStage()
    {
        if (m_steps >= m_options.twoStageUpdates)
            m_stage.fill_(2);
    }
    void freeze()
    {
        for (std::size_t l = 0; l < m_words.size(); ++l)
            m_frozen.emplace_back(m_words[l].detach().clone(), m_distilled[l].detach().clone());
    }

    [[nodiscard]] torch::Tensor distilledScores(const torch::Tensor &ids, int layer) const
    {
        const auto l = static_cast<std::size_t>(layer);
        return torch::embedding(m_words[l], ids.to(m_words[l].device())).matmul(m_distilled[l].t());
    }

    void addLosses(RoutingStep &step, const RouterInput &input) const
    {
        const torch::Tensor score = countedRows(step.weights, input).view({-1}), expert = countedRows(step.experts, input).view({-1});
        const std::int64_t n = score.size(0);
        if (n == 0)
            return;
        const double count = static_cast<double>(n);
        torch::Tensor excess; // (c_e − N/E) / (N/E) of each expert
        {
            const torch::NoGradGuard noGrad;
            const torch::Tensor load = sumOverProcesses(chosenMask(expert.view({n, 1}), m_shape.experts).sum(0).cpu(), input.collective).to(score.device());
            excess = load / load.mean() - 1;
        }
        step.losses["balance"] = m_options.balanceFactor / count * (excess.index_select(0, expert) * score).sum();
        step.losses["distill"] = m_options.distillFactor
            * torch::nn::functional::cross_entropy(distilledScores(countedRows(input.tokenIds, input), input.layer), expert);
    }

    Options m_options;
    std::vector<torch::Tensor> m_words, m_distilled; ///< per layer [V,D] and [E,D]
    std::vector<std::pair<torch::Tensor, torch::Tensor>> m_frozen; ///< what they were when stage 2 began; empty before
    torch::Tensor m_stage;                            ///< [1], on the CPU: 1 or 2
    std::int64_t m_steps = 0;
};

} // namespace

RouterRegistration stableMoeEntry()
{
    RouterInfo info{"stablemoe", "StableMoE: routing learned, distilled into word embeddings, then frozen", "Dai et al. 2022, arXiv 2204.08396, section 3; factors as its authors released them",
                    true,
                    "causal: a token's own. The stage belongs to the checkpoint; a stage-1 model routes greedily at inference, where the released code asks the distilled router "
                    "whenever it does not train. Losses are sums over tokens in the paper's code and are divided by the number of tokens here, like the language model's loss. "
                    "Every MoE layer has word embeddings of its own (the released models have one such layer). The part (1 − α)·x of the output α·E(x) + (1 − α)·x is left to the "
                    "residual connection, as is all of a token beyond the capacity, which is ⌈2·N/E⌉ and holds in training alone (released code: ⌊2·N/E⌋, always)",
                    {}};
    info.topK = 1;
    return registration<StableMoeRouter>(std::move(info));
}

} // namespace spectra
