// SPDX-License-Identifier: GPL-3.0-or-later
// Sinkhorn to a column error of 1e-6, and the kernels that CPU routing stands on. `--benchmark_filter` picks; times are wall-clock.
#include "engine/core/random.h"
#include "engine/rule/gru.h"
#include "engine/rule/sinkhorn.h"

#include <benchmark/benchmark.h>

#include <cmath>

namespace spectra::rule {
namespace {

/// Unit normal scores with an unbalanced column bias: what a router without balance gives.
std::vector<float> unbalanced(std::int64_t n, std::int64_t e)
{
    Random random(1);
    std::vector<float> bias(static_cast<std::size_t>(e)), s(static_cast<std::size_t>(n * e));
    for (float &b : bias)
        b = static_cast<float>(random.normal());
    for (std::size_t i = 0; i < s.size(); ++i)
        s[i] = static_cast<float>(random.normal()) + bias[i % static_cast<std::size_t>(e)];
    return s;
}

void transport(benchmark::State &state, double epsilon, bool accelerate)
{
    const std::int64_t n = state.range(0), e = state.range(1);
    setThreadCount(static_cast<int>(state.range(2)));
    const auto s = unbalanced(n, e);
    std::vector<float> q(s.size());
    SinkhornOptions options;
    options.epsilon = epsilon;
    options.tolerance = 1e-6;
    options.accelerate = accelerate;
    SinkhornResult result;
    for (auto _ : state)
        result = *sinkhorn(s, e, options, q);
    state.counters["iterations"] = result.iterations;
    state.counters["violation"] = result.violation;
    setThreadCount(0);
}
void sizes(benchmark::internal::Benchmark *b)
{
    for (const int threads : {1, 2})
        b->Args({65536, 64, threads});
    b->Unit(benchmark::kMillisecond)->UseRealTime()->MinTime(0.5);
}
BENCHMARK_CAPTURE(transport, epsilon_0.5, 0.5, true)->Apply(sizes);
BENCHMARK_CAPTURE(transport, epsilon_0.1, 0.1, true)->Apply(sizes);
BENCHMARK_CAPTURE(transport, epsilon_0.5_plain, 0.5, false)->Apply(sizes);
BENCHMARK_CAPTURE(transport, epsilon_0.1_plain, 0.1, false)->Apply(sizes);
BENCHMARK_CAPTURE(transport, million_epsilon_0.5, 0.5, true)->Args({1000000, 64, 2})->Unit(benchmark::kMillisecond)->UseRealTime()->MinTime(0.5);

std::vector<float> normals(std::int64_t n)
{
    Random random(2);
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float &x : v)
        x = static_cast<float>(0.1 * random.normal());
    return v;
}

/// W_hh·h of one step: E·D = 256 as for 8 experts of 32 dimensions.
void recurrentProduct(benchmark::State &state)
{
    const std::int64_t h = state.range(0);
    const auto w = normals(3 * h * h), x = normals(h);
    const PackedMatrix packed(w, {}, 3 * h, h, 3);
    std::vector<float> y(static_cast<std::size_t>(packed.paddedOutputs()));
    for (auto _ : state) {
        packed.project(x.data(), h, 1, y.data(), packed.paddedOutputs());
        benchmark::DoNotOptimize(y.data());
    }
    state.SetItemsProcessed(state.iterations() * 3 * h * h * 2);
    state.SetBytesProcessed(state.iterations() * packed.bytes());
}
BENCHMARK(recurrentProduct)->Arg(256)->Arg(1024)->Unit(benchmark::kMicrosecond);

/// A whole layer's vectors: [512, 576] tokens, 256 state, with the expression projection.
void layerVectors(benchmark::State &state)
{
    const std::int64_t n = state.range(0), d = 576, h = 256;
    setThreadCount(static_cast<int>(state.range(1)));
    const auto wi = normals(3 * h * d), wh = normals(3 * h * h), wp = normals(h * d), b = normals(3 * h), x = normals(n * d);
    const PackedMatrix input(wi, b, 3 * h, d, 3), recurrent(wh, b, 3 * h, h, 3), projector(wp, {}, h, d);
    std::vector<float> r(static_cast<std::size_t>(n * h)), e(r.size()), end(static_cast<std::size_t>(h)), scratch;
    const std::vector<std::int64_t> offsets = {0, n};
    VectorJob job;
    job.input = &input;
    job.recurrent = &recurrent;
    job.projector = &projector;
    job.x = x.data();
    job.n = n;
    job.width = h;
    job.offsets = offsets;
    job.end = end.data();
    job.routing = r.data();
    job.expression = e.data();
    const Executor executor = Executor::pool();
    for (auto _ : state)
        computeVectors(job, scratch, executor);
    state.SetItemsProcessed(state.iterations() * n);
    setThreadCount(0);
}
BENCHMARK(layerVectors)->Args({512, 1})->Args({512, 2})->Unit(benchmark::kMillisecond)->UseRealTime();

} // namespace
} // namespace spectra::rule

BENCHMARK_MAIN();
