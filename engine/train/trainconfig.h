// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// A training run's configuration, as `spectra train CONFIG` reads it. Keys in the file are the snake_case names given here,
/// in the objects named; `--set a.b=value` overrides one. No torch, no file access here.
struct TrainConfig {
    std::string name;

    // "model"
    std::string start = "scratch";       ///< start: scratch | upcycle | router_only (experts and everything else frozen)
    std::string checkpoint;              ///< MODEL to start from; empty for scratch
    std::string architecture = "llama";  ///< scratch: family of models --architectures
    std::int64_t hidden = 128, layers = 4, heads = 4, kvHeads = 4, headDim = 0, intermediate = 256, context = 512;
    bool tiedHead = true;
    double ropeTheta = 10000, normEpsilon = 1e-5;
    std::int64_t experts = 8, topK = 2, shared = 0, granularity = 1;
    std::string moeLayers = "all";       ///< as upcycle --layers
    bool freezeShared = true;
    double noise = 0.01;                 ///< upcycle

    std::string routerJson = R"({"type":"spectra","router_dim":32})"; ///< "router": {"type": …}, options of the registry; "dense": no experts

    // "tokenizer"
    std::string tokenizerFile;           ///< file: a tokenizer.json; empty: the checkpoint's, or a trained one
    std::int64_t vocabulary = 4096;      ///< vocabulary: of the byte-level BPE that is trained for a scratch run

    // "data"
    struct Domain {
        std::string name;
        std::vector<std::string> files;  ///< relative ones are seen from the config's folder
        double weight = 1;
        [[nodiscard]] bool operator==(const Domain &) const = default;
    };
    std::vector<Domain> domains;         ///< domains: {"NAME": "FILE" | ["FILE", …] | {"files": […], "weight": 1}}
    double heldOut = 0.05;               ///< held_out: share of each domain's text
    std::string textField = "text";
    std::int64_t minCharacters = 0, maxCharacters = 0; ///< filters of documents; 0: none
    bool deduplicate = false;
    std::int64_t maxTokens = 0;          ///< max_tokens per domain; 0: all

    // "training"
    std::int64_t steps = 1000, sequenceLength = 256, batchSequences = 8, accumulation = 1; ///< batch_sequences per micro-batch
    std::uint64_t seed = 0;              ///< of weights and every draw
    std::optional<std::uint64_t> dataSeed; ///< data_seed: of the data order; unset: seed
    std::string precision = "f32";       ///< f32 | bf16 | auto
    bool activationCheckpointing = false;
    double clip = 1.0;                   ///< of the global gradient norm; 0: none
    std::vector<double> targetLosses;    ///< target_losses: steps to reach each are reported

    // "optimizer"
    std::string optimizer = "adamw";     ///< type: adamw | muon
    double rateRouter = 5e-5, rateExperts = 1e-5, rateOther = 1e-5; ///< learning_rate: {"router", "experts", "other"} or one number for all
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weightDecay = 0.1;
    double muonMomentum = 0.95;
    double qkClip = 0;                   ///< τ of Kimi K2's QK-clip, 0: off

    // "schedule"
    std::string schedule = "cosine";     ///< type: cosine | constant
    std::int64_t warmup = 100;           ///< steps, linear
    double finalShare = 0.1;             ///< final: of the peak, at the last step
    double routerUntil = 1;              ///< router_until: share of the steps in which routers learn

    // "evaluation"
    std::int64_t evaluateEvery = 100;    ///< every; 0: at the end only
    std::int64_t evaluateTokens = 8192;  ///< tokens per domain of held-out text
    std::int64_t traceTokens = 2048;     ///< trace_tokens per domain in each step's trace; 0: none
    bool keepTraces = true;

    // "checkpoint"
    std::int64_t checkpointEvery = 100, keepCheckpoints = 2; ///< every, keep (0: all)
    std::string finalDtype = "f32";      ///< dtype: f32 | bf16 | f16, of the matrices in `final`; routers, norms and checkpoints stay f32

    // "calibration": last stage of a run with a causal SPECTRA router
    std::int64_t calibrationBatches = 80, calibrationBatchTokens = 4096; ///< batches (0: none), batch_tokens

    // "roma": what router roma_like is drawn to
    std::string romaBank;                ///< bank: folder that `spectra roma-bank` made of this configuration; empty: none
    std::string romaEmbeddings;          ///< embeddings: .npy [windows, D] of the bank's windows in the order of its windows.json; empty: the bank's own
    std::int64_t romaNeighbours = 3;     ///< neighbours: successful samples that a sample is drawn to
    double romaSigma = 0;                ///< sigma: width of the neighbours' Gaussian weights; 0: the median of all distances found

    /// `where` names the source. `settings`: "a.b=value", in order, the value as JSON or, where it is none, as text;
    /// "router.type=…" drops the options of the router before. Unsaid: kv_heads is heads; warmup at most a tenth of the steps;
    /// both `every` at most the steps. The router's options are filled in by the registry, whose errors come through.
    /// Errors (usage): an unknown key (named with its nearest valid one), a value of the wrong type or out of range (named
    /// with the range), settings that do not go together. Errors (input): not JSON, a key twice, too large or too deep.
    [[nodiscard]] static Result<TrainConfig> parse(std::string_view json, const std::string &where, const std::vector<std::string> &settings = {});
    /// Every key with its value: reads back to an equal config.
    [[nodiscard]] std::string toJson() const;
    [[nodiscard]] bool operator==(const TrainConfig &) const = default;
};

} // namespace spectra
