// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/tensorbinder.h"

#include <fmt/format.h>

#include <numeric>

namespace spectra {
namespace {

void readConfig(ConfigReader &r, ModelConfig &c)
{
    readLlamaLikeConfig(r, c);
    r.required("num_local_experts", c.experts, 1, limits::kExperts);
    c.topK = 2;
    r.optional("num_experts_per_tok", c.topK, 1, limits::kExperts);
    if (c.topK > c.experts)
        r.fail("num_experts_per_tok", fmt::format("{} experts per token of {} experts", c.topK, c.experts));
    c.expertIntermediate = c.intermediate;
    r.optional("moe_intermediate_size", c.expertIntermediate, 1, limits::kIntermediate);
    c.moeLayers.resize(static_cast<std::size_t>(c.layers));
    std::iota(c.moeLayers.begin(), c.moeLayers.end(), 0);
    c.normalizeTopK = true;
    c.routerJson = R"({"type":"softmax_topk"})";
}

void bindFeedForward(TensorBinder &b, const ModelConfig &c, std::int64_t layer)
{
    const std::string hf = fmt::format("model.layers.{}.", layer), gguf = fmt::format("blk.{}.", layer);
    b.tensor(hf + "mlp.router.weight", gguf + "ffn_gate_inp.weight", {c.experts, c.hidden},
             {hf + "block_sparse_moe.gate.weight", hf + "mlp.gate.weight"});
    ExpertNames names;
    names.perExpert = {{hf + "block_sparse_moe.experts.{}.w1.weight", hf + "block_sparse_moe.experts.{}.w3.weight",
                        hf + "block_sparse_moe.experts.{}.w2.weight"},
                       {hf + "mlp.experts.{}.gate_proj.weight", hf + "mlp.experts.{}.up_proj.weight",
                        hf + "mlp.experts.{}.down_proj.weight"}};
    names.fusedGateUp = {hf + "mlp.experts.gate_up_proj", hf + "block_sparse_moe.experts.gate_up_proj"};
    names.fusedDown = {hf + "mlp.experts.down_proj", hf + "block_sparse_moe.experts.down_proj"};
    names.gguf = gguf;
    b.experts(layer, names, c.experts, c.expertIntermediate, c.hidden);
}

} // namespace

Family mixtralFamily()
{
    Family f;
    f.info = {"mixtral", "Mixtral (sparse Mixture of Experts)", "safetensors, GGUF", "Jiang et al., arXiv 2401.04088"};
    f.modelTypes = {"mixtral"};
    f.ggufArchitecture = "llama";
    f.ggufExperts = true;
    f.ggufPermutesQueryKey = true;
    f.readConfig = readConfig;
    f.bindLayer = bindLlamaLikeLayer;
    f.bindFeedForward = bindFeedForward;
    f.bindOuter = bindLlamaLikeOuter;
    return f;
}

} // namespace spectra
