// SPDX-License-Identifier: GPL-3.0-or-later
// Writing a trace, and opening a large one to its first picture. SPECTRA_BENCH_TRACE_TOKENS (default 700,000: about 1 GB)
// and SPECTRA_BENCH_FOLDER (default: the folder for temporary files) may be set.
#include "engine/core/files.h"
#include "engine/trace/tracereader.h"
#include "tests/support/synthetictrace.h"

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <unistd.h>

namespace {

using namespace spectra;
namespace fs = std::filesystem;

/// SmolLM2 upcycled: 30 layers, 8 experts, standard capture.
SyntheticOptions modelOptions(std::int64_t tokens)
{
    SyntheticOptions o;
    o.layers = 30;
    o.routerDim = 32;
    o.hidden = 576;
    o.tokens = tokens;
    o.sequenceLength = 512;
    o.recordTokens = 1024;
    o.capture = Capture::standard();
    o.transport = false;
    return o;
}

/// Writes about `tokens` tokens; the values of eight sequences come again and again, so that the writer is measured.
Result<std::int64_t> write(const fs::path &path, std::int64_t tokens)
{
    constexpr std::int64_t different = 8;
    const SyntheticRun run(modelOptions(tokens));
    static std::vector<std::vector<RoutingRecord>> records;
    while (records.size() < different) {
        const auto s = static_cast<std::int64_t>(records.size());
        std::vector<RoutingRecord> layers;
        for (int l = 0; l < run.spec().layers(); ++l)
            layers.push_back(run.routing(s, l, 0, run.info(s).length, false));
        records.push_back(std::move(layers));
    }
    SPECTRA_TRY(const auto writer, TraceWriter::create(path, run.spec(), true));
    std::vector<LayerTables> sums;
    run.addSums(0, sums);
    std::int64_t at = 0;
    for (std::int32_t s = 0; at < tokens; ++s) {
        const std::int64_t source = s % different;
        SequenceInfo info = run.info(source);
        info.offset = at;
        SPECTRA_CHECK(writer->beginSequence(info));
        for (RoutingRecord record : records[static_cast<std::size_t>(source)]) {
            record.firstToken = at;
            SPECTRA_CHECK(writer->addRouting(std::move(record)));
        }
        TokenRecord text = run.tokens(source, 0, info.length);
        text.firstToken = at;
        text.sequence = s;
        SPECTRA_CHECK(writer->addTokens(std::move(text)));
        for (int l = 0; l < run.spec().layers(); ++l) {
            SequenceMeans means = run.means(source, l);
            means.sequence = s;
            SPECTRA_CHECK(writer->addSequenceMeans(std::move(means)));
        }
        if (writer->wantsExpertSums())
            SPECTRA_CHECK(writer->addExpertSums(sums));
        SPECTRA_CHECK(writer->endSequence(s, info));
        at += info.length;
    }
    SPECTRA_CHECK(writer->finish(run.tables(sums), 1));
    return at;
}

fs::path folder()
{
    const char *given = std::getenv("SPECTRA_BENCH_FOLDER");
    return given != nullptr ? fs::path(given) : fs::temp_directory_path();
}

void writing(benchmark::State &state)
{
    const fs::path path = folder() / ("bench-" + std::to_string(::getpid()) + "-w.h5");
    std::int64_t tokens = 0;
    for (auto _ : state) {
        auto written = write(path, 50'000);
        if (!written) {
            state.SkipWithError(written.error().what.c_str());
            break;
        }
        tokens += *written;
    }
    state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
    std::error_code ignored;
    fs::remove(path, ignored);
}
BENCHMARK(writing)->Unit(benchmark::kMillisecond)->Iterations(2)->UseRealTime();

/// Probe, open, Gram matrix and load of one layer: what the first picture needs.
void openToFirstPicture(benchmark::State &state)
{
    const char *given = std::getenv("SPECTRA_BENCH_TRACE_TOKENS");
    static const fs::path path = folder() / ("bench-" + std::to_string(::getpid()) + "-o.h5");
    if (!fs::exists(path)) {
        if (auto written = write(path, given != nullptr ? std::atol(given) : 700'000); !written) {
            state.SkipWithError(written.error().what.c_str());
            return;
        }
    }
    std::uint64_t most = 0;
    for (auto _ : state) {
        const std::uint64_t before = anonymousMemory();
        auto probed = probeTrace(path);
        auto trace = probed ? TraceReader::open(path) : Result<std::shared_ptr<const TraceReader>>(probed.error());
        if (!trace) {
            state.SkipWithError(trace.error().what.c_str());
            break;
        }
        benchmark::DoNotOptimize((*trace)->table(Table::gramExpression, 0).ok());
        benchmark::DoNotOptimize((*trace)->block(Column::experts, 0, {0, (*trace)->info()->tokens}).ok());
        most = std::max(most, anonymousMemory() - std::min(before, anonymousMemory()));
    }
    std::error_code ignored;
    state.counters["file_MB"] = static_cast<double>(fs::file_size(path, ignored)) / 1e6;
    state.counters["memory_MB"] = static_cast<double>(most) / 1e6;
    state.counters["target_ms"] = 1000;
    fs::remove(path, ignored);
}
BENCHMARK(openToFirstPicture)->Unit(benchmark::kMillisecond)->Iterations(5)->UseRealTime();

} // namespace

BENCHMARK_MAIN();
