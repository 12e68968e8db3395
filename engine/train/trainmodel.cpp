// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/trainmodel.h"

#include "engine/core/parallel.h"
#include "engine/model/cpufeatures.h"
#include "engine/model/rope.h"
#include "engine/train/traindecoder.h"
#include "engine/train/trainedcheckpoint.h"
#include "engine/train/traininit.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <exception>
#include <new>

namespace spectra {
namespace {

/// Turns what torch throws into an Error, once, at the module's border.
template <typename Body> auto guarded(const char *where, const Body &body) -> decltype(body())
{
    const char *const mend = "Use shorter or fewer sequences per micro-batch, activation checkpointing, or a smaller model";
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return workError("out of memory", where, mend);
    } catch (const c10::Error &e) {
        const std::string what = e.what_without_backtrace();
        if (what.find("allocate memory") != std::string::npos || what.find("out of memory") != std::string::npos)
            return workError("out of memory", where, mend);
        return bugError(what, where);
    } catch (const std::exception &e) {
        return bugError(e.what(), where);
    }
}

Result<void> checkBatch(const TrainBatch &batch, std::int64_t vocabulary)
{
    if (!batch.ids.defined() || batch.ids.dim() != 2 || batch.ids.numel() == 0 || !batch.targets.defined() || batch.targets.sizes() != batch.ids.sizes()
        || (batch.mask.defined() && batch.mask.sizes() != batch.ids.sizes()))
        return bugError("ids, targets and mask must be matrices of one shape", "training batch");
    const auto inside = [&](const torch::Tensor &t, std::int64_t least) {
        return t.min().item<std::int64_t>() >= least && t.max().item<std::int64_t>() < vocabulary;
    };
    if (!inside(batch.ids, 0) || !inside(batch.targets, -1))
        return usageError("token id outside the vocabulary of " + std::to_string(vocabulary), "training batch",
                          "Use the tokenizer that belongs to the model");
    return {};
}

} // namespace

struct TrainModel::Private {
    train::TrainDecoder decoder;
    Rope rope;
    std::string baseConfigJson;          ///< empty: a fresh model
    std::vector<TrainParameter> parameters;

    Result<void> finish();
};

Result<void> TrainModel::Private::finish()
{
    SPECTRA_TRY(rope, Rope::make(decoder.config));
    if (decoder.router)
        decoder.config.routerJson = decoder.router->options();
    parameters = train::trainedParameters(decoder.config, decoder.weights, decoder.router.get());
    for (const TrainParameter &p : parameters) {
        torch::Tensor value = p.value;
        value.set_requires_grad(true);
    }
    return {};
}

TrainModel::TrainModel() : d(std::make_unique<Private>()) {}
TrainModel::~TrainModel() = default;

Result<std::unique_ptr<TrainModel>> TrainModel::fresh(const ModelConfig &config, std::uint64_t seed)
{
    return guarded("making the model", [&]() -> Result<std::unique_ptr<TrainModel>> {
        guardOneDnn();
        at::set_num_threads(threadCount());
        auto model = std::unique_ptr<TrainModel>(new TrainModel);
        train::TrainDecoder &decoder = model->d->decoder;
        decoder.config = config;
        ModelConfig &c = decoder.config;
        SPECTRA_CHECK(train::checkTrainable(c, false));
        if (c.moe()) {
            if (c.routerJson.empty())
                c.routerJson = R"({"type":"softmax_topk"})";
            SPECTRA_TRY(decoder.router, makeRouter(c.routerJson, train::routerShape(c), seed));
            c.modelType = "spectra";
        } else {
            c.modelType = "llama";
        }
        decoder.weights = train::freshWeights(c, seed);
        SPECTRA_CHECK(model->d->finish());
        return model;
    });
}

Result<std::unique_ptr<TrainModel>> TrainModel::load(std::shared_ptr<const Checkpoint> checkpoint, std::uint64_t routerSeed, const ProgressFunction &progress,
                                                     std::stop_token stop)
{
    return guarded("loading the model", [&]() -> Result<std::unique_ptr<TrainModel>> {
        guardOneDnn();
        at::set_num_threads(threadCount());
        auto model = std::unique_ptr<TrainModel>(new TrainModel);
        train::TrainDecoder &decoder = model->d->decoder;
        decoder.config = checkpoint->config();
        ModelConfig &c = decoder.config;
        const std::string file = checkpoint->path().filename().string();
        if (auto r = train::checkTrainable(c, true); !r)
            return std::move(r.error().in(file));
        SPECTRA_CHECK(train::fitsMemory(c, file));
        if (c.moe()) {
            if (c.routerJson.empty())
                c.routerJson = R"({"type":"softmax_topk"})";
            SPECTRA_TRY(decoder.router, train::routerOf(*checkpoint, c, routerSeed));
        }
        {
            const torch::NoGradGuard noGrad;
            SPECTRA_TRY(decoder.weights, readWeights(*checkpoint, torch::kFloat32, torch::kCPU, progress, std::move(stop)));
        }
        model->d->baseConfigJson = checkpoint->configJson();
        SPECTRA_CHECK(model->d->finish());
        return model;
    });
}

const ModelConfig &TrainModel::config() const
{
    return d->decoder.config;
}
Router *TrainModel::router()
{
    return d->decoder.router.get();
}
const Router *TrainModel::router() const
{
    return d->decoder.router.get();
}
const std::vector<TrainParameter> &TrainModel::parameters() const
{
    return d->parameters;
}

Result<TrainOutput> TrainModel::forward(const TrainBatch &batch, const TrainPassOptions &options, std::stop_token stop)
{
    return guarded("training pass", [&]() -> Result<TrainOutput> {
        const train::TrainDecoder &decoder = d->decoder;
        const ModelConfig &c = decoder.config;
        SPECTRA_CHECK(checkBatch(batch, c.vocabulary));
        if (options.compute == Compute::bf16 && !cpuHasFastBf16())
            return usageError("bf16 is slow on this CPU: it has neither AVX-512 BF16 nor AMX", "precision: bf16", "Use f32 or auto");
        const torch::AutoGradMode gradients(torch::GradMode::is_enabled() && options.training);
        const std::int64_t sequences = batch.ids.size(0), length = batch.ids.size(1), rows = sequences * length, half = d->rope.half();

        auto pass = std::make_shared<train::DecoderPass>();
        pass->sizes = {sequences, length, c.heads, c.kvHeads, c.headDim, c.slidingWindow};
        pass->cos = torch::empty({length, half});
        pass->sin = torch::empty({length, half});
        d->rope.angles(0, length, length, pass->cos.data_ptr<float>(), pass->sin.data_ptr<float>());
        // Not by itself: every product rounds its factors first, and at the sizes trained on CPUs that costs more than it saves.
        pass->bf16 = options.compute == Compute::bf16;
        pass->attentionLogits = options.attentionLogits;
        pass->keepSteps = options.keepSteps;
        RouterInput &routing = pass->routing;
        routing.tokenIds = batch.ids.to(torch::kInt64).reshape({rows}).contiguous();
        routing.positions = torch::arange(length, torch::kInt64).repeat({sequences});
        for (std::int64_t s = 0; s <= sequences; ++s)
            routing.offsets.push_back(s * length);
        if (batch.mask.defined())
            routing.mask = batch.mask.to(torch::kBool).reshape({rows}).contiguous();
        routing.layers = static_cast<int>(c.moeLayers.size());
        routing.training = options.training;
        routing.seed = batch.seed;
        routing.collective = options.collective;

        TrainOutput output;
        torch::Tensor hidden = train::embed(decoder.weights.embedding, routing.tokenIds);
        const auto show = [&](std::int64_t layer) {
            if (options.onHidden)
                options.onHidden(layer, hidden.detach().view({sequences, length, c.hidden}));
        };
        show(-1);
        RouterState state;
        for (std::size_t l = 0; l < decoder.weights.layers.size(); ++l) {
            if (stop.stop_requested())
                return cancelledError();
            train::LayerResult layer = options.activationCheckpointing && torch::GradMode::is_enabled()
                ? decoder.layerAgainInBackward(l, hidden, state, pass, &output)
                : decoder.layer(l, hidden, state, *pass, &output, false);
            hidden = std::move(layer.hidden);
            for (const auto &[name, loss] : layer.losses) {
                torch::Tensor &sum = output.routerLosses[name];
                sum = sum.defined() ? sum + loss : loss;
            }
            show(static_cast<std::int64_t>(l));
        }
        if (stop.stop_requested())
            return cancelledError();
        const auto begin = std::chrono::steady_clock::now();
        const train::HeadLoss head = train::headLoss(train::rmsNorm(hidden, decoder.weights.finalNorm, c.normEpsilon), decoder.weights.head,
                                                     batch.targets.to(torch::kInt64).reshape({rows}), pass->bf16);
        output.loss = head.loss;
        output.nll = head.nll.detach().view({sequences, length});
        output.timing.head += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        return output;
    });
}

std::shared_ptr<const Checkpoint> TrainModel::snapshot(ModelConfig config, bool copy) const
{
    const torch::NoGradGuard noGrad;
    std::map<std::string, torch::Tensor> extra;
    if (const Router *const router = d->decoder.router.get()) {
        config.routerJson = router->options();
        extra = router->parameters();
        extra.merge(router->buffers());
    }
    return std::make_shared<TrainedCheckpoint>(std::move(config), d->baseConfigJson, d->decoder.weights, extra, copy);
}

} // namespace spectra
