// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/tensorbinder.h"

#include <fmt/format.h>

namespace spectra {

void readLlamaLikeConfig(ConfigReader &r, ModelConfig &c)
{
    using namespace limits;
    r.required("hidden_size", c.hidden, 1, kHidden);
    r.required("num_hidden_layers", c.layers, 1, kLayers);
    r.required("num_attention_heads", c.heads, 1, kHeads);
    r.required("vocab_size", c.vocabulary, 1, kVocabulary);
    r.required("intermediate_size", c.intermediate, 1, kIntermediate);
    c.kvHeads = c.heads;
    r.optional("num_key_value_heads", c.kvHeads, 1, kHeads);
    if (c.heads > 0 && c.kvHeads > 0 && c.heads % c.kvHeads != 0)
        r.fail("num_key_value_heads", fmt::format("{} key-value heads do not divide {} heads", c.kvHeads, c.heads));
    c.headDim = c.heads > 0 ? c.hidden / c.heads : 0;
    if (!r.has("head_dim") && c.heads > 0 && c.hidden % c.heads != 0)
        r.fail("num_attention_heads", fmt::format("{} heads do not divide hidden_size {}", c.heads, c.hidden));
    r.optional("head_dim", c.headDim, 1, kHeadDim);
    if (c.headDim % 2 != 0)
        r.fail("head_dim", fmt::format("is odd ({}): rotary embedding turns pairs", c.headDim));
    c.context = 2048;
    r.optional("max_position_embeddings", c.context, 1, kContext);
    c.normEpsilon = 1e-6;
    r.optional("rms_norm_eps", c.normEpsilon, 0, 1);
    r.optional("tie_word_embeddings", c.tiedHead);
    r.optional("attention_bias", c.attentionBias);
    r.optional("mlp_bias", c.mlpBias);
    r.optional("sliding_window", c.slidingWindow, 0, kContext);
    r.optional("hidden_act", c.activation);
    if (c.activation == "swish")
        c.activation = "silu";
    if (c.activation != "silu")
        r.fail("hidden_act", "the activation '" + c.activation + "' is not supported: silu is");
    r.rope(c.rope, c.context, c.headDim);
    r.tokenIds("bos_token_id", c.bosIds, c.vocabulary);
    r.tokenIds("eos_token_id", c.eosIds, c.vocabulary);
}

void bindLlamaLikeLayer(TensorBinder &b, const ModelConfig &c, std::int64_t layer)
{
    const std::string hf = fmt::format("model.layers.{}.", layer), gguf = fmt::format("blk.{}.", layer);
    const std::int64_t q = c.heads * c.headDim, kv = c.kvHeads * c.headDim;
    b.tensor(hf + "input_layernorm.weight", gguf + "attn_norm.weight", {c.hidden});
    b.queryKey(hf + "self_attn.q_proj.weight", gguf + "attn_q.weight", {q, c.hidden}, c.heads);
    b.queryKey(hf + "self_attn.k_proj.weight", gguf + "attn_k.weight", {kv, c.hidden}, c.kvHeads);
    b.tensor(hf + "self_attn.v_proj.weight", gguf + "attn_v.weight", {kv, c.hidden});
    b.tensor(hf + "self_attn.o_proj.weight", gguf + "attn_output.weight", {c.hidden, q});
    if (c.attentionBias) {
        b.queryKey(hf + "self_attn.q_proj.bias", gguf + "attn_q.bias", {q}, c.heads);
        b.queryKey(hf + "self_attn.k_proj.bias", gguf + "attn_k.bias", {kv}, c.kvHeads);
        b.tensor(hf + "self_attn.v_proj.bias", gguf + "attn_v.bias", {kv});
        b.tensor(hf + "self_attn.o_proj.bias", gguf + "attn_output.bias", {c.hidden});
    }
    b.tensor(hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight", {c.hidden});
}

void bindLlamaLikeOuter(TensorBinder &b, const ModelConfig &c)
{
    b.tensor("model.embed_tokens.weight", "token_embd.weight", {c.vocabulary, c.hidden});
    b.tensor("model.norm.weight", "output_norm.weight", {c.hidden});
    if (!c.tiedHead)
        b.tensor("lm_head.weight", "output.weight", {c.vocabulary, c.hidden});
}

void bindGatedFeedForward(TensorBinder &b, const ModelConfig &c, std::int64_t layer)
{
    const std::string hf = fmt::format("model.layers.{}.mlp.", layer), gguf = fmt::format("blk.{}.ffn_", layer);
    b.tensor(hf + "gate_proj.weight", gguf + "gate.weight", {c.intermediate, c.hidden});
    b.tensor(hf + "up_proj.weight", gguf + "up.weight", {c.intermediate, c.hidden});
    b.tensor(hf + "down_proj.weight", gguf + "down.weight", {c.hidden, c.intermediate});
    if (c.mlpBias) {
        b.tensor(hf + "gate_proj.bias", gguf + "gate.bias", {c.intermediate});
        b.tensor(hf + "up_proj.bias", gguf + "up.bias", {c.intermediate});
        b.tensor(hf + "down_proj.bias", gguf + "down.bias", {c.hidden});
    }
}

Family llamaFamily()
{
    Family f;
    f.info = {"llama", "Llama (LLaMA-2, LLaMA-3, SmolLM2)", "safetensors, GGUF", "Touvron et al., arXiv 2307.09288"};
    f.modelTypes = {"llama"};
    f.ggufArchitecture = "llama";
    f.ggufPermutesQueryKey = true;
    f.readConfig = readLlamaLikeConfig;
    f.bindLayer = bindLlamaLikeLayer;
    f.bindFeedForward = bindGatedFeedForward;
    f.bindOuter = bindLlamaLikeOuter;
    return f;
}

} // namespace spectra
