// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/layertensorrouter.h"
#include "engine/router/registration.h"
#include "engine/router/routerinit.h"

#include <algorithm>
#include <cmath>

namespace spectra {
namespace {

struct DomainGmmOptions {
    int latentDim = 32, components = 16;
    double nllCoef = 0.01, reconstructionCoef = 1;
    bool nllToEncoder = true;
};

constexpr double kVarianceFloor = 1e-3;

/// Input-domain-aware routing (arXiv 2510.16448): tokens are encoded into a small latent space with a density of Gaussians, m of them for
/// each expert; p(z) = Σ_e Σ_m π_em N(z; μ_em, σ²_em), and a token's experts are those with the largest posterior γ_e = Σ_m π N / p(z).
/// The router learns from the likelihood and from reconstruction alone: neither does the task's loss reach it, nor its loss the model.
class DomainGmmRouter : public LayerTensorRouter {
public:
    using Options = DomainGmmOptions;
    DomainGmmRouter(std::string name, Options options, RouterShape shape)
        : LayerTensorRouter(std::move(name), shape,
                            {{"encoder.weight", {options.latentDim, shape.hidden}},
                             {"encoder.bias", {options.latentDim}},
                             {"decoder.weight", {shape.hidden, options.latentDim}},
                             {"decoder.bias", {shape.hidden}},
                             {"mixture.logits", {shape.experts, options.components}},
                             {"mixture.means", {shape.experts, options.components, options.latentDim}},
                             {"mixture.log_variances", {shape.experts, options.components, options.latentDim}}}),
          m_options(options)
    {
    }

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"latent_dim", &Options::latentDim, "size of the latent space", 2, 65536, false, {}, true},
            {"components", &Options::components, "Gaussians per expert", 1, 65536, false, {}, true},
            {"nll_loss_coef", &Options::nllCoef, "coefficient of the mean −log p(z)", 0, 1000},
            {"reconstruction_loss_coef", &Options::reconstructionCoef, "coefficient of the mean squared error of the reconstruction", 0, 1000},
            {"nll_to_encoder", &Options::nllToEncoder, "the likelihood shapes the latent space too; else only the mixture follows it"},
        };
        return fields;
    }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        const torch::Tensor x = input.x.detach();
        RoutingStep step;
        if (input.training)
            addLosses(step, input, x);
        const torch::NoGradGuard noGrad;
        const auto &w = tensors(input.layer);
        step.logits = expertDensities(encode(x, w), w);
        step.probabilities = torch::softmax(step.logits, -1);
        step.selection = step.logits; // same order as the posterior, but two posteriors of 0 still differ
        step.experts = topKColumns(step.logits, m_shape.topK);
        step.weights = torch::softmax(step.logits.gather(1, step.experts), -1);
        return step;
    }

protected:
    [[nodiscard]] std::vector<torch::Tensor> fresh(std::uint64_t seed, std::uint64_t stream) const override
    {
        const std::int64_t h = m_shape.hidden, d = m_options.latentDim, e = m_shape.experts, m = m_options.components;
        const double spread = 1 / std::sqrt(static_cast<double>(h));
        return {normalTensor(d, h, spread, seed, 3 * stream),
                torch::zeros({d}),
                normalTensor(h, d, 1 / std::sqrt(static_cast<double>(d)), seed, 3 * stream + 1),
                torch::zeros({h}),
                torch::zeros({e, m}),
                normalTensor(e * m, d, 1, seed, 3 * stream + 2).view({e, m, d}),
                torch::zeros({e, m, d})};
    }

private:
    enum Part : std::size_t { EncoderWeight, EncoderBias, DecoderWeight, DecoderBias, Logits, Means, LogVariances };
    using Tensors = std::vector<torch::Tensor>;

    /// [N,d] with mean 0 and variance 1 over the dimensions: of a free scale the likelihood would make ever less.
    [[nodiscard]] torch::Tensor encode(const torch::Tensor &x, const Tensors &w) const
    {
        return torch::layer_norm(torch::linear(x, w[EncoderWeight], w[EncoderBias]), {m_options.latentDim}, {}, {}, 1e-5);
    }

    /// log Σ_m π_em N(z; μ_em, σ²_em) of each token and expert [N,E]. The square is multiplied out, so that no [N,E·m,d] is made; z and μ
    /// have a length of about √d, so that little is lost.
    [[nodiscard]] torch::Tensor expertDensities(const torch::Tensor &z, const Tensors &w) const
    {
        const torch::Tensor means = w[Means].flatten(0, 1), variance = kVarianceFloor + torch::exp(w[LogVariances].flatten(0, 1)), precision = 1 / variance;
        const torch::Tensor distance = torch::matmul(z.square(), precision.t()) - 2 * torch::matmul(z, (means * precision).t()) + (means.square() * precision).sum(1);
        const torch::Tensor norm = torch::log(variance).sum(1) + m_options.latentDim * std::log(2 * M_PI);
        const torch::Tensor share = torch::log_softmax(w[Logits].flatten(), 0);
        return torch::logsumexp((share - 0.5 * (norm + distance)).view({z.size(0), m_shape.experts, m_options.components}), -1);
    }

    void addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &all) const
    {
        const torch::Tensor x = countedRows(all, input);
        if (x.size(0) == 0)
            return;
        const auto &w = tensors(input.layer);
        const torch::Tensor z = encode(x, w);
        step.losses["nll"] = -m_options.nllCoef * torch::logsumexp(expertDensities(m_options.nllToEncoder ? z : z.detach(), w), -1).mean();
        step.losses["reconstruction"] = m_options.reconstructionCoef * (torch::linear(z, w[DecoderWeight], w[DecoderBias]) - x).square().mean();
    }

    Options m_options;
};

} // namespace

RouterRegistration domainGmmEntry()
{
    return registration<DomainGmmRouter>(
        {"domain_gmm", "Input-domain-aware routing: a Gaussian mixture over a latent space", "after Input Domain Aware MoE, arXiv 2510.16448 (abstract and summaries)", true,
         "from the paper: autoencoder, mixture of up to 16 Gaussians per expert, top-k on the posterior, no gradient from the task. Ours: encoder and decoder are linear; the latent (size "
         "32) is normalised per token to mean 0 and variance 1, since a likelihood of a latent of free scale grows without end as the scale shrinks; covariances are diagonal with "
         "variances 0.001 + exp(s); weights are the posteriors of the chosen over their sum; coefficients 0.01 and 1, no warm-up, no load-balancing term. The router's gradient is its "
         "own losses' alone: x enters them detached",
         {}});
}

} // namespace spectra
