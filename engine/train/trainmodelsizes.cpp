// SPDX-License-Identifier: GPL-3.0-or-later
// What a training step needs, counted from the sizes alone.
#include "engine/router/router.h"
#include "engine/train/trainmodel.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace spectra {
namespace {

double number(std::int64_t v)
{
    return static_cast<double>(std::max<std::int64_t>(v, 0));
}

/// The router's options over its defaults, so that a text that names only its type is counted right.
nlohmann::json routerOptions(const ModelConfig &c)
{
    nlohmann::json given = nlohmann::json::parse(c.routerJson, nullptr, false);
    if (!given.is_object() || !given.contains("type") || !given["type"].is_string())
        return {{"type", "softmax_topk"}};
    if (const auto defaults = defaultRouterOptions(given["type"].get<std::string>()); defaults.ok()) {
        nlohmann::json all = nlohmann::json::parse(*defaults, nullptr, false);
        if (all.is_object()) {
            all.update(given);
            return all;
        }
    }
    return given;
}

/// Multiply-adds of one token, weights of all layers, and f32 values kept per token and layer for the backward pass.
struct RouterCount {
    double perToken = 0, weights = 0, kept = 0;
};

RouterCount countRouter(const ModelConfig &c)
{
    RouterCount count;
    if (!c.moe())
        return count;
    const nlohmann::json o = routerOptions(c);
    const double e = number(c.experts), d = number(c.hidden), layers = number(static_cast<std::int64_t>(c.moeLayers.size()));
    const auto is = [&](const char *key, const char *value) { return o.contains(key) && o[key] == value; };
    if (!o.contains("router_dim") || !o["router_dim"].is_number_integer() || is("scoring", "linear")) {
        // One linear map to the experts. What LPR and others add is small beside the experts.
        count.perToken = e * d;
        count.weights = layers * e * d;
        count.kept = 4 * e;
        if (o.contains("latent_dim") && o["latent_dim"].is_number_integer()) {
            const double z = number(o["latent_dim"].get<std::int64_t>());
            count.perToken = 3 * z * d + e * z;
            count.weights = layers * (3 * z * d + e * z);
            count.kept = 4 * z + 4 * e;
        }
        return count;
    }
    const double width = e * number(o["router_dim"].get<std::int64_t>());
    const bool gru = is("sequential", "gru"), projector = is("expression", "projector");
    const double recurrent = gru ? width * (3 * d + 3 * width) : width * d, projected = projector ? width * d : 0;
    count.perToken = recurrent + projected;
    count.weights = recurrent * (is("gru_scope", "per_layer") ? layers : 1) + projected * (is("projector_scope", "global") ? 1 : layers);
    // Gates, candidate and states of the recurrence, both vectors, and the transport over the experts.
    count.kept = (gru ? 8 : 2) * width + 2 * width + 24 * e;
    return count;
}

struct LayerCount {
    double attention = 0, dense = 0, expert = 0, shared = 0; ///< weights of one layer's parts; `expert` of one expert
    double moe = 0, plain = 0;                                ///< number of layers
};

LayerCount countLayers(const ModelConfig &c)
{
    LayerCount n;
    const double h = number(c.hidden);
    n.attention = (2 * number(c.heads) + 2 * number(c.kvHeads)) * number(c.headDim) * h;
    n.dense = 3 * h * number(c.intermediate);
    n.expert = 3 * h * number(c.expertIntermediate);
    n.shared = c.sharedExperts > 0 ? 3 * h * number(c.sharedIntermediate) : 0;
    n.moe = c.moe() ? number(static_cast<std::int64_t>(c.moeLayers.size())) : 0;
    n.plain = number(c.layers) - n.moe;
    return n;
}

} // namespace

TrainMemory estimateTrainMemory(const ModelConfig &c, std::int64_t sequences, std::int64_t length, const TrainPassOptions &options, bool routerOnly)
{
    const LayerCount n = countLayers(c);
    const RouterCount router = countRouter(c);
    const double h = number(c.hidden), v = number(c.vocabulary), rows = number(sequences) * number(length), k = number(c.topK);
    const double weights = v * h * (c.tiedHead ? 1 : 2) + h + number(c.layers) * (n.attention + 2 * h) + n.plain * n.dense
        + n.moe * (number(c.experts) * n.expert + n.shared) + router.weights;

    const double qkv = (number(c.heads) + 2 * number(c.kvHeads)) * number(c.headDim), mixed = number(c.heads) * number(c.headDim);
    // Per token: two norms' inputs and outputs, rotated qkv, attention's result; then the FFN's gathered input, product and result.
    const double attention = 5 * h + qkv + 2 * mixed + number(c.heads);
    const double dense = 2 * h + 2 * number(c.intermediate);
    const double moe = k * (2 * h + 2 * number(c.expertIntermediate)) + 2 * k + router.kept
        + (c.sharedExperts > 0 ? 2 * h + 2 * number(c.sharedIntermediate) : 0);
    const double all = number(c.layers) * attention + n.plain * dense + n.moe * moe;
    const double largest = attention + std::max(n.plain > 0 ? dense : 0, n.moe > 0 ? moe : 0);
    const double kept = options.activationCheckpointing ? number(c.layers) * h + largest : all;
    // One layer's gradients on the way back, the head's gradient of hidden states and weights, and its block of logits.
    const double back = rows * (3 * h + std::max(n.plain > 0 ? 3 * number(c.intermediate) : 0, n.moe > 0 ? k * (3 * number(c.expertIntermediate) + h) : 0));
    const double head = rows * h + v * h + 256 * v;

    const auto bytes = [](double values) { return static_cast<std::uint64_t>(std::min(4 * values, 9e18)); };
    TrainMemory memory;
    memory.weights = bytes(weights);
    const double trained = routerOnly ? router.weights : weights; // what is frozen has neither
    memory.gradients = bytes(trained);
    memory.optimizer = bytes(2 * trained);
    // When a step's activations are gone, the held-out text is looked at with a copy of the weights.
    memory.activations = bytes(std::max(rows * kept + back + head, weights));
    return memory;
}

TrainFlops trainFlopsPerToken(const ModelConfig &c, std::int64_t length)
{
    const LayerCount n = countLayers(c);
    // Two operations a multiply-add; forward once, backward twice.
    constexpr double each = 6;
    const double seen = number(c.slidingWindow > 0 ? std::min(c.slidingWindow, length) : length);
    TrainFlops f;
    // Scores and weighted values over the tokens before: half of the square.
    f.attention = each * number(c.layers) * (n.attention + 2 * number(c.heads) * number(c.headDim) * (seen + 1) / 2);
    f.router = each * n.moe * countRouter(c).perToken;
    f.experts = each * n.moe * (number(c.topK) * n.expert + n.shared);
    f.dense = each * n.plain * n.dense;
    f.head = each * number(c.vocabulary) * number(c.hidden);
    return f;
}

} // namespace spectra
