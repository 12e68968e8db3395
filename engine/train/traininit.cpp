// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/traininit.h"

#include "engine/core/files.h"
#include "engine/core/random.h"

#include <algorithm>
#include <cmath>

namespace spectra::train {
namespace {

using torch::Tensor;

/// FNV-1a (Fowler, Noll, Vo), 64 bits: a stream of draws for each name.
std::uint64_t streamOf(const std::string &name)
{
    std::uint64_t h = 0xCBF29CE484222325ull;
    for (const char c : name)
        h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ull;
    return h;
}

class Maker {
public:
    Maker(const ModelConfig &config, std::uint64_t seed) : m_config(config), m_seed(seed) {}

    /// Draws the matrix of that checkpoint name into a contiguous place.
    void draw(const Tensor &place, const std::string &name, double deviation) const
    {
        Random random(m_seed, streamOf(name));
        float *const values = place.data_ptr<float>();
        for (std::int64_t i = 0; i < place.numel(); ++i)
            values[i] = static_cast<float>(deviation * random.normal());
    }
    void ffn(const Tensor &gateUp, const Tensor &down, const std::string &prefix) const
    {
        const std::int64_t intermediate = gateUp.size(0) / 2;
        draw(gateUp.narrow(0, 0, intermediate), prefix + "gate_proj.weight", kDeviation);
        draw(gateUp.narrow(0, intermediate, intermediate), prefix + "up_proj.weight", kDeviation);
        draw(down, prefix + "down_proj.weight", residualDeviation());
    }
    [[nodiscard]] FfnWeights single(std::int64_t intermediate, const std::string &prefix) const
    {
        FfnWeights f;
        f.intermediate = intermediate;
        f.gateUp = torch::empty({2 * intermediate, m_config.hidden});
        f.down = torch::empty({m_config.hidden, intermediate});
        ffn(f.gateUp, f.down, prefix);
        if (m_config.mlpBias) {
            f.gateUpBias = torch::zeros({2 * intermediate});
            f.downBias = torch::zeros({m_config.hidden});
        }
        return f;
    }
    [[nodiscard]] FfnWeights bank(const std::string &prefix) const
    {
        const std::int64_t e = m_config.experts, i = m_config.expertIntermediate, h = m_config.hidden;
        FfnWeights f;
        f.intermediate = i;
        f.gateUp = torch::empty({e, 2 * i, h});
        f.down = torch::empty({e, h, i});
        for (std::int64_t n = 0; n < e; ++n)
            ffn(f.gateUp[n], f.down[n], prefix + std::to_string(n) + ".");
        if (m_config.mlpBias) {
            f.gateUpBias = torch::zeros({e, 2 * i});
            f.downBias = torch::zeros({e, h});
        }
        return f;
    }
    [[nodiscard]] LayerWeights layer(std::int64_t index) const
    {
        const ModelConfig &c = m_config;
        const std::string prefix = "model.layers." + std::to_string(index) + ".", attention = prefix + "self_attn.";
        const std::int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
        LayerWeights w;
        if (const auto at = std::find(c.moeLayers.begin(), c.moeLayers.end(), index); c.moe() && at != c.moeLayers.end())
            w.ordinal = static_cast<int>(at - c.moeLayers.begin());
        w.inputNorm = torch::ones({c.hidden});
        w.postNorm = torch::ones({c.hidden});
        w.qkv = torch::empty({q + 2 * kv, c.hidden});
        draw(w.qkv.narrow(0, 0, q), attention + "q_proj.weight", kDeviation);
        draw(w.qkv.narrow(0, q, kv), attention + "k_proj.weight", kDeviation);
        draw(w.qkv.narrow(0, q + kv, kv), attention + "v_proj.weight", kDeviation);
        w.output = torch::empty({c.hidden, q});
        draw(w.output, attention + "o_proj.weight", residualDeviation());
        if (c.attentionBias) {
            w.qkvBias = torch::zeros({q + 2 * kv});
            w.outputBias = torch::zeros({c.hidden});
        }
        if (w.ordinal < 0) {
            w.dense = single(c.intermediate, prefix + "mlp.");
            return w;
        }
        w.experts = bank(prefix + "mlp.experts.");
        if (c.sharedExperts > 0)
            w.shared = single(c.sharedIntermediate, prefix + "mlp.shared_expert.");
        return w;
    }

    static constexpr double kDeviation = 0.02;

private:
    /// 2L branches add to the residual stream: its variance stays that of one (Radford et al. 2019).
    [[nodiscard]] double residualDeviation() const { return kDeviation / std::sqrt(2.0 * static_cast<double>(m_config.layers)); }

    const ModelConfig &m_config;
    std::uint64_t m_seed;
};

class Lister {
public:
    std::vector<TrainParameter> list;

    void add(const std::string &name, const Tensor &value, ParameterGroup group, std::int64_t layer, bool bias = false)
    {
        if (!value.defined())
            return;
        const bool matrix = value.dim() >= 2 && !bias;
        list.push_back({name, value, group, matrix, matrix && layer >= 0 && group != ParameterGroup::router, layer});
    }
    void ffn(const std::string &prefix, const FfnWeights &f, ParameterGroup group, std::int64_t layer)
    {
        add(prefix + "gate_up", f.gateUp, group, layer);
        add(prefix + "down", f.down, group, layer);
        add(prefix + "gate_up_bias", f.gateUpBias, group, layer, true);
        add(prefix + "down_bias", f.downBias, group, layer, true);
    }
};

} // namespace

Result<void> checkTrainable(const ModelConfig &c, bool fromFile)
{
    const auto wrong = [&](const std::string &key, const std::string &what) {
        return fromFile ? inputError(what, "config.json: " + key) : usageError(what, "model: " + key);
    };
    const auto positive = [](std::int64_t v) { return v > 0 && v < (std::int64_t(1) << 31); };
    if (!positive(c.vocabulary) || !positive(c.hidden) || !positive(c.layers) || !positive(c.heads) || !positive(c.kvHeads) || !positive(c.headDim))
        return wrong("sizes", "vocabulary, hidden size, layers, heads and head size must be positive");
    if (c.heads % c.kvHeads != 0)
        return wrong("kv_heads", "the number of heads (" + std::to_string(c.heads) + ") is not a multiple of the number of key-value heads ("
                                     + std::to_string(c.kvHeads) + ")");
    if (c.headDim % 2 != 0)
        return wrong("head_dim", "the head size must be even: rotary embedding turns pairs");
    if (c.activation != "silu" && c.activation != "swish")
        return wrong("hidden_act", "this activation is not supported: " + c.activation);
    if (!(c.normEpsilon >= 0) || !std::isfinite(c.normEpsilon))
        return wrong("norm_epsilon", "must be a number that is not negative");
    const auto moeLayers = static_cast<std::int64_t>(c.moe() ? c.moeLayers.size() : 0);
    if (moeLayers < c.layers && !positive(c.intermediate))
        return wrong("intermediate", "layers without experts need an FFN size");
    if (!c.moe())
        return {};
    if (!positive(c.experts) || !positive(c.expertIntermediate))
        return wrong("experts", "experts and their sizes must be positive");
    if (c.topK < 1 || c.topK > c.experts)
        return wrong("top_k", "experts per token (" + std::to_string(c.topK) + ") must lie between 1 and the number of experts ("
                                  + std::to_string(c.experts) + ")");
    if (c.sharedExperts > 0 && !positive(c.sharedIntermediate))
        return wrong("shared", "shared experts need an FFN size");
    std::int64_t before = -1;
    for (const std::int64_t l : c.moeLayers) {
        if (l <= before || l >= c.layers)
            return wrong("moe_layers", "layers must ascend and lie inside the model");
        before = l;
    }
    return {};
}

Result<void> fitsMemory(const ModelConfig &config, const std::string &file)
{
    const std::uint64_t need = estimateMemory(config, Compute::f32).weights, room = availableMemory();
    const auto mebibytes = [](std::uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
    if (need > room)
        return inputError("too large for this machine: the weights need " + mebibytes(need) + ", " + mebibytes(room) + " are free", file,
                          "Use a smaller model or free some memory");
    return {};
}

RouterShape routerShape(const ModelConfig &c)
{
    RouterShape shape;
    shape.hidden = c.hidden;
    shape.experts = c.experts;
    shape.topK = c.topK;
    shape.moeLayers = c.moeLayers;
    shape.vocabulary = c.vocabulary;
    return shape;
}

Result<std::unique_ptr<Router>> routerOf(const Checkpoint &checkpoint, const ModelConfig &config, std::uint64_t seed)
{
    const RouterShape shape = routerShape(config);
    SPECTRA_TRY(std::unique_ptr<Router> fresh, makeRouter(config.routerJson, shape, seed));
    const auto parameters = fresh->parameters();
    const bool stored = std::any_of(parameters.begin(), parameters.end(), [&](const auto &p) { return checkpoint.find(p.first) != nullptr; });
    if (!parameters.empty() && !stored)
        return fresh;
    return loadRouter(config.routerJson, shape, [&](const std::string &name, const std::vector<std::int64_t> &tensorShape) {
        return readTensor(checkpoint, name, tensorShape);
    });
}

Weights freshWeights(const ModelConfig &config, std::uint64_t seed)
{
    const Maker maker(config, seed);
    Weights w;
    w.embedding = torch::empty({config.vocabulary, config.hidden});
    maker.draw(w.embedding, "model.embed_tokens.weight", Maker::kDeviation);
    w.head = w.embedding;
    if (!config.tiedHead) {
        w.head = torch::empty({config.vocabulary, config.hidden});
        maker.draw(w.head, "lm_head.weight", Maker::kDeviation);
    }
    w.finalNorm = torch::ones({config.hidden});
    for (std::int64_t l = 0; l < config.layers; ++l)
        w.layers.push_back(maker.layer(l));
    return w;
}

std::vector<TrainParameter> trainedParameters(const ModelConfig &config, const Weights &weights, const Router *router)
{
    Lister lister;
    lister.add("model.embed_tokens.weight", weights.embedding, ParameterGroup::other, -1);
    for (std::size_t l = 0; l < weights.layers.size(); ++l) {
        const LayerWeights &w = weights.layers[l];
        const auto layer = static_cast<std::int64_t>(l);
        const std::string prefix = "model.layers." + std::to_string(l) + ".", attention = prefix + "self_attn.";
        lister.add(prefix + "input_layernorm.weight", w.inputNorm, ParameterGroup::other, layer);
        lister.add(attention + "qkv.weight", w.qkv, ParameterGroup::other, layer);
        lister.add(attention + "qkv.bias", w.qkvBias, ParameterGroup::other, layer, true);
        lister.add(attention + "o_proj.weight", w.output, ParameterGroup::other, layer);
        lister.add(attention + "o_proj.bias", w.outputBias, ParameterGroup::other, layer, true);
        lister.add(prefix + "post_attention_layernorm.weight", w.postNorm, ParameterGroup::other, layer);
        lister.ffn(prefix + "mlp.", w.dense, ParameterGroup::other, layer);
        lister.ffn(prefix + "mlp.experts.", w.experts, ParameterGroup::experts, layer);
        lister.ffn(prefix + "mlp.shared_expert.", w.shared, ParameterGroup::experts, layer);
    }
    lister.add("model.norm.weight", weights.finalNorm, ParameterGroup::other, -1);
    if (!config.tiedHead)
        lister.add("lm_head.weight", weights.head, ParameterGroup::other, -1);
    if (!router)
        return std::move(lister.list);
    for (const auto &[name, value] : router->parameters()) {
        std::int64_t layer = -1;
        for (const std::int64_t l : config.moeLayers)
            if (name.starts_with("model.layers." + std::to_string(l) + "."))
                layer = l;
        lister.add(name, value, ParameterGroup::router, layer, name.ends_with("bias") || name.find(".bias_") != std::string::npos);
    }
    return std::move(lister.list);
}

} // namespace spectra::train
