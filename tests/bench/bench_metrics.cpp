// SPDX-License-Identifier: GPL-3.0-or-later
// Metrics of 1 M tokens × 4 layers × 64 experts (top-8), synthetic routing in memory: seconds for all, and by group of
// keys.
#include "analysis/arraytrace.h"
#include "analysis/metrics/evaluate.h"
#include "engine/core/random.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <numeric>

namespace {

using namespace spectra;

const ArrayTrace &theTrace()
{
    static const ArrayTrace trace = [] {
        constexpr std::int64_t tokens = 1000000;
        constexpr int layers = 4, experts = 64, slots = 8, sequences = 2000;
        ArrayTrace t;
        t.header.experts = experts;
        Random random(1);
        for (int s = 0; s < sequences; ++s) {
            SequenceInfo info;
            info.domain = "domain " + std::to_string(s % 6);
            t.sequenceInfo.push_back(info);
        }
        for (std::int64_t i = 0; i < tokens; ++i) {
            t.all.sequence.push_back(static_cast<std::int32_t>(i * sequences / tokens));
            const double u = random.uniform();
            t.all.id.push_back(static_cast<std::int32_t>(30000 * u * u * u));
        }
        for (int l = 0; l < layers; ++l) {
            std::vector<std::uint16_t> chosen;
            std::vector<float> weights, probabilities;
            probabilities.reserve(static_cast<std::size_t>(tokens * experts));
            std::vector<int> order(experts);
            std::vector<float> p(experts);
            for (std::int64_t i = 0; i < tokens; ++i) {
                float sum = 0;
                for (float &x : p)
                    sum += x = static_cast<float>(-std::log(1 - random.uniform()));
                for (float &x : p)
                    x /= sum;
                probabilities.insert(probabilities.end(), p.begin(), p.end());
                std::iota(order.begin(), order.end(), 0);
                std::partial_sort(order.begin(), order.begin() + slots, order.end(), [&](int a, int b) {
                    return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)];
                });
                for (int k = 0; k < slots; ++k) {
                    chosen.push_back(static_cast<std::uint16_t>(order[static_cast<std::size_t>(k)]));
                    weights.push_back(p[static_cast<std::size_t>(order[static_cast<std::size_t>(k)])]);
                }
            }
            t.setExperts(l, std::move(chosen), slots);
            t.setColumn(Column::weights, l, std::move(weights), {slots});
            t.setColumn(Column::probabilities, l, std::move(probabilities), {experts});
        }
        t.finish();
        return t;
    }();
    return trace;
}

void metricsBenchmark(benchmark::State &state, const std::vector<std::string> &keys, bool intervals)
{
    MetricOptions options;
    options.keys = keys;
    options.intervals = intervals;
    (void)theTrace();
    for (auto _ : state)
        benchmark::DoNotOptimize(evaluateMetrics(theTrace(), options));
    state.counters["tokens_layers_per_s"] = benchmark::Counter(4e6, benchmark::Counter::kIsIterationInvariantRate);
}

} // namespace

BENCHMARK_CAPTURE(metricsBenchmark, load, {"load_cv", "gini", "expert_entropy_bits"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, consistency, {"sequential_consistency", "topk_overlap"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, entropy, {"routing_entropy", "routing_margin", "switch_aux"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, pairs, {"co_activation", "expert_overlap_positions"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, types, {"expert_overlap_types", "vocabulary_specialization"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, segments, {"segment_routing_best", "segment_cache_hit"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, auc, {"score_auc"}, false)->Unit(benchmark::kSecond)->Iterations(1)->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, layers, {"layer_consistency", "layer_consistency_matched", "path_entropy"}, false)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, all, {}, false)->Unit(benchmark::kSecond)->Iterations(1)->UseRealTime();
BENCHMARK_CAPTURE(metricsBenchmark, all_with_intervals, {}, true)
    ->Unit(benchmark::kSecond)
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK_MAIN();
