// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/modelconfig.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>

namespace spectra {
namespace {

std::uint64_t saturated(double bytes)
{
    constexpr double most = 0x1p63;
    return bytes >= most ? std::numeric_limits<std::uint64_t>::max() : static_cast<std::uint64_t>(std::max(bytes, 0.0));
}

} // namespace

SizeEstimate estimateMemory(const ModelConfig &c, std::int64_t sequenceLength)
{
    const auto d = [](std::int64_t n) { return static_cast<double>(n); };
    const double hidden = d(c.hidden), q = d(c.heads) * d(c.headDim), kv = d(c.kvHeads) * d(c.headDim);
    const double moe = c.moe() ? d(static_cast<std::int64_t>(c.moeLayers.size())) : 0, dense = d(c.layers) - moe;
    double elements = d(c.vocabulary) * hidden * (c.tiedHead ? 1 : 2) + hidden;
    elements += d(c.layers) * (2 * hidden + 2 * q * hidden + 2 * kv * hidden + (c.attentionBias ? q + 2 * kv + hidden : 0));
    elements += dense * (3 * d(c.intermediate) * hidden + (c.mlpBias ? 2 * d(c.intermediate) + hidden : 0));
    elements += moe * (d(c.experts) * 3 * d(c.expertIntermediate) * hidden + 3 * d(c.sharedIntermediate) * hidden + d(c.experts) * hidden);
    SizeEstimate out;
    out.weights = saturated(4 * elements);
    out.kvCache = saturated(4 * 2 * d(c.layers) * kv * d(std::max<std::int64_t>(sequenceLength, 0)));
    return out;
}

std::string folderConfigJson(const ModelConfig &c, const std::string &baseConfigJson)
{
    using Json = nlohmann::ordered_json;
    Json config = Json::parse(baseConfigJson, nullptr, false);
    if (!config.is_object())
        config = Json::object();
    if (c.moe() && !c.routerJson.empty()) {
        config["model_type"] = "spectra";
        config["base_model_type"] = c.architecture;
        config["num_local_experts"] = c.experts;
        config["num_experts_per_tok"] = c.topK;
        config["n_shared_experts"] = c.sharedExperts;
        config["moe_layers"] = c.moeLayers;
        config["moe_intermediate_size"] = c.expertIntermediate;
        config["shared_expert_intermediate_size"] = c.sharedIntermediate;
        config["routed_scaling_factor"] = c.routedScalingFactor;
        config["shared_scaling_factor"] = c.sharedScalingFactor;
        config["norm_topk_prob"] = c.normalizeTopK;
        const Json router = Json::parse(c.routerJson, nullptr, false);
        config["router"] = router.is_object() ? router : Json::object();
        config["upcycling"] = {{"note", c.upcyclingNote},
                               {"training_step", c.trainingStep},
                               {"router_trained", c.routerTrained},
                               {"router_calibrated", c.routerCalibrated}};
        config.erase("architectures");
    }
    return config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

} // namespace spectra
