// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/model.h"

#include "engine/core/files.h"
#include "engine/core/parallel.h"
#include "engine/model/cpufeatures.h"
#include "engine/model/decoder.h"
#include "engine/model/kernels.h"
#include "engine/model/linear.h"
#include "engine/model/weights.h"

#include <ATen/Parallel.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <limits>
#include <mutex>
#include <new>

namespace spectra {
namespace {

constexpr std::int64_t kLogitRows = 128;

/// Turns what torch throws into an Error, once, at the module's border.
template <typename Body> auto guarded(const char *where, const Body &body) -> decltype(body())
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return workError("out of memory", where, "Use shorter sequences, a smaller batch or a smaller model");
    } catch (const c10::Error &e) {
        const std::string what = e.what_without_backtrace();
        if (what.find("allocate memory") != std::string::npos || what.find("out of memory") != std::string::npos)
            return workError("out of memory", where, "Use shorter sequences, a smaller batch or a smaller model");
        return bugError(what, where);
    } catch (const std::exception &e) {
        return bugError(e.what(), where);
    }
}

void setTorchThreads()
{
    // Inter-op threads can be set only before their first use, which another library may have made.
    static std::once_flag once;
    std::call_once(once, [] {
        try {
            at::set_num_interop_threads(1);
        } catch (const c10::Error &) {
        }
    });
    guardOneDnn();
    at::set_num_threads(threadCount());
}

Error unusable(const std::string &key, const std::string &what)
{
    return inputError(what, "config.json: " + key);
}

Result<void> checkConfig(const ModelConfig &c)
{
    const auto positive = [](std::int64_t v) { return v > 0 && v < (std::int64_t(1) << 31); };
    if (!positive(c.vocabulary) || !positive(c.hidden) || !positive(c.layers) || !positive(c.heads) || !positive(c.kvHeads) || !positive(c.headDim))
        return unusable("sizes", "vocabulary, hidden size, layers, heads and head size must be positive");
    if (c.heads % c.kvHeads != 0)
        return unusable("num_key_value_heads", "the number of heads is not a multiple of the number of key-value heads");
    if (c.activation != "silu" && c.activation != "swish")
        return unusable("hidden_act: " + c.activation, "this activation is not supported");
    if (!(c.normEpsilon >= 0) || !std::isfinite(c.normEpsilon))
        return unusable("rms_norm_eps", "not a number");
    if (static_cast<std::int64_t>(c.moeLayers.size()) < c.layers && !positive(c.intermediate))
        return unusable("intermediate_size", "dense layers need an FFN size");
    if (!c.moe())
        return {};
    if (!positive(c.experts) || !positive(c.expertIntermediate) || c.topK < 1 || c.topK > c.experts)
        return unusable("num_local_experts, num_experts_per_tok", "experts and their sizes must be positive, with top-k at most the number of experts");
    if (c.sharedExperts > 0 && !positive(c.sharedIntermediate))
        return unusable("n_shared_experts", "shared experts need an FFN size");
    std::int64_t before = -1;
    for (const std::int64_t l : c.moeLayers) {
        if (l <= before || l >= c.layers)
            return unusable("moe_layers", "layers must ascend and lie inside the model");
        before = l;
    }
    return {};
}

std::string typeOf(const std::string &optionsJson)
{
    const nlohmann::json j = nlohmann::json::parse(optionsJson, nullptr, false);
    if (!j.is_object() || !j.contains("type") || !j["type"].is_string())
        return {};
    return j["type"].get<std::string>();
}

std::string megabytes(std::uint64_t bytes)
{
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

} // namespace

struct Model::Private {
    std::shared_ptr<const Checkpoint> checkpoint;
    ModelConfig config;
    Compute compute = Compute::f32;
    torch::Device device = torch::kCPU;
    Weights weights;
    std::unique_ptr<Router> router;
    std::unique_ptr<Decoder> decoder;
};

MemoryEstimate estimateMemory(const ModelConfig &c, Compute compute)
{
    // In double: sizes come from a file, and products of them must not overflow.
    const double width = compute == Compute::bf16 ? 2 : 4;
    const auto d = [](std::int64_t v) { return static_cast<double>(std::max<std::int64_t>(v, 0)); };
    double matrices = d(c.vocabulary) * d(c.hidden) * (c.tiedHead ? 1 : 2);
    const double attention = (2 * d(c.heads) + 2 * d(c.kvHeads)) * d(c.headDim) * d(c.hidden);
    const double dense = 3 * d(c.hidden) * d(c.intermediate);
    const double experts = 3 * d(c.hidden) * (d(c.experts) * d(c.expertIntermediate) + (c.sharedExperts > 0 ? d(c.sharedIntermediate) : 0));
    const double moe = c.moe() ? d(static_cast<std::int64_t>(c.moeLayers.size())) : 0;
    matrices += d(c.layers) * attention + (d(c.layers) - moe) * dense + moe * experts;
    const double active = c.moe() ? d(c.topK) * (3 * d(c.expertIntermediate) + 2 * d(c.hidden)) : 0;
    const auto whole = [](double v) { return static_cast<std::uint64_t>(std::min(v, 9e18)); };
    MemoryEstimate e;
    e.weights = whole(matrices * width + (2 * d(c.layers) + 1) * d(c.hidden) * 4);
    e.cachePerToken = whole(2 * d(c.layers) * d(c.kvHeads) * d(c.headDim) * 4);
    e.passPerToken = whole(4 * (3 * d(c.hidden) + (2 * d(c.heads) + 2 * d(c.kvHeads)) * d(c.headDim) + std::max(active, 3 * d(c.intermediate))));
    return e;
}

Model::Model() : d(std::make_unique<Private>()) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::load(std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions &options, const ProgressFunction &progress,
                                           std::stop_token stop)
{
    return guarded("loading the model", [&]() -> Result<std::unique_ptr<Model>> {
        // Not in inference mode: parameters of the router and weights may be trained later.
        const torch::NoGradGuard noGrad;
        setTorchThreads();
        auto model = std::unique_ptr<Model>(new Model);
        Private &p = *model->d;
        p.checkpoint = checkpoint;
        p.config = checkpoint->config();
        p.device = options.device;
        ModelConfig &c = p.config;
        if (auto r = checkConfig(c); !r)
            return std::move(r.error().in(checkpoint->path().filename().string()));

        const bool fastBf16 = !options.device.is_cpu() || cpuHasFastBf16();
        if (options.compute == Compute::bf16 && !fastBf16)
            return usageError("bf16 is slow on this CPU: it has neither AVX-512 BF16 nor AMX", "--compute bf16", "Use --compute f32 or auto");
        p.compute = options.compute == Compute::automatic ? (fastBf16 ? Compute::bf16 : Compute::f32) : options.compute;

        const MemoryEstimate need = estimateMemory(c, p.compute);
        const std::uint64_t room = availableMemory();
        const std::uint64_t working = 64 * (need.passPerToken + need.cachePerToken);
        if (options.device.is_cpu() && (need.weights > room || working > room - need.weights))
            return inputError("too large for this machine: the weights need " + megabytes(need.weights) + ", " + megabytes(room) + " are free",
                              checkpoint->path().filename().string(), "Use a smaller or dense model, --compute bf16, or free some memory");

        SPECTRA_TRY(Rope rope, Rope::make(c));
        if (c.moe()) {
            const std::string own = c.routerJson.empty() ? R"({"type":"softmax_topk"})" : c.routerJson;
            const std::string wanted = options.routerJson.empty() ? own : options.routerJson;
            if (options.topK > 0) {
                if (options.topK > c.experts)
                    return usageError("top-k is larger than the number of experts", std::to_string(options.topK) + " of " + std::to_string(c.experts));
                c.topK = options.topK;
            }
            const RouterShape shape{c.hidden, c.experts, c.topK, c.moeLayers, c.vocabulary};
            const TensorLookup lookup = [&](const std::string &name, const std::vector<std::int64_t> &tensorShape) {
                return readTensor(*checkpoint, name, tensorShape);
            };
            if (typeOf(wanted) == typeOf(own)) {
                SPECTRA_TRY(p.router, loadRouter(wanted, shape, lookup));
            } else {
                SPECTRA_TRY(p.router, adoptRouter(wanted, own, shape, lookup, options.seed));
            }
            if (!p.router) {
                SPECTRA_TRY(p.router, makeRouter(wanted, shape, options.seed));
                c.routerTrained = false;
                c.routerCalibrated = false;
            }
            c.routerJson = p.router->options();
            p.router->to(p.device);
        }
        const torch::ScalarType type = p.compute == Compute::bf16 ? torch::kBFloat16 : torch::kFloat32;
        SPECTRA_TRY(p.weights, readWeights(*checkpoint, type, p.device, progress, stop));
        p.decoder = std::make_unique<Decoder>(p.config, p.weights, p.router.get(), std::move(rope), p.device);
        return model;
    });
}

const ModelConfig &Model::config() const
{
    return d->config;
}
const Checkpoint &Model::checkpoint() const
{
    return *d->checkpoint;
}
Router *Model::router()
{
    return d->router.get();
}
const Router *Model::router() const
{
    return d->router.get();
}
torch::Device Model::device() const
{
    return d->device;
}
Compute Model::compute() const
{
    return d->compute;
}
bool Model::causal() const
{
    return !d->router || d->router->needs().causal;
}

std::uint64_t Model::memory() const
{
    std::uint64_t bytes = d->weights.bytes();
    if (d->router)
        for (const auto &tensors : {d->router->parameters(), d->router->buffers()})
            for (const auto &[name, tensor] : tensors)
                bytes += tensor.defined() ? tensor.nbytes() : 0;
    return bytes;
}

SequenceState Model::newSequence(std::int64_t reserve) const
{
    const c10::InferenceMode inference;
    SequenceState state;
    // What does not fit now is refused by forward(), which can say so.
    if (reserve > 0)
        (void)d->decoder->reserve(state, reserve).ok();
    return state;
}

Result<torch::Tensor> Model::forward(const PassInput &input, const PassHooks &hooks)
{
    return guarded("running the model", [&]() -> Result<torch::Tensor> {
        const c10::InferenceMode inference;
        return d->decoder->run(input, hooks);
    });
}

Result<void> Model::logits(const torch::Tensor &hidden, const std::function<bool(std::int64_t, const torch::Tensor &)> &sink, std::stop_token stop,
                           PassTiming *timing)
{
    return guarded("computing logits", [&]() -> Result<void> {
        const c10::InferenceMode inference;
        for (std::int64_t first = 0; first < hidden.size(0); first += kLogitRows) {
            if (stop.stop_requested())
                return cancelledError();
            const auto begin = std::chrono::steady_clock::now();
            const std::int64_t n = std::min(kLogitRows, hidden.size(0) - first);
            torch::Tensor &chunk = d->decoder->workspace().get(Workspace::logits, n, d->config.vocabulary);
            linear(chunk, hidden.narrow(0, first, n), d->weights.head, {}, false);
            if (timing)
                timing->head += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
            if (!sink(first, chunk.cpu()))
                return cancelledError();
        }
        return {};
    });
}

Result<torch::Tensor> Model::logits(const torch::Tensor &hidden, PassTiming *timing)
{
    return guarded("computing logits", [&]() -> Result<torch::Tensor> {
        const c10::InferenceMode inference;
        torch::Tensor whole = torch::empty({hidden.size(0), d->config.vocabulary}, torch::kFloat32);
        SPECTRA_CHECK(logits(
            hidden,
            [&](std::int64_t first, const torch::Tensor &chunk) {
                whole.narrow(0, first, chunk.size(0)).copy_(chunk);
                return true;
            },
            {}, timing));
        return whole;
    });
}

Result<TokenScores> Model::score(const torch::Tensor &hidden, std::span<const std::int32_t> targets, std::stop_token stop, PassTiming *timing)
{
    const std::int64_t rows = hidden.size(0), vocabulary = d->config.vocabulary;
    if (static_cast<std::int64_t>(targets.size()) != rows)
        return bugError("one target per row is needed", "score");
    TokenScores scores;
    scores.nll.assign(targets.size(), std::numeric_limits<float>::quiet_NaN());
    scores.top1.assign(targets.size(), -1);
    std::vector<float> lse(static_cast<std::size_t>(kLogitRows));
    SPECTRA_CHECK(logits(
        hidden,
        [&](std::int64_t first, const torch::Tensor &chunk) {
            const float *const values = chunk.const_data_ptr<float>();
            kernels::logSumExp(values, chunk.size(0), vocabulary, lse.data(), scores.top1.data() + first);
            for (std::int64_t r = 0; r < chunk.size(0); ++r)
                if (const std::int32_t target = targets[static_cast<std::size_t>(first + r)]; target >= 0 && target < vocabulary)
                    scores.nll[static_cast<std::size_t>(first + r)] = lse[static_cast<std::size_t>(r)] - values[r * vocabulary + target];
            return true;
        },
        stop, timing));
    return scores;
}

} // namespace spectra
