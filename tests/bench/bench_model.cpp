// SPDX-License-Identifier: GPL-3.0-or-later
// Decode and prefill speed of the decoder, alone or in turns with a peer (peer_transformers.py) on the same machine:
//
//   bench_model MODEL.gguf [--peer "python3 tests/bench/peer_transformers.py MODEL.gguf"] [--rounds 3] [--only NAME,NAME] [--threads N]
//               [--cpu-time]   (then give the peer --cpu-time and the same number of threads)
//
// Prints tokens per second of both and the ratio of the medians. Turns are interleaved, so that other load hits both alike.
#include "engine/core/files.h"
#include "engine/core/parallel.h"
#include "engine/core/random.h"
#include "engine/model/model.h"
#include "engine/train/upcycle.h"
#include "tests/bench/peer.h"
#include "tests/bench/support.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace spectra;
using bench::median;
using bench::need;

/// Of the clock on the wall, or (--cpu-time) of this process on the processors: on a machine that is busy with other things
/// the second, with one thread, still compares.
bool g_cpuTime = false;

double now()
{
    if (g_cpuTime) {
        timespec t;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<std::int32_t> ids(int n)
{
    Random random(7);
    std::vector<std::int32_t> v;
    for (int i = 0; i < n; ++i)
        v.push_back(static_cast<std::int32_t>(random.below(40000)));
    return v;
}

/// Greedy decode behind a prompt of 32 tokens, the prompt not timed.
double decode(Model &model, int tokens, const PassHooks &hooks)
{
    SequenceState state = model.newSequence(32 + tokens);
    std::vector<std::int32_t> next = ids(32);
    double begin = 0;
    for (int i = 0; i <= tokens; ++i) {
        PassInput input;
        input.lastOnly = true;
        input.sequences.push_back({next, {}, &state});
        const torch::Tensor logits = need(model.logits(need(model.forward(input, hooks)), hooks.timing));
        next = {static_cast<std::int32_t>(logits.argmax().item<std::int64_t>())};
        if (i == 0)
            begin = now();
    }
    return tokens / (now() - begin);
}

double prefill(Model &model, int tokens, const PassHooks &hooks)
{
    const auto prompt = ids(tokens);
    PassInput input;
    input.lastOnly = true;
    input.sequences.push_back({prompt, {}, nullptr});
    const double begin = now();
    need(model.logits(need(model.forward(input, hooks)), hooks.timing));
    return tokens / (now() - begin);
}

struct Work {
    std::string name, peer, variant;
    bool decode = true;
    Compute compute = Compute::f32;
};

std::unique_ptr<Model> make(const std::shared_ptr<const Checkpoint> &source, const Work &work)
{
    LoadOptions load;
    load.compute = work.compute;
    if (work.variant.empty())
        return need(Model::load(source, load));
    UpcycleOptions options;
    options.routerJson = work.variant;
    return need(Model::load(need(upcycled(source, options)), load));
}

} // namespace

int main(int argc, char **argv)
{
    setvbuf(stdout, nullptr, _IOLBF, 0);
    std::string path, peerCommand, only;
    int rounds = 3;
    for (int i = 1; i < argc; ++i) {
        const std::string a = argv[i];
        const auto value = [&] { return std::string(i + 1 < argc ? argv[++i] : ""); };
        if (a == "--peer")
            peerCommand = value();
        else if (a == "--rounds")
            rounds = std::max(1, std::atoi(value().c_str()));
        else if (a == "--only")
            only = "," + value() + ",";
        else if (a == "--cpu-time")
            g_cpuTime = true;
        else if (a == "--threads")
            setThreadCount(std::atoi(value().c_str()));
        else
            path = a;
    }
    if (path.empty()) {
        std::fprintf(stderr, "usage: bench_model MODEL [--peer CMD] [--rounds N] [--only NAMES] [--threads N] [--cpu-time]\n");
        return 2;
    }
    const std::string spectra32 = R"({"type":"spectra","router_dim":32})", spectra128 = R"({"type":"spectra","router_dim":128})";
    const std::string softmax = R"({"type":"softmax_topk"})";
    std::vector<Work> works = {
        {"decode_dense", "decode_dense", "", true, Compute::f32},
        {"prefill_dense", "prefill_dense", "", false, Compute::f32},
        {"prefill_dense/all", "prefill_dense_all", "", false, Compute::f32}, // the peer as it is mostly called: logits of all tokens
        {"decode_spectra32", "decode_moe", spectra32, true, Compute::f32},
        {"prefill_spectra32", "prefill_moe", spectra32, false, Compute::f32},
        {"prefill_softmax", "prefill_moe", softmax, false, Compute::f32},
        {"prefill_softmax/all", "prefill_moe_all", softmax, false, Compute::f32},
        {"prefill_softmax/32", "", softmax, false, Compute::f32}, // a short prompt: bound by reading every expert
        {"decode_softmax", "decode_moe", softmax, true, Compute::f32},
        {"decode_spectra128", "decode_moe", spectra128, true, Compute::f32},
    };
    if (cpuHasFastBf16()) {
        works.push_back({"decode_dense_bf16", "decode_dense", "", true, Compute::bf16});
        works.push_back({"prefill_dense_bf16", "prefill_dense", "", false, Compute::bf16});
        works.push_back({"prefill_softmax_bf16", "prefill_moe", softmax, false, Compute::bf16});
    }
    std::erase_if(works, [&](const Work &w) { return !only.empty() && only.find("," + w.name + ",") == std::string::npos; });

    const std::uint64_t idle = anonymousMemory();
    const auto source = need(Checkpoint::open(path));
    {
        const double begin = now();
        const std::unique_ptr<Model> model = make(source, {});
        PassHooks none;
        decode(*model, 1, none);
        std::printf("load to first tokens %.2f s, %.1f MiB anonymous above idle for %.1f MiB of weights\n", now() - begin,
                    static_cast<double>(anonymousMemory() - idle) / 1048576, static_cast<double>(model->memory()) / 1048576);
    }
    std::unique_ptr<Peer> peer;
    if (!peerCommand.empty())
        peer = std::make_unique<Peer>(peerCommand);
    std::printf("%-22s %12s %12s %8s   share of time\n", "", "tokens/s", "peer", "ratio");
    std::unique_ptr<Model> model;
    for (const Work &work : works) {
        model.reset();
        model = make(source, work);
        PassTiming timing;
        PassHooks hooks;
        hooks.timing = &timing;
        hooks.capture = Capture::standard();
        hooks.onLayer = [](const RoutingLayer &) {};
        const auto run = [&] { return work.decode ? decode(*model, 48, hooks) : prefill(*model, work.name.ends_with("/32") ? 32 : 512, hooks); };
        run();
        if (peer && !work.peer.empty())
            peer->measure(work.peer);
        timing = {};
        std::vector<double> ours, theirs;
        double wall = 0;
        for (int r = 0; r < rounds; ++r) {
            const double begin = now();
            ours.push_back(run());
            wall += now() - begin;
            if (peer && !work.peer.empty())
                theirs.push_back(peer->measure(work.peer));
        }
        std::printf("%-22s %12.1f %12.1f %8.2f   attention %.2f router %.2f experts %.2f dense %.2f head %.2f\n", work.name.c_str(), median(ours),
                    median(theirs), theirs.empty() ? 0 : median(ours) / median(theirs), timing.attention / wall, timing.router / wall,
                    timing.experts / wall, timing.dense / wall, timing.head / wall);
        std::fflush(stdout);
    }
    return 0;
}
