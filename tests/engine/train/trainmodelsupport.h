// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/train/trainmodel.h"
#include "tests/engine/train/trainsupport.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace spectra::test {

inline std::unique_ptr<TrainModel> trainModel(const std::shared_ptr<const Checkpoint> &checkpoint)
{
    if (!checkpoint)
        return nullptr;
    auto model = TrainModel::load(checkpoint, 1, {}, {});
    if (!model) {
        ADD_FAILURE() << model.error().what << ": " << model.error().where;
        return nullptr;
    }
    return std::move(*model);
}

inline std::unique_ptr<TrainModel> freshModel(const ModelConfig &config, std::uint64_t seed = 1)
{
    auto model = TrainModel::fresh(config, seed);
    if (!model) {
        ADD_FAILURE() << model.error().what << ": " << model.error().where;
        return nullptr;
    }
    return std::move(*model);
}

/// A small model of fresh weights: two layers, four experts in both, grouped queries.
inline ModelConfig smallConfig(const std::string &router = kSoftmax)
{
    ModelConfig c;
    c.architecture = "llama";
    c.vocabulary = 64;
    c.hidden = 16;
    c.intermediate = 24;
    c.layers = 2;
    c.heads = 4;
    c.kvHeads = 2;
    c.headDim = 4;
    c.context = 128;
    c.tiedHead = true;
    if (router.empty())
        return c;
    c.experts = 4;
    c.topK = 2;
    c.expertIntermediate = 12;
    c.moeLayers = {0, 1};
    c.routerJson = router;
    return c;
}

/// Sequences without meaning and their next tokens.
inline TrainBatch someBatch(std::int64_t sequences, std::int64_t length, int vocabulary, int seed = 1)
{
    const auto ids = someIds(static_cast<int>(sequences * (length + 1)), vocabulary, seed);
    torch::Tensor all = torch::empty({sequences, length + 1}, torch::kInt64);
    for (std::int64_t i = 0; i < all.numel(); ++i)
        all.data_ptr<std::int64_t>()[i] = ids[static_cast<std::size_t>(i)];
    TrainBatch batch;
    batch.ids = all.narrow(1, 0, length).contiguous();
    batch.targets = all.narrow(1, 1, length).contiguous();
    batch.seed = static_cast<std::uint64_t>(seed);
    return batch;
}

inline TrainOutput pass(TrainModel &model, const TrainBatch &batch, const TrainPassOptions &options = {})
{
    auto output = model.forward(batch, options);
    if (!output) {
        ADD_FAILURE() << output.error().what << ": " << output.error().where;
        return {};
    }
    return std::move(*output);
}

/// Loss with everything that a router adds.
inline torch::Tensor totalLoss(const TrainOutput &output)
{
    torch::Tensor loss = output.loss;
    for (const auto &[name, part] : output.routerLosses)
        loss = loss + part;
    return loss;
}

/// Gradients by name after one pass; those of before are dropped first.
inline std::map<std::string, torch::Tensor> gradientsOf(TrainModel &model, const TrainBatch &batch, const TrainPassOptions &options = {})
{
    for (const TrainParameter &p : model.parameters())
        p.value.mutable_grad() = torch::Tensor();
    totalLoss(pass(model, batch, options)).backward();
    std::map<std::string, torch::Tensor> gradients;
    for (const TrainParameter &p : model.parameters())
        if (p.value.grad().defined())
            gradients[p.name] = p.value.grad().clone();
    return gradients;
}

inline torch::Tensor parameterOf(const TrainModel &model, const std::string &name)
{
    for (const TrainParameter &p : model.parameters())
        if (p.name == name)
            return p.value;
    ADD_FAILURE() << "no parameter " << name;
    return {};
}

/// Logits [S,T,V] as a plain composition behind the residual stream of the last layer.
inline torch::Tensor trainLogits(TrainModel &model, const TrainBatch &batch, TrainPassOptions options = {})
{
    torch::Tensor last;
    options.training = false;
    options.onHidden = [&](std::int64_t layer, const torch::Tensor &hidden) {
        if (layer + 1 == model.config().layers)
            last = hidden.clone();
    };
    pass(model, batch, options);
    const torch::NoGradGuard noGrad;
    const torch::Tensor normed = last * torch::rsqrt(last.square().mean(-1, true) + model.config().normEpsilon) * parameterOf(model, "model.norm.weight");
    return torch::matmul(normed, parameterOf(model, model.config().tiedHead ? "model.embed_tokens.weight" : "lm_head.weight").t());
}

/// The inference model's logits of every sequence of a batch, run as one pass.
inline torch::Tensor modelLogits(Model &model, const TrainBatch &batch)
{
    std::vector<std::vector<std::int32_t>> sequences;
    for (std::int64_t s = 0; s < batch.ids.size(0); ++s)
        sequences.push_back(idsOf(batch.ids[s].contiguous()));
    const torch::Tensor hidden = hiddenOf(model, sequences);
    auto logits = model.logits(hidden);
    if (!logits) {
        ADD_FAILURE() << logits.error().what;
        return {};
    }
    return logits->view({batch.ids.size(0), batch.ids.size(1), -1});
}

} // namespace spectra::test
