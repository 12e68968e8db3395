// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/ggufconfig.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>

namespace spectra {
namespace {

using Json = nlohmann::json;

struct Reader {
    const GgufHeader &header;
    std::string architecture;
    Json &out;
    Result<void> result;

    [[nodiscard]] const GgufValue *find(const char *key) const { return header.find(architecture + "." + key); }
    void wrong(const char *key, const std::string &what)
    {
        if (result.ok())
            result = inputError(what, "key " + architecture + "." + key);
    }
    /// A whole number, or one per layer when all are equal.
    void integer(const char *key, const char *name)
    {
        const GgufValue *v = find(key);
        if (v == nullptr)
            return;
        if (const auto n = v->integer()) {
            out[name] = *n;
            return;
        }
        const auto list = v->integers();
        if (!list || list->empty())
            return wrong(key, "must be a whole number");
        if (std::any_of(list->begin(), list->end(), [&](std::int64_t n) { return n != list->front(); }))
            return wrong(key, "differs between layers, which is not supported");
        out[name] = list->front();
    }
    void number(const char *key, const char *name, Json &target)
    {
        const GgufValue *v = find(key);
        if (v == nullptr)
            return;
        const auto n = v->number();
        if (!n)
            return wrong(key, "must be a number");
        target[name] = *n;
    }
};

} // namespace

Result<Json> ggufConfig(const GgufHeader &header, const std::vector<StoredTensor> &stored, const Family *&family)
{
    const GgufValue *architecture = header.find("general.architecture");
    if (architecture == nullptr || architecture->type != GgufValue::Type::string)
        return inputError("the key general.architecture is missing: this GGUF file holds no model");
    Json config = Json::object();
    const std::string name = printableUtf8(architecture->text.substr(0, 100));
    Reader r{header, std::string(architecture->text), config, {}};
    r.integer("expert_count", "num_local_experts");
    SPECTRA_CHECK(r.result);
    const bool experts = config.contains("num_local_experts") && config["num_local_experts"] != 0;
    if (!experts)
        config.erase("num_local_experts");
    family = familyOfGguf(architecture->text, experts);
    if (family == nullptr)
        return inputError(fmt::format("the architecture '{}'{} is not supported", name, experts ? " with experts" : ""),
                          "key general.architecture", "supported: " + familyNames());
    config["model_type"] = std::string(family->modelTypes.front());
    r.integer("embedding_length", "hidden_size");
    r.integer("block_count", "num_hidden_layers");
    r.integer("feed_forward_length", "intermediate_size");
    r.integer("attention.head_count", "num_attention_heads");
    r.integer("attention.head_count_kv", "num_key_value_heads");
    r.integer("context_length", "max_position_embeddings");
    r.integer("attention.key_length", "head_dim");
    r.integer("attention.sliding_window", "sliding_window");
    if (experts) {
        r.integer("expert_used_count", "num_experts_per_tok");
        r.integer("expert_feed_forward_length", "moe_intermediate_size");
    }
    r.number("attention.layer_norm_rms_epsilon", "rms_norm_eps", config);
    r.number("rope.freq_base", "rope_theta", config);
    SPECTRA_CHECK(r.result);

    const auto value = [&](const char *key, std::int64_t fallback) {
        return config.contains(key) ? config[key].get<std::int64_t>() : fallback;
    };
    std::int64_t headDim = value("head_dim", 0);
    if (headDim == 0 && value("num_attention_heads", 0) > 0)
        headDim = value("hidden_size", 0) / value("num_attention_heads", 1);
    if (const GgufValue *v = r.find("attention.value_length"); v != nullptr && v->integer() != headDim)
        return inputError("value heads of another size than key heads are not supported", "key " + r.architecture + ".attention.value_length");
    if (const GgufValue *v = r.find("rope.dimension_count"); v != nullptr && headDim > 0 && v->integer() != headDim) {
        const auto n = v->integer();
        if (!n || *n < 2 || *n > headDim)
            return inputError("must be from 2 to the head size", "key " + r.architecture + ".rope.dimension_count");
        config["partial_rotary_factor"] = static_cast<double>(*n) / static_cast<double>(headDim);
    }
    if (const GgufValue *v = r.find("rope.scaling.type"); v != nullptr && v->text != "none" && !v->text.empty()) {
        Json scaling = {{"rope_type", printableUtf8(v->text.substr(0, 100))}};
        r.number("rope.scaling.factor", "factor", scaling);
        r.number("rope.scaling.original_context_length", "original_max_position_embeddings", scaling);
        r.number("rope.scaling.attn_factor", "attention_factor", scaling);
        r.number("rope.scaling.yarn_beta_fast", "beta_fast", scaling);
        r.number("rope.scaling.yarn_beta_slow", "beta_slow", scaling);
        SPECTRA_CHECK(r.result);
        config["rope_scaling"] = std::move(scaling);
    }
    const auto tensor = [&](std::string_view wanted) {
        const auto it = std::find_if(stored.begin(), stored.end(), [&](const StoredTensor &t) { return t.name == wanted; });
        return it == stored.end() ? nullptr : &*it;
    };
    config["tie_word_embeddings"] = tensor("output.weight") == nullptr;
    config["attention_bias"] = tensor("blk.0.attn_q.bias") != nullptr;
    config["mlp_bias"] = tensor("blk.0.ffn_up.bias") != nullptr;
    config["hidden_act"] = "silu";
    if (const StoredTensor *embedding = tensor("token_embd.weight"); embedding != nullptr && embedding->shape.size() == 2)
        config["vocab_size"] = embedding->shape[0];
    else
        return inputError("is missing or is no matrix", "tensor token_embd.weight");
    for (const auto &[key, id] : {std::pair("tokenizer.ggml.bos_token_id", "bos_token_id"), std::pair("tokenizer.ggml.eos_token_id", "eos_token_id")})
        if (const GgufValue *v = header.find(key); v != nullptr && v->integer() && *v->integer() < config["vocab_size"].get<std::int64_t>())
            config[id] = *v->integer();
    return config;
}

} // namespace spectra
