// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/spectraconfig.h"

#include "engine/checkpoint/family.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace spectra {

using Json = nlohmann::json;

void readSpectraConfig(ConfigReader &r, ModelConfig &c)
{
    using namespace limits;
    r.required("num_local_experts", c.experts, 1, kExperts);
    r.required("num_experts_per_tok", c.topK, 1, kExperts);
    if (c.topK > c.experts)
        r.fail("num_experts_per_tok", fmt::format("{} experts per token of {} experts", c.topK, c.experts));
    c.sharedExperts = 0;
    r.optional("n_shared_experts", c.sharedExperts, 0, 256);
    if (!r.has("moe_layers"))
        r.fail("moe_layers", "is missing");
    r.indices("moe_layers", c.moeLayers, c.layers);
    if (r.ok() && c.moeLayers.empty())
        r.fail("moe_layers", "is empty: a model without experts has its base family's model_type");
    c.expertIntermediate = c.intermediate;
    r.optional("moe_intermediate_size", c.expertIntermediate, 1, kIntermediate);
    c.sharedIntermediate = std::min(c.sharedExperts * c.intermediate, kIntermediate);
    r.optional("shared_expert_intermediate_size", c.sharedIntermediate, 0, kIntermediate);
    if (c.sharedExperts == 0)
        c.sharedIntermediate = 0;
    else if (c.sharedIntermediate == 0)
        r.fail("shared_expert_intermediate_size", "is 0, but there are shared experts");
    constexpr double most = 1e6;
    r.optional("routed_scaling_factor", c.routedScalingFactor, -most, most);
    r.optional("shared_scaling_factor", c.sharedScalingFactor, -most, most);
    r.optional("norm_topk_prob", c.normalizeTopK);
    const auto router = r.object().find("router");
    if (router == r.object().end() || !router->is_object() || !router->contains("type") || !(*router)["type"].is_string())
        return r.fail("router", "must be an object with a \"type\"");
    c.routerJson = router->dump(-1, ' ', false, Json::error_handler_t::replace);
    const auto note = r.object().find("upcycling");
    if (note == r.object().end() || note->is_null())
        return;
    if (!note->is_object())
        return r.fail("upcycling", "must be an object");
    ConfigReader u(*note, r.where() + ": upcycling");
    u.optional("note", c.upcyclingNote);
    u.optional("training_step", c.trainingStep, 0, std::numeric_limits<std::int64_t>::max() / 2);
    u.optional("router_trained", c.routerTrained);
    u.optional("router_calibrated", c.routerCalibrated);
    if (auto result = u.result(); !result.ok())
        r.fail("upcycling", result.error().where + " " + result.error().what);
}

void bindSpectraFeedForward(TensorBinder &b, const ModelConfig &c, std::int64_t layer)
{
    if (!std::binary_search(c.moeLayers.begin(), c.moeLayers.end(), layer))
        return bindGatedFeedForward(b, c, layer);
    const std::string mlp = fmt::format("model.layers.{}.mlp.", layer);
    ExpertNames names;
    names.perExpert = {{mlp + "experts.{}.gate_proj.weight", mlp + "experts.{}.up_proj.weight", mlp + "experts.{}.down_proj.weight"}};
    b.experts(layer, names, c.experts, c.expertIntermediate, c.hidden);
    const auto biases = [&](const std::string &ffn, std::int64_t intermediate) { // of FFNs that had them before upcycling
        b.tensor(ffn + "gate_proj.bias", {}, {intermediate});
        b.tensor(ffn + "up_proj.bias", {}, {intermediate});
        b.tensor(ffn + "down_proj.bias", {}, {c.hidden});
    };
    for (std::int64_t e = 0; c.mlpBias && e < c.experts; ++e)
        biases(mlp + fmt::format("experts.{}.", e), c.expertIntermediate);
    if (c.mlpBias && c.sharedExperts > 0)
        biases(mlp + "shared_expert.", c.sharedIntermediate);
    if (c.sharedExperts > 0) {
        b.tensor(mlp + "shared_expert.gate_proj.weight", {}, {c.sharedIntermediate, c.hidden});
        b.tensor(mlp + "shared_expert.up_proj.weight", {}, {c.sharedIntermediate, c.hidden});
        b.tensor(mlp + "shared_expert.down_proj.weight", {}, {c.hidden, c.sharedIntermediate});
    }
}

void bindSpectraRouters(TensorBinder &b, const ModelConfig &c)
{
    b.passThrough("model.router.");
    for (const std::int64_t layer : c.moeLayers)
        b.passThrough(fmt::format("model.layers.{}.mlp.router.", layer));
}

} // namespace spectra
