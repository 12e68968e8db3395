// SPDX-License-Identifier: GPL-3.0-or-later
// What a router costs by itself: 30 layers, hidden size 576, 8 experts, as in the sample model upcycled. One token (decode) after 64,
// and a prompt of 512 tokens (prefill); softmax top-2 beside it.
#include "engine/core/parallel.h"
#include "engine/router/router.h"

#include <benchmark/benchmark.h>

#include <ATen/Parallel.h>

#include <numeric>

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

const char *const kSmall = R"({"type":"spectra","router_dim":32})";
const char *const kLarge = R"({"type":"spectra","router_dim":128})";
const char *const kSoftmax = R"({"type":"softmax_topk"})";

BENCHMARK_CAPTURE(route, decode_spectra_32, kSmall, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, decode_spectra_128, kLarge, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, decode_softmax, kSoftmax, 1)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_spectra_32, kSmall, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_spectra_128, kLarge, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(route, prefill_softmax, kSoftmax, 512)->Arg(1)->Arg(2)->Unit(benchmark::kMillisecond)->UseRealTime();

} // namespace
} // namespace spectra

BENCHMARK_MAIN();
