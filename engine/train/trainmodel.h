// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/model/model.h"
#include "engine/router/router.h"

#include <torch/torch.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// The optimiser's groups (method page, section 2): each has a learning rate of its own.
enum class ParameterGroup : std::uint8_t { router, experts, other };

/// A trained tensor. Experts of a layer are one tensor with a leading expert axis.
struct TrainParameter {
    std::string name;                    ///< "model.layers.3.mlp.experts.gate_up", "model.embed_tokens.weight", a router's own names
    torch::Tensor value;                 ///< leaf, f32, requires_grad
    ParameterGroup group = ParameterGroup::other;
    bool decays = true;                  ///< weight decay: matrices of two or more axes but no norm or bias
    bool hiddenMatrix = false;           ///< what Muon takes: matrices (or banks of them) inside the layers; not embedding and head
    std::int64_t layer = -1;             ///< decoder index; −1: none
};

/// One micro-batch: S sequences of T tokens, all of one length.
struct TrainBatch {
    torch::Tensor ids;                   ///< [S,T] i64
    torch::Tensor targets;               ///< [S,T] i64, −1: none
    torch::Tensor mask;                  ///< [S,T] bool, true = counted in routing statistics; undefined: all
    std::uint64_t seed = 0;              ///< of this micro-batch: jitter and every other draw
    ManifoldTargets manifold = {};       ///< what the router is drawn to at each sequence's last token; a Trainer gives it; undefined: nothing
};

/// Seconds of one forward pass by component; the backward pass is timed as a whole by the caller.
struct TrainTiming {
    double attention = 0, router = 0, experts = 0, dense = 0, head = 0;
};

struct TrainOutput {
    torch::Tensor loss;                  ///< mean −log p of the targets, nats; with gradient, to be used while the model lives
    torch::Tensor nll;                   ///< [S,T] f32 detached; NaN where there is no target
    std::map<std::string, torch::Tensor> routerLosses; ///< by name, summed over MoE layers, coefficients applied; with gradient
    std::vector<torch::Tensor> loads;    ///< per MoE layer [E] i64: assignments of counted tokens
    std::vector<double> dropped, fellBack, violation; ///< per MoE layer: share of slots dropped, of tokens that fell back; violation (< 0: no transport)
    torch::Tensor maxAttentionLogits;    ///< [layers, heads]: largest q·k/√d of the batch; undefined unless asked for
    std::vector<RoutingStep> steps;      ///< per MoE layer, only with keepSteps; tensors detached
    TrainTiming timing;
};

struct TrainPassOptions {
    bool activationCheckpointing = false; ///< keep layer inputs only and run each layer again in the backward pass: same gradients, less memory
    Compute compute = Compute::f32;      ///< bf16: matrix products of the model in bf16, master weights and the router in f32; automatic: f32
    bool attentionLogits = false;
    bool keepSteps = false;
    bool training = true;                ///< false: as at inference, without jitter, quota and dropout, and without gradients
    Collective *collective = nullptr;
    /// Residual stream [S,T,H] behind each decoder layer (−1: the embedding), for finding where values stop being finite.
    std::function<void(std::int64_t layer, const torch::Tensor &hidden)> onHidden;
};

/// A decoder with gradients: the function that Model (inference) computes, written for autograd, with fused operations of its
/// own where eager autograd is slow (expert banks, norms, rotary embedding, cross entropy). Equal to Model's logits on the same
/// weights to 1e-4 (test). Engine thread only.
class TrainModel {
public:
    /// Fresh weights, N(0, 0.02²) with the residual projections scaled by 1/√(2L); the router as makeRouter() inits it. One seed
    /// gives one model, whatever the router: dense weights do not depend on it. Errors: usage (sizes that do not fit together).
    [[nodiscard]] static Result<std::unique_ptr<TrainModel>> fresh(const ModelConfig &config, std::uint64_t seed);
    /// From any checkpoint (one that upcycled() presents included). `routerSeed` for a router that the checkpoint lacks.
    [[nodiscard]] static Result<std::unique_ptr<TrainModel>> load(std::shared_ptr<const Checkpoint> checkpoint, std::uint64_t routerSeed,
                                                                  const ProgressFunction &progress, std::stop_token stop);
    ~TrainModel();
    TrainModel(const TrainModel &) = delete;
    TrainModel &operator=(const TrainModel &) = delete;

    [[nodiscard]] const ModelConfig &config() const;
    [[nodiscard]] Router *router();      ///< nullptr for a dense model
    [[nodiscard]] const Router *router() const;
    /// Every tensor that can be trained, in a fixed order. What a caller freezes (requires_grad false) gets no gradient. Backward passes add
    /// to .grad directly (engine/train/traintasks.h): torch::autograd::grad() sees the router's parameters only.
    [[nodiscard]] const std::vector<TrainParameter> &parameters() const;

    /// Errors: usage (ids outside the vocabulary), work (out of memory), cancelled (between layers). A loss that is not
    /// finite is no error here.
    [[nodiscard]] Result<TrainOutput> forward(const TrainBatch &batch, const TrainPassOptions &options, std::stop_token stop = {});

    /// The weights as they are now, as a checkpoint that Model::load() and writeFolder() take. `copy` false: shares memory with
    /// the parameters, valid until the next optimiser step.
    [[nodiscard]] std::shared_ptr<const Checkpoint> snapshot(ModelConfig config, bool copy) const;

private:
    TrainModel();
    struct Private;
    std::unique_ptr<Private> d;
};

/// Bytes that training takes: weights, gradients, optimiser state (two moments) and the activations of one micro-batch.
struct TrainMemory {
    std::uint64_t weights = 0, gradients = 0, optimizer = 0, activations = 0;
    [[nodiscard]] std::uint64_t total() const { return weights + gradients + optimizer + activations; }
};
[[nodiscard]] TrainMemory estimateTrainMemory(const ModelConfig &config, std::int64_t sequences, std::int64_t length, const TrainPassOptions &options, bool routerOnly = false);

/// Floating-point operations of one token in forward and backward pass (three times the forward's), by component, counted from
/// the sizes: a multiply-add is two.
struct TrainFlops {
    double attention = 0, router = 0, experts = 0, dense = 0, head = 0;
    [[nodiscard]] double total() const { return attention + router + experts + dense + head; }
};
[[nodiscard]] TrainFlops trainFlopsPerToken(const ModelConfig &config, std::int64_t length);

} // namespace spectra
