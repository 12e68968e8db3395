// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/linearrouter.h"
#include "engine/router/registration.h"

namespace spectra {
namespace {

struct NoisyTopKOptions {
    double importanceCoef = 0.1, loadCoef = 0.1;
    bool noise = true;
};

/// σ²/μ² of v, population variance; 0 for a zero mean.
torch::Tensor squaredVariation(const torch::Tensor &v)
{
    return v.var(/*unbiased=*/false) / (v.mean().square() + 1e-10);
}

/// Noisy top-k gating (Shazeer et al. 2017, arXiv 1701.06538, equations 3 to 5 and appendix A): H = xW_g + N(0,1)·softplus(xW_n) in
/// training, softmax over the k largest of H; losses on the squared coefficients of variation of importance and load.
class NoisyTopKRouter : public LinearRouter {
public:
    using Options = NoisyTopKOptions;
    NoisyTopKRouter(std::string name, Options options, RouterShape shape) : LinearRouter(std::move(name), std::move(shape)), m_options(options) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"noise", &Options::noise, "in training: normal noise of learned size on the scores"},
            {"importance_loss_coef", &Options::importanceCoef, "coefficient of CV² of the summed weights per expert", 0, 1000},
            {"load_loss_coef", &Options::loadCoef, "coefficient of CV² of the smooth load per expert; needs noise and k < E", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    void initialise(std::uint64_t seed)
    {
        LinearRouter::initialise(seed);
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l)
            m_noise.push_back(torch::zeros({m_shape.experts, m_shape.hidden}).set_requires_grad(true));
    }
    [[nodiscard]] Result<void> load(const TensorLookup &lookup)
    {
        SPECTRA_CHECK(LinearRouter::load(lookup));
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
            SPECTRA_TRY(const auto w, storedTensor(lookup, tensorName(l, "noise_weight"), {m_shape.experts, m_shape.hidden}));
            m_noise.push_back(w.clone().set_requires_grad(true));
        }
        return {};
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override
    {
        auto map = LinearRouter::parameters();
        for (std::size_t l = 0; l < m_noise.size(); ++l)
            map[tensorName(l, "noise_weight")] = m_noise[l];
        return map;
    }
    void to(torch::Device device) override
    {
        LinearRouter::to(device);
        for (torch::Tensor &t : m_noise)
            t = t.detach().to(device).set_requires_grad(true);
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        RoutingStep step;
        const std::int64_t k = m_shape.topK, e = m_shape.experts;
        const torch::Tensor clean = logits(input.x, input.layer);
        torch::Tensor noisy = clean, deviation;
        if (input.training && m_options.noise) {
            deviation = torch::softplus(torch::linear(input.x, m_noise[static_cast<std::size_t>(input.layer)]));
            noisy = clean + torch::randn(clean.sizes(), stepGenerator(input)).to(clean.device()) * deviation;
        }
        step.logits = clean;
        step.selection = noisy;
        step.experts = topKColumns(noisy, k);
        step.weights = torch::softmax(noisy.gather(1, step.experts), -1);
        step.probabilities = torch::zeros_like(clean).scatter(1, step.experts, step.weights);
        if (!input.training)
            return step;
        if (m_options.importanceCoef > 0)
            step.losses["importance"] = m_options.importanceCoef * squaredVariation(countedRows(step.probabilities, input).sum(0));
        if (m_options.loadCoef > 0 && deviation.defined() && k < e) {
            // P(x,i): that i is among the k best when its noise alone is drawn again. The threshold is the k-th largest of the
            // others: the (k+1)-th of all for those within, the k-th for those without.
            const torch::Tensor sorted = std::get<0>(torch::sort(noisy, -1, true));
            const torch::Tensor within = chosenMask(step.experts, e) > 0;
            const torch::Tensor threshold = torch::where(within, sorted.narrow(1, k, 1), sorted.narrow(1, k - 1, 1));
            const torch::Tensor p = 0.5 * (1 + torch::erf((clean - threshold) / (deviation * 1.4142135623730951)));
            step.losses["load"] = m_options.loadCoef * squaredVariation(countedRows(p, input).sum(0));
        }
        return step;
    }

private:
    Options m_options;
    std::vector<torch::Tensor> m_noise; ///< W_n [E,d] per layer
};

} // namespace

RouterRegistration noisyTopKEntry()
{
    return registration<NoisyTopKRouter>({"noisy_topk", "Noisy top-k gating", "Shazeer et al. 2017, arXiv 1701.06538, equations 3 to 5, appendix A equations 8 to 11", true,
                                          "W_g starts at N(0, 0.02²) instead of 0, so that an untrained router is no tie", {}});
}

} // namespace spectra
