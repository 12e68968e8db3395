// SPDX-License-Identifier: GPL-3.0-or-later
#include "checkpointfuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    static const std::string dense = R"({"model_type":"llama","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,
        "intermediate_size":3,"vocab_size":5,"tie_word_embeddings":true})";
    static const std::string experts = R"({"model_type":"mixtral","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,
        "intermediate_size":3,"vocab_size":5,"tie_word_embeddings":true,"num_local_experts":2})";
    static const std::string ours = R"({"model_type":"spectra","base_model_type":"llama","hidden_size":4,"num_hidden_layers":1,"num_attention_heads":2,
        "num_key_value_heads":1,"intermediate_size":3,"vocab_size":5,"tie_word_embeddings":true,"num_local_experts":2,"num_experts_per_tok":1,
        "moe_layers":[0],"router":{"type":"spectra"}})";
    for (const std::string &config : {dense, experts, ours})
        spectra::fuzz::use(spectra::openSafetensors("model", config, {spectra::fuzz::file(data, size)}, ""));
    return 0;
}
