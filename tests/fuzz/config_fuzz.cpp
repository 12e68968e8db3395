// SPDX-License-Identifier: GPL-3.0-or-later
// config.json and, after a zero byte, model.safetensors.index.json.
#include "checkpointfuzz.h"

#include <string_view>

namespace {

/// One layer of width 4 under every name that a configuration could ask for, so that reading goes on past the first tensor.
std::string weights()
{
    struct Entry {
        const char *name, *shape;
        int elements;
    };
    std::string header = "{", layer = "model.layers.0.";
    int at = 0;
    for (const Entry &e : {Entry{"model.embed_tokens.weight", "[5,4]", 20}, Entry{"lm_head.weight", "[5,4]", 20}, Entry{"model.norm.weight", "[4]", 4},
                           Entry{"model.layers.0.input_layernorm.weight", "[4]", 4}, Entry{"model.layers.0.post_attention_layernorm.weight", "[4]", 4},
                           Entry{"model.layers.0.self_attn.q_proj.weight", "[4,4]", 16}, Entry{"model.layers.0.self_attn.k_proj.weight", "[4,4]", 16},
                           Entry{"model.layers.0.self_attn.v_proj.weight", "[4,4]", 16}, Entry{"model.layers.0.self_attn.o_proj.weight", "[4,4]", 16},
                           Entry{"model.layers.0.mlp.gate_proj.weight", "[3,4]", 12}, Entry{"model.layers.0.mlp.up_proj.weight", "[3,4]", 12},
                           Entry{"model.layers.0.mlp.down_proj.weight", "[4,3]", 12}, Entry{"model.layers.0.mlp.gate.weight", "[2,4]", 8},
                           Entry{"model.layers.0.mlp.experts.gate_up_proj", "[2,6,4]", 48}, Entry{"model.layers.0.mlp.experts.down_proj", "[2,4,3]", 24}}) {
        const int end = at + 4 * e.elements;
        header += std::string(at > 0 ? "," : "") + '"' + e.name + R"(":{"dtype":"F32","shape":)" + e.shape + R"(,"data_offsets":[)"
            + std::to_string(at) + "," + std::to_string(end) + "]}";
        at = end;
    }
    header += "}";
    std::string out;
    for (int i = 0; i < 8; ++i)
        out += static_cast<char>(header.size() >> (8 * i) & 0xFF);
    return out + header + std::string(static_cast<std::size_t>(at), '\0');
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    static const std::string file = weights();
    const std::string_view text(reinterpret_cast<const char *>(data), size);
    const std::size_t zero = text.find('\0');
    const std::string config(text.substr(0, zero));
    std::string index;
    if (zero != std::string_view::npos) {
        index = text.substr(zero + 1);
        const auto names = spectra::shardNames(index);
        if (!names.ok() || names->size() > 16)
            index.clear();
    }
    std::vector<spectra::DataFile> files = {spectra::fuzz::file(reinterpret_cast<const std::uint8_t *>(file.data()), file.size())};
    files[0].name = "model.safetensors";
    spectra::fuzz::use(spectra::openSafetensors("model", config, std::move(files), index));
    return 0;
}
