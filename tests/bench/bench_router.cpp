// SPDX-License-Identifier: GPL-3.0-or-later
// What a router costs by itself: 30 layers, hidden size 576, 8 experts, as in the sample model upcycled. One token (decode) after 64,
// and a prompt of 512 tokens (prefill); softmax top-2 beside it. Then training: one layer's forward and backward pass over 8 sequences of 256
// tokens, hidden size 256, beside the time that plain products of as many operations take (`products_ms`).
#include "engine/core/parallel.h"
#include "engine/router/router.h"

#include <benchmark/benchmark.h>

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <string>

namespace spectra {
namespace {

void route(benchmark::State &state, const std::string &options, std::int64_t tokens)
{
    const int layers = 30;
    at::set_num_threads(static_cast<int>(state.range(0)));
    setThreadCount(static_cast<int>(state.range(0)));
    RouterShape shape{576, 8, 2, std::vector<std::int64_t>(layers)};
    std::iota(shape.moeLayers.begin(), shape.moeLayers.end(), 0);
    const auto router = makeRouter(options, shape, 1);
    if (!router.ok()) {
        state.SkipWithError(router.error().what.c_str());
        return;
    }
    const torch::NoGradGuard noGrad;
    std::vector<torch::Tensor> x;
    for (int l = 0; l < layers; ++l)
        x.push_back(torch::randn({tokens, 576}));
    RouterState routerState;
    for (auto _ : state)
        for (int l = 0; l < layers; ++l) {
            RouterInput input;
            input.x = x[static_cast<std::size_t>(l)];
            input.offsets = {0, tokens};
            input.layer = l;
            input.layers = layers;
            const auto step = (*router)->route(input, routerState, Capture::minimal());
            benchmark::DoNotOptimize(step.experts.data_ptr());
        }
    state.SetItemsProcessed(state.iterations() * tokens);
}

/// Multiply-adds of the router's products per token, forward.
double productsPerToken(const std::string &options, std::int64_t hidden, std::int64_t experts)
{
    if (options.find("spectra") == std::string::npos)
        return static_cast<double>(hidden * experts);
    const double width = static_cast<double>(experts) * (options.find("128") != std::string::npos ? 128 : 32);
    return 3 * width * static_cast<double>(hidden) + 3 * width * width + width * static_cast<double>(hidden);
}

void train(benchmark::State &state, const std::string &options)
{
    at::set_num_threads(static_cast<int>(state.range(0)));
    setThreadCount(static_cast<int>(state.range(0)));
    const std::int64_t sequences = 8, length = 256, hidden = 256, experts = 8, tokens = sequences * length;
    const auto router = makeRouter(options, {hidden, experts, 2, {0}}, 1);
    if (!router.ok()) {
        state.SkipWithError(router.error().what.c_str());
        return;
    }
    const auto x = torch::randn({tokens, hidden}).requires_grad_(true);
    RouterInput input;
    input.x = x;
    for (std::int64_t s = 0; s <= sequences; ++s)
        input.offsets.push_back(s * length);
    input.training = true;
    for (auto _ : state) {
        RouterState fresh;
        const auto step = (*router)->route(input, fresh, Capture::minimal());
        auto loss = (step.weights * torch::linspace(0, 1, 2)).sum();
        for (const auto &[name, term] : step.losses)
            loss = loss + term;
        loss.backward();
    }
    // three products (forward and both gradients) of as many operations, as one matrix each
    const auto width = static_cast<std::int64_t>(productsPerToken(options, hidden, experts)) / hidden;
    const auto a = torch::randn({tokens, hidden}), b = torch::randn({hidden, width}), c = torch::randn({tokens, width});
    const torch::NoGradGuard noGrad;
    double best = 1e9;
    for (int i = 0; i < 5; ++i) {
        const auto start = std::chrono::steady_clock::now();
        benchmark::DoNotOptimize(torch::mm(a, b).const_data_ptr<float>());
        benchmark::DoNotOptimize(torch::mm(c, b.t()).const_data_ptr<float>());
        benchmark::DoNotOptimize(torch::mm(a.t(), c).const_data_ptr<float>());
        best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    state.counters["products_ms"] = best * 1e3;
    state.SetItemsProcessed(state.iterations() * tokens);
}

const char *const kSmall = R"({"type":"spectra","router_dim":32})";
const char *const kLarge = R"({"type":"spectra","router_dim":128})";
const char *const kSoftmax = R"({"type":"softmax_topk"})";
const char *const kSwitch = R"({"type":"switch_top2"})";
const char *const kDepth = R"({"type":"spectra","router_dim":32,"gru_axis":"depth"})";
const char *const kLinear = R"({"type":"spectra","router_dim":32,"sequential":"linear"})";

BENCHMARK_CAPTURE(route, decode_spectra_32, kSmall, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, decode_spectra_128, kLarge, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, decode_softmax, kSoftmax, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_spectra_32, kSmall, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_spectra_128, kLarge, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_softmax, kSoftmax, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

BENCHMARK_CAPTURE(train, train_spectra_32, kSmall)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(train, train_spectra_128, kLarge)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(train, train_spectra_depth, kDepth)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(train, train_spectra_linear, kLinear)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(train, train_switch, kSwitch)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

} // namespace
} // namespace spectra

BENCHMARK_MAIN();
