// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/gating.h"
#include "engine/router/registration.h"
#include "engine/router/routerinit.h"

namespace spectra {
namespace {

struct LprOptions {
    int latentDim = 16;
    double lossCoef = 0.01, diversityCoef = 1, klCoef = 0.01, alignCoef = 0.05;
};

torch::Tensor unitRows(const torch::Tensor &t)
{
    return t / t.norm(2, -1, true).clamp_min(1e-12);
}

/// mean (V Vᵀ − I)² over the n×n entries for n unit rows: ‖VVᵀ‖ = ‖VᵀV‖, so the n×n matrix need not be made.
torch::Tensor apartness(const torch::Tensor &unit)
{
    const auto n = static_cast<double>(unit.size(0));
    return (unit.t().matmul(unit).square().sum() - 2 * unit.square().sum() + n) / (n * n);
}

/// Latent prototype routing (LPR, arXiv 2506.21328): a token is encoded into a small latent space, its experts are those whose keys lie
/// at the smallest angle, and the mixture of the keys is decoded and added to what the experts read.
class LprRouter : public Router {
public:
    using Options = LprOptions;
    LprRouter(Options options, RouterShape shape) : m_options(options), m_shape(std::move(shape)) {}

    static const std::vector<OptionField<Options>> &table()
    {
        static const std::vector<OptionField<Options>> fields = {
            {"latent_dim", &Options::latentDim, "size of the latent space", 1, 65536, false, {}, true},
            {"router_kl_loss_coef", &Options::lossCoef, "coefficient of all of the router's losses together", 0, 1000},
            {"diversity_loss_coef", &Options::diversityCoef, "weight of the loss that keeps latents, and keys, at right angles", 0, 1000},
            {"kl_loss_coef", &Options::klCoef, "weight of KL(N(μ,σ²) ‖ N(0,1))", 0, 1000},
            {"align_loss_coef", &Options::alignCoef, "weight of the loss that draws keys to their tokens (Qwen3: 0.1)", 0, 1000},
        };
        return fields;
    }
    [[nodiscard]] std::string name() const override { return "lpr"; }
    [[nodiscard]] RouterNeeds needs() const override { return {}; }
    [[nodiscard]] std::string options() const override { return writeOptions(name(), m_options, table()); }

    void initialise(std::uint64_t seed)
    {
        const std::int64_t h = m_shape.hidden, d = m_options.latentDim;
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
            const std::uint64_t stream = 3 * l + 1;
            keep({torch::ones({h}), torch::zeros({h}), normalTensor(2 * d, h, 0.02, seed, stream), torch::zeros({2 * d}), normalTensor(m_shape.experts, d, 1, seed, stream + 1),
                  normalTensor(h, d, 0.02, seed, stream + 2), torch::zeros({h})});
        }
    }
    [[nodiscard]] Result<void> load(const TensorLookup &lookup)
    {
        const std::int64_t h = m_shape.hidden, d = m_options.latentDim;
        const std::vector<std::vector<std::int64_t>> shapes = {{h}, {h}, {2 * d, h}, {2 * d}, {m_shape.experts, d}, {h, d}, {h}};
        for (std::size_t l = 0; l < m_shape.moeLayers.size(); ++l) {
            std::vector<torch::Tensor> tensors;
            for (std::size_t i = 0; i < shapes.size(); ++i) {
                SPECTRA_TRY(const auto stored, storedTensor(lookup, tensorName(l, i), shapes[i]));
                tensors.push_back(stored.clone());
            }
            keep(std::move(tensors));
        }
        return {};
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> parameters() const override
    {
        std::map<std::string, torch::Tensor> map;
        for (std::size_t l = 0; l < m_layers.size(); ++l)
            for (std::size_t i = 0; i < m_layers[l].size(); ++i)
                map[tensorName(l, i)] = m_layers[l][i];
        return map;
    }
    [[nodiscard]] std::map<std::string, torch::Tensor> buffers() const override { return {}; }
    void to(torch::Device device) override
    {
        for (auto &layer : m_layers)
            for (torch::Tensor &t : layer)
                t = t.detach().to(device).set_requires_grad(true);
    }

    [[nodiscard]] RoutingStep route(const RouterInput &input, RouterState & /*state*/, Capture /*capture*/) override
    {
        const auto &w = m_layers[static_cast<std::size_t>(input.layer)];
        const torch::Tensor &keys = w[Keys];
        const torch::Tensor u = torch::silu(torch::layer_norm(input.x, {m_shape.hidden}, w[NormWeight], w[NormBias], 1e-5));
        const torch::Tensor latent = torch::linear(u, w[EncoderWeight], w[EncoderBias]);
        const torch::Tensor mean = latent.narrow(1, 0, m_options.latentDim), logVariance = latent.narrow(1, m_options.latentDim, m_options.latentDim);
        RoutingStep step;
        step.logits = step.selection = unitRows(mean).matmul(unitRows(keys).t());
        step.probabilities = torch::softmax(step.logits, -1);
        step.experts = topKColumns(step.logits, m_shape.topK);
        step.weights = torch::softmax(step.logits.gather(1, step.experts), -1);
        step.expertInput = input.x + torch::linear(step.probabilities.matmul(keys), w[DecoderWeight], w[DecoderBias]);
        if (input.training)
            addLosses(step, input, mean, logVariance, keys);
        return step;
    }

private:
    enum Part : std::size_t { NormWeight, NormBias, EncoderWeight, EncoderBias, Keys, DecoderWeight, DecoderBias };

    [[nodiscard]] std::string tensorName(std::size_t layer, std::size_t part) const
    {
        static const std::vector<std::string> names = {"norm.weight", "norm.bias", "encoder.weight", "encoder.bias", "keys", "decoder.weight", "decoder.bias"};
        return "model.layers." + std::to_string(m_shape.moeLayers[layer]) + ".mlp.router." + names[part];
    }
    void keep(std::vector<torch::Tensor> tensors)
    {
        for (torch::Tensor &t : tensors)
            t.set_requires_grad(true);
        m_layers.push_back(std::move(tensors));
    }

    void addLosses(RoutingStep &step, const RouterInput &input, const torch::Tensor &allMean, const torch::Tensor &allLogVariance, const torch::Tensor &keys) const
    {
        const torch::Tensor noise = torch::randn(allMean.sizes(), stepGenerator(input)).to(allMean.device());
        const torch::Tensor mean = countedRows(allMean, input), logVariance = countedRows(allLogVariance, input);
        if (mean.size(0) == 0)
            return;
        step.losses["diversity"] = m_options.lossCoef * m_options.diversityCoef * (apartness(unitRows(mean)) + apartness(unitRows(keys)));
        step.losses["kl"] = m_options.lossCoef * m_options.klCoef * 0.5 * (mean.square() + logVariance.exp() - logVariance - 1).sum(1).mean();
        torch::Tensor target;
        {
            const torch::NoGradGuard noGrad;
            const torch::Tensor z = mean + countedRows(noise, input) * torch::exp(0.5 * logVariance);
            const torch::Tensor scores = countedRows(step.logits, input), chosen = countedRows(step.experts, input);
            const torch::Tensor share = torch::softmax(torch::zeros_like(scores).scatter(1, chosen, scores.gather(1, chosen)), -1);
            target = share.t().matmul(z);
        }
        step.losses["align"] = m_options.lossCoef * m_options.alignCoef * (keys - target).abs().mean();
    }

    Options m_options;
    RouterShape m_shape;
    std::vector<std::vector<torch::Tensor>> m_layers; ///< tensors in the order of Part
};

} // namespace

RouterRegistration lprEntry()
{
    return registration<LprRouter>(
        {"lpr", "Latent prototype routing", "arXiv 2506.21328; losses and the decoder as its authors released them", true,
         "cosine similarity, of the latent mean: the sampled latent enters the alignment loss alone, so inference and the choice have no noise. KL is summed over the latent "
         "dimensions and averaged over tokens. The share of a token that an expert attracts is a softmax over scores with 0 for experts that were not chosen, as released. Keys "
         "train by gradient (no moving average) and are not held to the unit ball. Linear maps start at N(0, 0.02²), keys at N(0, 1)",
         {}});
}

} // namespace spectra
