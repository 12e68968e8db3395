// SPDX-License-Identifier: GPL-3.0-or-later
// What tracing costs: the same model decodes with nothing watching, and as a trace job of the engine that writes its HDF5 file.
//
//   bench_tracing MODEL.gguf [--rounds 5] [--tokens 96] [--set router_dim=32]
//
// Prints tokens per second of each and the ratio to the untraced loop, turns interleaved. The loop runs in a process of its own
// (--answer), because two teams of OpenMP threads in one process hinder each other.
#include "engine/core/random.h"
#include "engine/model/model.h"
#include "engine/run/engine.h"
#include "engine/train/upcycle.h"
#include "tests/bench/peer.h"
#include "tests/bench/support.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace spectra;
using bench::median;
using bench::need;

double now()
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class Sink : public EngineSink {
public:
    std::promise<Result<Summary>> promise;
    void finished(JobId, Result<Summary> result) override { promise.set_value(std::move(result)); }
};

std::vector<std::int32_t> prompt()
{
    Random random(7);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 32; ++i)
        ids.push_back(static_cast<std::int32_t>(1000 + random.below(40000)));
    return ids;
}

double plain(Model &model, int tokens)
{
    SequenceState state = model.newSequence(32 + tokens);
    std::vector<std::int32_t> next = prompt();
    const double begin = now();
    for (int i = 0; i <= tokens; ++i) {
        PassInput input;
        input.lastOnly = true;
        input.sequences.push_back({next, {}, &state});
        next = {static_cast<std::int32_t>(need(model.logits(need(model.forward(input, {})), nullptr)).argmax().item<std::int64_t>())};
    }
    return (32 + tokens) / (now() - begin);
}

double traced(Engine &engine, Sink &sink, const ModelSpec &spec, const std::string &capture, int tokens, const std::filesystem::path &file)
{
    TraceRequest request;
    request.spec = spec;
    Prompt p;
    p.ids = prompt();
    request.prompts.push_back(p);
    request.maxNewTokens = tokens;
    request.capture = need(Capture::parse(capture));
    request.output = file;
    request.overwrite = true;
    sink.promise = {};
    auto future = sink.promise.get_future();
    need(engine.submit(request));
    const Summary summary = need(future.get());
    return static_cast<double>(summary.tokens) / summary.seconds;
}

} // namespace

int main(int argc, char **argv)
{
    std::string path, set = "router_dim=32";
    int rounds = 5, tokens = 96;
    bool answer = false;
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
        if (a == "--rounds")
            rounds = std::max(1, std::atoi(value().c_str()));
        else if (a == "--tokens")
            tokens = std::max(1, std::atoi(value().c_str()));
        else if (a == "--set")
            set = value();
        else if (a == "--answer")
            answer = true;
        else
            path = a;
    }
    if (path.empty()) {
        std::fprintf(stderr, "usage: bench_tracing MODEL.gguf [--rounds N] [--tokens N] [--set router_dim=32]\n");
        return 2;
    }
    if (answer) {
        UpcycleOptions options;
        options.routerJson = R"({"type":"spectra",")" + set.substr(0, set.find('=')) + "\":" + set.substr(set.find('=') + 1) + "}";
        const auto model = need(Model::load(need(upcycled(need(Checkpoint::open(path)), options)), {}));
        for (char line[64]; std::fgets(line, sizeof(line), stdin) != nullptr;) {
            std::printf("%g\n", plain(*model, tokens));
            std::fflush(stdout);
        }
        return 0;
    }
    Peer untraced("exec '" + std::string(argv[0]) + "' --answer --tokens " + std::to_string(tokens) + " --set " + set + " '" + path + "'");
    const auto sink = std::make_shared<Sink>();
    Engine engine(sink);
    ModelSpec spec;
    spec.model = path;
    spec.upcycle.emplace();
    spec.upcycle->set = {set};
    const std::filesystem::path folder = std::filesystem::temp_directory_path() / ("bench_tracing." + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    const std::vector<std::string> captures = {"minimal", "standard", "full"};
    std::vector<double> without;
    std::vector<std::vector<double>> with(captures.size());
    for (int r = 0; r <= rounds; ++r) { // the first round warms
        const double p = untraced.measure("plain");
        std::vector<double> t;
        for (const std::string &c : captures)
            t.push_back(traced(engine, *sink, spec, c, tokens, folder / "trace.h5"));
        if (r == 0)
            continue;
        without.push_back(p);
        for (std::size_t c = 0; c < captures.size(); ++c)
            with[c].push_back(t[c]);
    }
    std::printf("%-10s %8.1f tokens/s\n", "untraced", median(without));
    for (std::size_t c = 0; c < captures.size(); ++c)
        std::printf("%-10s %8.1f tokens/s  %.3f of untraced\n", captures[c].c_str(), median(with[c]), median(with[c]) / median(without));
    std::filesystem::remove_all(folder);
    return 0;
}
