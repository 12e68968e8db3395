// SPDX-License-Identifier: GPL-3.0-or-later
// Training speed, alone or in turns with a peer (peer_train_transformers.py) on the same machine:
//
//   bench_train [--peer "python3 tests/bench/peer_train_transformers.py THREADS"] [--rounds 3] [--threads N] [--router JSON]
//               [--hidden 128] [--layers 4] [--heads 4] [--experts 8] [--topk 2] [--width 256] [--vocabulary 4096] [--length 256]
//               [--sequences 8] [--steps 5] [--bf16] [--recompute] [--cpu-time]   (then give the peer --cpu-time and one thread)
//
// One step is a forward and a backward pass, clipping to norm 1 and AdamW. Prints tokens per second of both, the ratio of the
// medians, and the parts of our step; for a router beside softmax_topk, its step against that of softmax_topk.
#include "engine/core/parallel.h"
#include "engine/core/random.h"
#include "engine/train/optimizer.h"
#include "engine/train/trainmodel.h"
#include "tests/bench/peer.h"
#include "tests/bench/support.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace spectra;
using bench::median;
using bench::need;

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

struct Settings {
    std::map<std::string, std::string> values;
    [[nodiscard]] std::int64_t number(const std::string &name, std::int64_t otherwise) const
    {
        const auto at = values.find(name);
        return at == values.end() ? otherwise : std::atoll(at->second.c_str());
    }
    [[nodiscard]] bool has(const std::string &name) const { return values.contains(name); }
};

struct Parts {
    double forward = 0, backward = 0, optimizer = 0;
    TrainTiming timing;
};

/// A model with its optimiser and one batch.
class Run {
public:
    Run(const Settings &s, const std::string &router) : m_steps(s.number("steps", 5))
    {
        ModelConfig c;
        c.architecture = "llama";
        c.vocabulary = s.number("vocabulary", 4096);
        c.hidden = s.number("hidden", 128);
        c.layers = s.number("layers", 4);
        c.heads = c.kvHeads = s.number("heads", 4);
        c.headDim = c.hidden / c.heads;
        c.context = s.number("length", 256);
        c.tiedHead = true;
        c.experts = s.number("experts", 8);
        c.topK = s.number("topk", 2);
        c.expertIntermediate = s.number("width", 256);
        for (std::int64_t l = 0; l < c.layers; ++l)
            c.moeLayers.push_back(l);
        c.routerJson = router;
        m_model = need(TrainModel::fresh(c, 1));
        m_optimizer = need(makeOptimizer(m_model->parameters(), {}));
        Random random(7);
        const std::int64_t sequences = s.number("sequences", 8), length = c.context;
        m_batch.ids = torch::empty({sequences, length}, torch::kInt64);
        m_batch.targets = torch::empty({sequences, length}, torch::kInt64);
        for (std::int64_t i = 0; i < m_batch.ids.numel(); ++i) {
            m_batch.ids.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(c.vocabulary)));
            m_batch.targets.data_ptr<std::int64_t>()[i] = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(c.vocabulary)));
        }
        m_options.compute = s.has("bf16") ? Compute::bf16 : Compute::f32;
        m_options.activationCheckpointing = s.has("recompute");
        m_flops = trainFlopsPerToken(m_model->config(), length);
        step();
    }

    /// Tokens per second over some steps.
    double measure()
    {
        m_parts = {};
        const double begin = now();
        for (std::int64_t i = 0; i < m_steps; ++i)
            step();
        return static_cast<double>(m_steps * m_batch.ids.numel()) / (now() - begin);
    }
    void printParts(double rate) const
    {
        const auto per = [this](double seconds) { return 1e3 * seconds / static_cast<double>(m_steps); };
        std::printf("  ms a step: forward %.1f (attention %.1f, router %.1f, experts %.1f, dense %.1f, head %.1f), backward %.1f, clip and optimizer %.1f\n",
                    per(m_parts.forward), per(m_parts.timing.attention), per(m_parts.timing.router), per(m_parts.timing.experts), per(m_parts.timing.dense),
                    per(m_parts.timing.head), per(m_parts.backward), per(m_parts.optimizer));
        // The model's own times are of the clock on the wall, so they are held against each other.
        const TrainTiming &t = m_parts.timing;
        std::printf("  %.1f GFLOP/s; routing is %.1f %% of the operations and %.1f %% of the forward pass\n", rate * m_flops.total() / 1e9,
                    100 * m_flops.router / m_flops.total(), 100 * t.router / (t.attention + t.router + t.experts + t.dense + t.head));
    }
    [[nodiscard]] const TrainFlops &flops() const { return m_flops; }

private:
    void step()
    {
        m_batch.seed = ++m_seed;
        double begin = now();
        const auto lap = [&begin](double &sum) {
            const double end = now();
            sum += end - begin;
            begin = end;
        };
        m_optimizer->zeroGradients();
        lap(m_parts.optimizer);
        const TrainOutput output = need(m_model->forward(m_batch, m_options));
        torch::Tensor loss = output.loss;
        for (const auto &[name, part] : output.routerLosses)
            loss = loss + part;
        const TrainTiming &t = output.timing;
        m_parts.timing.attention += t.attention;
        m_parts.timing.router += t.router;
        m_parts.timing.experts += t.experts;
        m_parts.timing.dense += t.dense;
        m_parts.timing.head += t.head;
        lap(m_parts.forward);
        loss.backward();
        lap(m_parts.backward);
        const GradientNorms norms = gradientNorms(m_model->parameters());
        m_optimizer->step({1e-3, 1e-3, 1e-3}, norms.all > 1 ? 1 / norms.all : 1);
        m_model->router()->afterOptimizerStep(output.loads);
        lap(m_parts.optimizer);
    }

    std::unique_ptr<TrainModel> m_model;
    std::unique_ptr<Optimizer> m_optimizer;
    TrainBatch m_batch;
    TrainPassOptions m_options;
    TrainFlops m_flops;
    Parts m_parts;
    std::int64_t m_steps;
    std::uint64_t m_seed = 0;
};

} // namespace

int main(int argc, char **argv)
{
    Settings s;
    for (int i = 1; i < argc; ++i) {
        const std::string name = argv[i] + (std::string(argv[i]).starts_with("--") ? 2 : 0);
        const bool flag = name == "bf16" || name == "recompute" || name == "cpu-time";
        s.values[name] = flag || i + 1 == argc ? "" : argv[++i];
    }
    g_cpuTime = s.has("cpu-time");
    if (s.has("threads"))
        setThreadCount(static_cast<int>(s.number("threads", 1)));
    const std::string plain = R"({"type":"softmax_topk"})", router = s.has("router") ? s.values["router"] : plain;
    const std::int64_t rounds = s.number("rounds", 3);
    std::unique_ptr<Peer> peer;
    if (s.has("peer")) {
        std::string command = s.values["peer"];
        for (const char *const name : {"hidden", "layers", "heads", "experts", "topk", "width", "vocabulary", "length", "sequences", "steps"})
            if (s.has(name))
                command += std::string(" --") + name + " " + s.values[name];
        peer = std::make_unique<Peer>(command);
        peer->measure("train"); // the first one loads
    }

    std::vector<double> ours, theirs, reference;
    Run run(s, router);
    std::unique_ptr<Run> base = router == plain ? nullptr : std::make_unique<Run>(s, plain);
    double last = 0;
    for (std::int64_t r = 0; r < rounds; ++r) {
        ours.push_back(last = run.measure());
        if (base)
            reference.push_back(base->measure());
        if (peer)
            theirs.push_back(peer->measure("train"));
    }
    std::printf("train %s: %.0f tokens/s", router.c_str(), median(ours));
    if (peer)
        std::printf(", transformers' Mixtral %.0f, ratio %.2f", median(theirs), median(ours) / median(theirs));
    std::printf("\n");
    run.printParts(last);
    if (base) {
        // What the router adds, as a share of its step; the same share of the operations is what it may take.
        const double share = 1 - median(ours) / median(reference);
        const TrainFlops &f = run.flops(), &g = base->flops();
        const double wanted = 1 - g.total() / f.total();
        std::printf("  softmax_topk: %.0f tokens/s; this router adds %.1f %% of its step, and %.1f %% of its operations: %.2f times\n", median(reference),
                    100 * share, 100 * wanted, share / wanted);
    }
    return 0;
}
