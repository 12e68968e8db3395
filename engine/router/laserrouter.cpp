// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/parallel.h"
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

#include "engine/rule/matrix.h"

#include <algorithm>
#include <numeric>

namespace spectra {
namespace {

struct LaserOptions {
    double candidateRatio = 0.5, sharpMass = 0.8, candidateFactor = 2, loadEma = 0.9, auxLossCoef = 0.02;
    bool normTopK = true;
};

/// Load-aware routing at inference in the manner of LASER (Shahout et al. 2025, arXiv 2510.03293). p = softmax(ℓ). Where the k best hold
/// enough of p, they are taken. Else those with p_e ≥ τ·p_max, at most m of them and at least k, are candidates, and the k that the
/// sequence's tokens before have used least are taken. Use is a moving average per layer and sequence, u ← ρ'·u + (1−ρ')·[chosen], so a
/// token's routing depends on its past alone. Training is softmax top-k.
class LaserRouter : public LinearRouter {
public:
    using Options = LaserOptions;
    LaserRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"candidate_ratio", &Options::candidateRatio, "τ: candidates have at least this share of the largest probability", 0, 1},
            {"sharp_mass", &Options::sharpMass, "ρ: plain top-k where the k best hold this much probability", 0, 1},
            {"candidate_factor", &Options::candidateFactor, "at most this many times k candidates", 1, 65536},
            {"load_ema", &Options::loadEma, "share of the past in the running load", 0, 1},
            {"norm_topk_prob", &Options::normTopK, "weights of the chosen experts sum to 1"},
            {"router_aux_loss_coef", &Options::auxLossCoef, "in training: coefficient of the load-balancing loss", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }
    [[nodiscard]] double weightSum() const override { return m_options.normTopK ? 1 : 0; }
    [[nodiscard]] RouterNeeds needs() const override
    {
        RouterNeeds needs;
        needs.recurrentTokens = true;
        return needs;
    }
    void to(torch::Device device) override
    {
        LinearRouter::to(device);
        m_packed.clear();
    }
    void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) override { m_packed.clear(); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState &state, Capture /*capture*/) override
    {
        RoutingStep step;
        if (input.training) {
            m_packed.clear();
            step.logits = logits(input.x, input.layer);
            step.probabilities = step.selection = torch::softmax(step.logits, -1);
            choose(step, step.probabilities, step.probabilities, m_shape.topK, m_options.normTopK);
            if (m_options.auxLossCoef > 0)
                step.losses["balance"] = m_options.auxLossCoef * static_cast<double>(m_shape.topK) * balanceLoss(step.probabilities, step.experts, input);
            return step;
        }
        const torch::NoGradGuard noGrad;
        step.logits = rowwiseLogits(input.x, input.layer);
        step.probabilities = torch::softmax(step.logits, -1);
        step.selection = step.probabilities;
        takeLeastLoaded(step, input, state);
        return step;
    }

private:
    /// x Wᵀ with each row's sums in one order, so that a token's choice does not hang on which other tokens are in the call.
    [[nodiscard]] torch::Tensor rowwiseLogits(const torch::Tensor &x, int layer)
    {
        if (!x.device().is_cpu())
            return logits(x, layer);
        const auto l = static_cast<std::size_t>(layer);
        if (m_packed.empty())
            for (std::size_t i = 0; i < m_shape.moeLayers.size(); ++i) {
                const torch::Tensor w = linearWeights(static_cast<int>(i)).detach().contiguous();
                m_packed.emplace_back(std::span(w.const_data_ptr<float>(), static_cast<std::size_t>(w.numel())), std::span<const float>(), m_shape.experts, m_shape.hidden);
            }
        const torch::Tensor rows = x.contiguous();
        const std::int64_t n = rows.size(0), padded = m_packed[l].paddedOutputs();
        torch::Tensor y = torch::empty({n, padded});
        parallelFor(n, 0, [&](std::int64_t begin, std::int64_t end, int) {
            m_packed[l].project(rows.const_data_ptr<float>() + begin * m_shape.hidden, m_shape.hidden, end - begin, y.data_ptr<float>() + begin * padded, padded);
        });
        return y.narrow(1, 0, m_shape.experts).contiguous();
    }

    void takeLeastLoaded(RoutingStep &step, const RouterInput &input, RouterState &state) const
    {
        const std::int64_t n = step.logits.size(0), experts = m_shape.experts, k = m_shape.topK;
        const auto sequences = static_cast<std::int64_t>(input.offsets.size()) - 1;
        if (!state.token.defined())
            state.token = torch::zeros({sequences, input.layers, experts});
        TORCH_CHECK(state.token.size(0) == sequences && state.token.size(2) == experts, "the running loads are not those of these sequences");
        const torch::Tensor p = step.probabilities.cpu().contiguous();
        const torch::Tensor mask = input.mask.defined() ? input.mask.cpu().to(torch::kUInt8).contiguous() : torch::Tensor();
        torch::Tensor loads = state.token.cpu().contiguous(); // the state itself unless it lives elsewhere
        torch::Tensor chosen = torch::empty({n, k}, torch::kInt64), weights = torch::empty({n, k});
        std::vector<std::int64_t> order(static_cast<std::size_t>(experts));
        for (std::int64_t s = 0; s < sequences; ++s) {
            float *const load = loads.data_ptr<float>() + (s * input.layers + input.layer) * experts;
            for (std::int64_t t = input.offsets[static_cast<std::size_t>(s)]; t < input.offsets[static_cast<std::size_t>(s) + 1]; ++t) {
                auto *const to = chosen.data_ptr<std::int64_t>() + t * k;
                routeToken(p.const_data_ptr<float>() + t * experts, load, order, to, weights.data_ptr<float>() + t * k);
                if (mask.defined() && mask.const_data_ptr<std::uint8_t>()[t] == 0)
                    continue; // it is routed, and burdens nobody
                const auto past = static_cast<float>(m_options.loadEma), now = static_cast<float>(1 - m_options.loadEma);
                for (std::int64_t e = 0; e < experts; ++e)
                    load[e] *= past;
                for (std::int64_t slot = 0; slot < k; ++slot)
                    load[to[slot]] += now;
            }
        }
        if (!loads.is_alias_of(state.token))
            state.token.copy_(loads);
        step.experts = chosen.to(step.logits.device());
        step.weights = weights.to(step.logits.device());
    }

    void routeToken(const float *p, const float *load, std::vector<std::int64_t> &order, std::int64_t *chosen, float *weights) const
    {
        const std::int64_t k = m_shape.topK;
        std::iota(order.begin(), order.end(), std::int64_t(0));
        std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return p[a] > p[b]; });
        double mass = 0;
        for (std::int64_t i = 0; i < k; ++i)
            mass += static_cast<double>(p[order[static_cast<std::size_t>(i)]]);
        if (mass < m_options.sharpMass) {
            const auto most = std::min<std::int64_t>(m_shape.experts, static_cast<std::int64_t>(m_options.candidateFactor * static_cast<double>(k)));
            const double least = m_options.candidateRatio * static_cast<double>(p[order[0]]);
            std::int64_t candidates = k;
            while (candidates < most && static_cast<double>(p[order[static_cast<std::size_t>(candidates)]]) >= least)
                ++candidates;
            // Ties of load go to the likelier expert, then to the lower number: the order they stand in.
            std::stable_sort(order.begin(), order.begin() + candidates, [&](std::int64_t a, std::int64_t b) { return load[a] < load[b]; });
            std::sort(order.begin(), order.begin() + k, [&](std::int64_t a, std::int64_t b) { return p[a] > p[b] || (p[a] == p[b] && a < b); });
        }
        double sum = 0;
        for (std::int64_t i = 0; i < k; ++i) {
            chosen[i] = order[static_cast<std::size_t>(i)];
            sum += static_cast<double>(p[chosen[i]]);
        }
        for (std::int64_t i = 0; i < k; ++i)
            weights[i] = static_cast<float>(static_cast<double>(p[chosen[i]]) / (m_options.normTopK ? sum : 1));
    }

    Options m_options;
    std::vector<rule::PackedMatrix> m_packed; ///< per layer, made at the first inference after the weights were set
};

} // namespace

RouterRegistration laserEntry()
{
    RouterInfo info{"laser_like", "Load-aware top-k at inference (LASER-like)", "Shahout et al. 2025, arXiv 2510.03293, abstract", true,
                    "the paper's abstract and introduction alone were read: its thresholds, its measure of load and its rules per layer are not known, so the rule is ours: plain "
                    "top-k where the k best hold sharp_mass of the probability, else the k least used of the candidates. Load is a moving average over the past tokens of the same "
                    "sequence, per layer: the paper balances the tokens of a batch over devices, which would let a token's routing depend on other sequences and on how a prompt is cut",
                    {}};
    info.adopts = {"softmax_topk", "qwen3_moe", "glam", "expert_specialization", "roma_like"};
    return registration<LaserRouter>(std::move(info));
}

} // namespace spectra
