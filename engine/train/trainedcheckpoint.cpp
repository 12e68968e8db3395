// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainedcheckpoint.h"

#include "engine/core/files.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace spectra {

using Json = nlohmann::ordered_json;

namespace {

Json ropeJson(const ModelConfig &c)
{
    const RopeConfig &r = c.rope;
    Json j = {{"rope_type", r.scaling == "none" ? "default" : r.scaling}, {"rope_theta", r.theta}};
    if (r.partialFactor != 1)
        j["partial_rotary_factor"] = r.partialFactor;
    if (r.scaling == "none")
        return j;
    j["factor"] = r.factor;
    if (r.originalContext > 0)
        j["original_max_position_embeddings"] = static_cast<std::int64_t>(r.originalContext);
    if (r.scaling == "llama3") {
        j["low_freq_factor"] = r.lowFrequencyFactor;
        j["high_freq_factor"] = r.highFrequencyFactor;
    }
    if (r.scaling == "yarn") {
        j["beta_fast"] = r.betaFast;
        j["beta_slow"] = r.betaSlow;
        j["truncate"] = r.yarnTruncate;
        if (r.attentionFactor)
            j["attention_factor"] = *r.attentionFactor;
    }
    return j;
}

Json idsJson(const std::vector<std::int64_t> &ids)
{
    if (ids.empty())
        return nullptr;
    return ids.size() == 1 ? Json(ids.front()) : Json(ids);
}

} // namespace

std::string llamaConfigJson(const ModelConfig &c)
{
    Json j = {
        {"architectures", {"LlamaForCausalLM"}},
        {"model_type", "llama"},
        {"vocab_size", c.vocabulary},
        {"hidden_size", c.hidden},
        {"intermediate_size", std::max<std::int64_t>(1, c.intermediate)}, // readers ask for one even where every layer has experts
        {"num_hidden_layers", c.layers},
        {"num_attention_heads", c.heads},
        {"num_key_value_heads", c.kvHeads},
        {"head_dim", c.headDim},
        {"max_position_embeddings", c.context},
        {"rms_norm_eps", c.normEpsilon},
        {"hidden_act", "silu"},
        {"tie_word_embeddings", c.tiedHead},
        {"attention_bias", c.attentionBias},
        {"mlp_bias", c.mlpBias},
        {"rope_theta", c.rope.theta},
        {"rope_parameters", ropeJson(c)},
        {"bos_token_id", idsJson(c.bosIds)},
        {"eos_token_id", idsJson(c.eosIds)},
        {"torch_dtype", "float32"},
    };
    if (c.slidingWindow > 0)
        j["sliding_window"] = c.slidingWindow;
    if (!c.rope.frequencyFactors.empty())
        j["rope_frequency_factors"] = c.rope.frequencyFactors;
    return j.dump(2) + "\n";
}

TrainedCheckpoint::TrainedCheckpoint(ModelConfig config, const std::string &baseConfigJson, const Weights &weights,
                                     const std::map<std::string, torch::Tensor> &extra, bool copy)
    : m_path(config.name.empty() ? "trained model" : config.name), m_config(std::move(config)), m_copy(copy)
{
    m_configJson = folderConfigJson(m_config, baseConfigJson.empty() ? llamaConfigJson(m_config) : baseConfigJson);
    put("model.embed_tokens.weight", weights.embedding);
    for (std::size_t l = 0; l < weights.layers.size(); ++l)
        putLayer("model.layers." + std::to_string(l) + ".", weights.layers[l]);
    put("model.norm.weight", weights.finalNorm);
    if (!m_config.tiedHead)
        put("lm_head.weight", weights.head);
    for (const auto &[name, values] : extra)
        put(name, values);
}

void TrainedCheckpoint::put(const std::string &name, const torch::Tensor &values)
{
    if (!values.defined())
        return;
    torch::Tensor kept = values.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    if (m_copy && kept.data_ptr() == values.data_ptr())
        kept = kept.clone();
    TensorInfo info{name, name, DType::f32, values.sizes().vec(), kept.nbytes(), {}};
    m_index[name] = m_tensors.size();
    m_tensors.push_back(std::move(info));
    m_values.push_back(std::move(kept));
}

void TrainedCheckpoint::putFfn(const std::string &prefix, const torch::Tensor &gateUp, const torch::Tensor &down, const torch::Tensor &gateUpBias,
                               const torch::Tensor &downBias)
{
    const std::int64_t intermediate = gateUp.size(0) / 2;
    put(prefix + "gate_proj.weight", gateUp.narrow(0, 0, intermediate));
    put(prefix + "up_proj.weight", gateUp.narrow(0, intermediate, intermediate));
    put(prefix + "down_proj.weight", down);
    if (gateUpBias.defined()) {
        put(prefix + "gate_proj.bias", gateUpBias.narrow(0, 0, intermediate));
        put(prefix + "up_proj.bias", gateUpBias.narrow(0, intermediate, intermediate));
    }
    put(prefix + "down_proj.bias", downBias);
}

void TrainedCheckpoint::putLayer(const std::string &prefix, const LayerWeights &w)
{
    put(prefix + "input_layernorm.weight", w.inputNorm);
    const std::string attention = prefix + "self_attn.";
    const std::int64_t q = m_config.heads * m_config.headDim, kv = m_config.kvHeads * m_config.headDim;
    const auto projections = [&](const torch::Tensor &fused, const std::string &what) {
        if (!fused.defined())
            return;
        put(attention + "q_proj." + what, fused.narrow(0, 0, q));
        put(attention + "k_proj." + what, fused.narrow(0, q, kv));
        put(attention + "v_proj." + what, fused.narrow(0, q + kv, kv));
    };
    projections(w.qkv, "weight");
    put(attention + "o_proj.weight", w.output);
    projections(w.qkvBias, "bias");
    put(attention + "o_proj.bias", w.outputBias);
    put(prefix + "post_attention_layernorm.weight", w.postNorm);
    if (w.ordinal < 0) {
        putFfn(prefix + "mlp.", w.dense.gateUp, w.dense.down, w.dense.gateUpBias, w.dense.downBias);
        return;
    }
    const FfnWeights &f = w.experts;
    for (std::int64_t e = 0; e < f.gateUp.size(0); ++e)
        putFfn(prefix + "mlp.experts." + std::to_string(e) + ".", f.gateUp[e], f.down[e], f.gateUpBias.defined() ? f.gateUpBias[e] : torch::Tensor(),
               f.downBias.defined() ? f.downBias[e] : torch::Tensor());
    if (m_config.sharedExperts > 0)
        putFfn(prefix + "mlp.shared_expert.", w.shared.gateUp, w.shared.down, w.shared.gateUpBias, w.shared.downBias);
}

const TensorInfo *TrainedCheckpoint::find(std::string_view name) const
{
    const auto at = m_index.find(std::string(name));
    return at == m_index.end() ? nullptr : &m_tensors[at->second];
}

Result<void> TrainedCheckpoint::readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const
{
    const auto at = m_index.find(tensor.name);
    if (at == m_index.end())
        return bugError("this checkpoint has no such tensor", tensor.name);
    const torch::Tensor &values = m_values[at->second];
    const std::int64_t all = values.dim() == 0 ? 1 : values.size(0), width = all > 0 ? values.numel() / all : 0;
    const std::int64_t n = rows < 0 ? all - firstRow : rows;
    if (firstRow < 0 || n < 0 || firstRow > all || n > all - firstRow || static_cast<std::int64_t>(out.size()) != n * width)
        return bugError("rows outside the tensor", tensor.name);
    std::copy_n(values.const_data_ptr<float>() + firstRow * width, n * width, out.data());
    return {};
}

std::span<const std::byte> TrainedCheckpoint::raw(const TensorInfo &tensor) const
{
    const auto at = m_index.find(tensor.name);
    if (at == m_index.end())
        return {};
    const torch::Tensor &values = m_values[at->second];
    return {static_cast<const std::byte *>(values.const_data_ptr()), values.nbytes()};
}

Result<std::string> TrainedCheckpoint::sha256(std::stop_token stop) const
{
    Sha256 sum;
    for (const TensorInfo &tensor : m_tensors) {
        if (stop.stop_requested())
            return cancelledError();
        sum.add(raw(tensor));
    }
    return sum.hex();
}

std::vector<std::pair<std::string, std::string>> TrainedCheckpoint::metadata() const
{
    return {{"training step", std::to_string(m_config.trainingStep)}};
}

} // namespace spectra
