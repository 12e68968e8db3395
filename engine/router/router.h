// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/capture.h"
#include "engine/core/result.h"
#include "engine/router/collective.h"

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace spectra {

/// What a router must be given, and how far it looks.
struct RouterNeeds {
    enum class Scope { token, sequence, batch };
    Scope scope = Scope::token;          ///< prefill may be cut into chunks only for `token`
    bool causal = true;                  ///< a token's routing depends on its past only
    bool tokenIds = false, expertWeights = false, expertOutputs = false;
    bool tokenCounts = false;            ///< setTokenCounts() before the first training step
    bool tokenEmbeddings = false;        ///< setTokenEmbeddings() before the first training step
    bool recurrentTokens = false;        ///< keeps a state over tokens (token part of RouterState)
    bool recurrentLayers = false;        ///< keeps a state over layers (depth part)
};

/// Everything that a sequence carries in routing, cloned and dropped together with its KV cache.
struct RouterState {
    torch::Tensor token;                 ///< [S, L_moe, E·D]: last h_{t-1} of each layer, per sequence of the batch; undefined: fresh
    torch::Tensor depth;                 ///< [N, E·D]: h^{l-1} of the tokens of this pass; lives for one pass
    torch::Tensor ahead;                 ///< the router's own: products of `token` made for all layers at once at a pass's first layer
    int aheadLayer = -1;                 ///< layer that `ahead` serves next, -1: none
    [[nodiscard]] RouterState clone() const;
};

/// One MoE layer's input in one pass. Rows of all sequences one after the other (ragged, no padding rows needed).
struct RouterInput {
    torch::Tensor x;                     ///< [N, d] f32: the FFN's input after its norm
    torch::Tensor tokenIds;              ///< [N] i64, when needed
    torch::Tensor positions;             ///< [N] i64
    std::vector<std::int64_t> offsets;   ///< [S+1] rows of each sequence
    torch::Tensor mask;                  ///< [N] bool, true = counted; undefined: all. Masked rows are routed but take no part in transport, means, quota
    int layer = 0;                       ///< MoE-layer ordinal 0..L-1
    int layers = 1;                      ///< L
    bool training = false;
    std::uint64_t seed = 0;              ///< for jitter
    bool recomputing = false;            ///< the same call once more, for its gradient: what a router keeps of its batches is not added again
    Collective *collective = nullptr;    ///< training in several processes: sums over the batch go through it; nullptr: one process
};

/// What a router decided. Undefined tensors: not asked for, or the router has no such thing.
struct RoutingStep {
    torch::Tensor experts;               ///< [N, k] i64, descending weight; -1 = none
    torch::Tensor weights;               ///< [N, k] f32; 0 where none
    torch::Tensor dropped;               ///< [N] u8 slots lost to capacity
    torch::Tensor logits;                ///< [N, E] raw scores (S for SPECTRA)
    torch::Tensor selection;             ///< [N, E] what top-k was taken on
    torch::Tensor probabilities;         ///< [N, E]
    torch::Tensor routingVectors;        ///< [N, E, D]
    torch::Tensor expressionVectors;     ///< [N, E, D]
    torch::Tensor cost;                  ///< [N, E]
    torch::Tensor gruState;              ///< [N, E·D]
    torch::Tensor potentials;            ///< [E] log-domain column potentials of a transport
    double violation = -1;               ///< max_i |Σ_t Q_ti − N/E| / (N/E); < 0: no transport
    double fellBack = 0;                 ///< share of tokens that fell back under a quota
    torch::Tensor expertInput;           ///< [N, d] replaced expert input (Llama-4, LPR)
    bool weightOnInput = false;
    std::map<std::string, torch::Tensor> losses; ///< named loss terms, coefficients applied
};

/// What routing is drawn to at the last token of each sequence of a batch (RoMA): cached routing weights of S sequences' neighbours.
struct ManifoldTargets {
    torch::Tensor weights;               ///< [S, n] f32: of each neighbour; rows sum to 1, or to 0 where a sequence has none
    torch::Tensor routing;               ///< [S, n, M, E] f32: the neighbours' routing weights in the last M MoE layers, in their order
};

/// One option of a router, for listing and checking.
struct RouterOption {
    std::string name, type;              ///< type: "int", "float", "bool", "enum"
    std::string defaultValue, range, meaning;
    bool fixesShapes = false;            ///< cannot be overridden on a checkpoint that has this router
};

/// One router for all MoE layers of a model. Not thread-safe: owned by the engine thread.
class Router {
public:
    virtual ~Router() = default;
    [[nodiscard]] virtual std::string name() const = 0;
    /// The method that this is a preset of ("spectra" for its ablations); name() where it is none.
    [[nodiscard]] virtual std::string family() const { return name(); }
    [[nodiscard]] virtual RouterNeeds needs() const = 0;
    /// `capture` says which of the optional tensors are wanted: logits, selection, probabilities, vectors, gru; entropy and
    /// means are formed from them by the caller.
    [[nodiscard]] virtual RoutingStep route(const RouterInput &input, RouterState &state, Capture capture) = 0;
    /// Losses on what the chosen experts gave, added to step.losses: `outputs` [N, k, d] are those of step.experts, not weighted (rows
    /// of empty slots are not read). Called in training, after route() of the same layer and before the next call of it, when
    /// needs().expertOutputs.
    virtual void lossAfterExperts(RoutingStep & /*step*/, const torch::Tensor & /*outputs*/) {}
    /// The targets of the next training pass, for routers that are drawn to cached routing; the others ignore them. Kept until the
    /// next call; undefined tensors: none.
    virtual void setManifold(ManifoldTargets /*targets*/) {}
    /// How often each token id occurs in the training text, [V] i64, V the vocabulary. A trainer calls it once, before the first step of a
    /// fresh router whose needs() ask for it; what the router makes of the counts lies in its buffers, and a loaded router no longer asks.
    /// Every process gives the same counts. Errors (usage): another size, negative counts.
    [[nodiscard]] virtual Result<void> setTokenCounts(const torch::Tensor & /*counts*/) { return {}; }
    /// The same with an embedding for each token id, [V,d]: of a trained model (the one that is upcycled, or any other with this
    /// vocabulary); d need not be the hidden size. Errors: usage (another size), input (an embedding is not finite).
    [[nodiscard]] virtual Result<void> setTokenEmbeddings(const torch::Tensor & /*embeddings*/) { return {}; }
    virtual void afterOptimizerStep(const std::vector<torch::Tensor> & /*loads*/) {}
    /// Parameters and buffers under their checkpoint names (method page, section 7), e.g. "model.router.gru.weight_ih".
    [[nodiscard]] virtual std::map<std::string, torch::Tensor> parameters() const = 0;
    [[nodiscard]] virtual std::map<std::string, torch::Tensor> buffers() const = 0;
    /// Every option as JSON, with "type" first: what config.json's "router" holds.
    [[nodiscard]] virtual std::string options() const = 0;
    /// Rows of a linear router of one layer, [E, H]; undefined when it has none.
    [[nodiscard]] virtual torch::Tensor linearWeights(int /*layer*/) const { return {}; }
    virtual void to(torch::Device device) = 0;
    /// Optimiser steps done before, for schedules of loss coefficients; called when training goes on from a checkpoint.
    virtual void setTrainingStep(std::int64_t /*step*/) {}
    /// Says that the stored potentials were found under the present options (end of a calibration).
    virtual void setCalibrated() {}
    /// What a token's weights sum to when nothing is dropped; 0 where that differs from token to token.
    [[nodiscard]] virtual double weightSum() const { return 1; }
    /// Plain statements that a person should see, such as "not calibrated: …". Usually empty.
    [[nodiscard]] virtual std::vector<std::string> notes() const { return {}; }
};

/// Sizes a router is built for.
struct RouterShape {
    std::int64_t hidden = 0, experts = 0, topK = 0;
    std::vector<std::int64_t> moeLayers; ///< decoder index of each MoE layer (tensor names carry it)
    std::int64_t vocabulary = 0;         ///< of the model, for routers with a table over token ids; 0: not told
};

/// A line of the registry.
struct RouterInfo {
    std::string name, title, source;     ///< source: paper and equation
    bool causal = true;                  ///< with default options
    std::string assumptions;             ///< what was assumed where a paper is not public in full
    std::vector<RouterOption> options;
    int topK = 0;                        ///< experts per token that the method is defined for; 0: any
    std::vector<std::string> adopts = {}; ///< routers whose trained tensors are this one's: replacing those keeps the weights
    std::string family = {};             ///< the router that this is a preset of; its own name where it is none
};
[[nodiscard]] const std::vector<RouterInfo> &routerRegistry();

/// Gives a stored tensor by checkpoint name as f32, or an undefined tensor when the checkpoint has none.
using TensorLookup = std::function<Result<torch::Tensor>(const std::string &name, const std::vector<std::int64_t> &shape)>;

/// A fresh router (seeded init). `optionsJson`: {"type": "spectra", …}; missing options take defaults.
/// Errors (usage): unknown router or option, value out of range.
[[nodiscard]] Result<std::unique_ptr<Router>> makeRouter(const std::string &optionsJson, const RouterShape &shape, std::uint64_t seed);
/// The same with parameters and buffers from a checkpoint. Errors (input): a tensor is missing or mis-shaped.
[[nodiscard]] Result<std::unique_ptr<Router>> loadRouter(const std::string &optionsJson, const RouterShape &shape, const TensorLookup &lookup);
/// A router in the place of a checkpoint's own one, with the trained parameters of that where the registry says that it adopts them
/// (buffers are fresh); an empty pointer where it does not. Errors: as makeRouter() and loadRouter().
[[nodiscard]] Result<std::unique_ptr<Router>> adoptRouter(const std::string &optionsJson, const std::string &ownJson, const RouterShape &shape,
                                                          const TensorLookup &lookup, std::uint64_t seed);

/// Applies "key=value" settings to an options JSON. Errors (usage): unknown key, bad value, with `onCheckpoint` a key that
/// fixes tensor shapes.
[[nodiscard]] Result<std::string> applyRouterSettings(const std::string &optionsJson, const std::vector<std::string> &settings, bool onCheckpoint);
/// Default options of a registered router as JSON.
[[nodiscard]] Result<std::string> defaultRouterOptions(const std::string &name);

} // namespace spectra
