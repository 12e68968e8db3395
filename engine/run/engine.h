// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/capture.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/core/routingrecord.h"
#include "engine/core/tracesource.h"

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

namespace spectra {

using JobId = std::uint64_t;
using ModelHandle = std::uint64_t;

/// Turns a dense model into a mixture of experts, or replaces the router of one.
struct UpcycleSettings {
    int experts = 8;
    int topK = 0;                            ///< 0: 2 for a dense model, its own for a model with experts
    int granularity = 1, shared = 0;
    std::string router = "spectra";
    std::vector<std::string> set = {};       ///< "key=value" router settings; for spectra router_dim is 32 unless set
    double noise = 0.01;                     ///< relative rms of the symmetry-breaking noise
    std::string layers = "all";              ///< all, every:N, from:N or a comma-separated list
    std::string scaling = "exact";           ///< exact or nvidia
    std::string dtype = "f32";               ///< f32, bf16, f16 of the written folder
};

/// Which model to run and how. `model`: folder, .gguf, or a bundled name ("smollm2-135m").
struct ModelSpec {
    std::string model;
    std::optional<UpcycleSettings> upcycle;  ///< `--router`: on the fly
    std::vector<std::string> set;            ///< router settings on the checkpoint's own router
    std::string compute = "f32";             ///< f32, bf16, auto
    std::string device = "auto";             ///< cpu, cuda, auto
    std::uint64_t seed = 0;
};

/// One prompt before tokenisation.
struct Prompt {
    std::string id, domain, label, text;
    std::vector<std::int32_t> ids;           ///< given instead of text: nothing added or cut
    int group = 0;                           ///< prompts of one file share it; maxTokens counts per group
    std::string document;                    ///< of a whole-document prompt: its sequences are named DOCUMENT:number
};

struct Sampling {
    double temperature = 0;                  ///< 0: greedy
    double topP = 1;
    int topK = 0;                            ///< 0: all
};

struct LoadRequest { ModelSpec spec; };
struct UnloadRequest { ModelHandle handle = 0; };

/// Runs prompts and writes or publishes a trace.
struct TraceRequest {
    ModelSpec spec;
    std::vector<Prompt> prompts;             ///< in order; domains and ids already set
    std::filesystem::path output;            ///< empty: live trace only
    bool overwrite = false, resume = false, live = false, allowNonCausal = false, parseSpecial = false;
    Capture capture = Capture::standard();
    std::string dtype = "f16";
    int compress = 1;
    int maxNewTokens = 0;
    Sampling sampling;
    int sequenceLength = 512;                ///< tokens incl. BOS
    std::int64_t maxTokens = 0;              ///< per file (prompt group), 0: all
    int batch = 1;
    std::int64_t hiddenTokens = 8192;
    std::vector<std::pair<int, int>> maskExperts, forceExperts; ///< (decoder layer, expert)
    bool ignoreDiskSpace = false;            ///< start even when the estimate does not fit the disk
    std::string commandLine;
};

/// Interactive form of TraceRequest: one prompt, tokens streamed.
struct GenerateRequest {
    ModelSpec spec;
    std::string text;
    int maxNewTokens = 64;
    Sampling sampling;
    Capture capture = Capture::standard();
    bool allowNonCausal = false, parseSpecial = false;
};

struct LogitsRequest {
    ModelSpec spec;
    Prompt prompt;
    bool addSpecial = true, parseSpecial = false, layers = false;
    std::filesystem::path output;
    bool overwrite = false;
};

struct UpcycleRequest {
    ModelSpec spec;
    UpcycleSettings settings;
    std::filesystem::path output;
    bool overwrite = false;
    std::vector<Prompt> calibration;         ///< empty: not calibrated
    int calibrationBatches = 0, calibrationBatchTokens = 0; ///< 0: the method's 80 and 4,096
};

struct CalibrateRequest {
    ModelSpec spec;
    std::vector<Prompt> prompts;
    std::filesystem::path output;
    bool overwrite = false;
    int batches = 80, batchTokens = 4096, sequenceLength = 512;
};

/// Trains or continues a run (configuration keys: engine/train/trainconfig.h).
struct TrainRequest {
    std::string config;                      ///< JSON text
    std::string where;                       ///< the file it came from, for errors
    std::filesystem::path folder;            ///< relative data files are seen from here
    std::vector<std::string> set;            ///< "a.b=value"
    std::filesystem::path output;
    bool overwrite = false, resume = false;
    bool dryRun = false;                     ///< only what it would need; writes nothing
    std::int64_t maxSteps = 0;               ///< stop with a checkpoint after this many steps in all; 0: the configuration's
    std::string device = "auto";
    std::string commandLine;
};

/// Scores a model on a task (engine/tasks). `taskCatalog()` names them.
struct EvalRequest {
    ModelSpec spec;
    std::string task;
    std::filesystem::path data;              ///< JSON lines; text for the perplexity tasks
    std::filesystem::path shotsData;         ///< where solved examples come from; empty: the data itself, without the item
    std::filesystem::path against;           ///< file of items of another run; empty: none
    std::filesystem::path output;            ///< file of items; empty: none
    int shots = -1;                          ///< < 0: the task's own number
    bool shotsInOrder = false;               ///< the first ones of the file instead of drawn ones
    std::int64_t limit = 0;                  ///< items; 0: all
    int sequenceLength = 0;                  ///< tokens of a window or prompt; 0: the model's context
    int maxNewTokens = 0;                    ///< 0: the task's own number
    int samples = 1;                         ///< programs drawn per problem
    double temperature = -1;                 ///< < 0: greedy for one sample, 0.8 for several
    double topP = 1;
    std::vector<int> passK;                  ///< k of pass@k; empty: 1
    double programSeconds = 10;              ///< wall clock of one program
    bool overwrite = false, allowNonCausal = false;
};

/// Runs a model over the training windows of a configuration with router roma_like and keeps those on which it succeeds (engine/run/romawindows.h).
struct RomaBankRequest {
    ModelSpec spec;
    std::string config, where;               ///< as TrainRequest
    std::filesystem::path folder;
    std::vector<std::string> set;
    std::filesystem::path output;            ///< folder
    std::filesystem::path embeddings;        ///< .npy [windows, D] of an embedder outside; empty: the model's own
    std::int64_t windows = 0;                ///< that many, drawn evenly by spec.seed; 0: all
    bool overwrite = false;
};

using Request = std::variant<LoadRequest, UnloadRequest, TraceRequest, GenerateRequest, LogitsRequest, UpcycleRequest, CalibrateRequest, EvalRequest, TrainRequest, RomaBankRequest>;

/// Result of a finished job; which fields hold something depends on the request.
struct Summary {
    ModelHandle model = 0;
    std::filesystem::path output;
    std::int64_t tokens = 0, sequences = 0;
    double seconds = 0, tokensPerSecond = 0, loadSeconds = 0;
    double bytesPerToken = 0;
    std::map<std::string, double> timeShares;    ///< by component: router, attention, experts, head, capture, other
    double maxLogitDifference = -1;              ///< upcycle: on the probe text, < 0: not measured
    std::vector<double> cvBefore, cvAfter;       ///< calibrate: per MoE layer
    std::shared_ptr<const TraceSource> trace;    ///< of a job without output file
    std::string text;                            ///< generated text
    std::string document;                        ///< eval, bank: the result; train: the result, or what a dry run found; as JSON
    std::vector<std::string> warnings;
};

/// A token of a running job, for display.
struct TokenEvent {
    std::int64_t token = 0;                      ///< running number in the trace
    std::int32_t sequence = 0, id = 0;
    bool generated = false;
    std::string text;                            ///< printable text of this token
    std::vector<std::uint16_t> topExperts;       ///< per MoE layer, kNoExpert = none
};

/// Receives a job's events on the engine thread, in order: started, then progress, note, tokens, records and traceOpened in any
/// order, then exactly one finished. Implementations hand over and return at once.
class EngineSink {
public:
    virtual ~EngineSink() = default;
    virtual void started(JobId) {}
    virtual void progress(JobId, const Progress &) {}
    virtual void note(JobId, const std::string &) {}     ///< a line for a person: "capturing 1,234 bytes per token"
    virtual void tokens(JobId, std::span<const TokenEvent>) {}
    virtual void traceOpened(JobId, std::shared_ptr<const TraceSource>) {}  ///< a live trace that grows while the job runs
    virtual void finished(JobId, Result<Summary>) {}
};

/// What a loaded or loadable model is, without running it.
struct ModelSummary {
    std::string name, architecture, format, router, note;
    std::int64_t parameters = 0, layers = 0, hidden = 0, vocabulary = 0, experts = 0, topK = 0, context = 0;
    std::vector<std::int64_t> moeLayers;
    std::uint64_t estimatedMemory = 0;           ///< bytes, weights as f32 plus a KV cache of the context (at most 4,096 tokens)
    bool causal = true;
};

struct BundledModel {
    std::string name, title, source, licence;
    std::filesystem::path path;                  ///< where it is or would be
    bool present = false;
};

/// The one door to models: a thread that owns every tensor, and its job queue. submit(), cancel() and the destructor may be
/// called from any thread. Destruction refuses new jobs, cancels all, and joins.
class Engine {
public:
    explicit Engine(std::shared_ptr<EngineSink> sink, int threads = 0);
    ~Engine();
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    /// Errors: work (the queue of 64 jobs is full, or the engine is stopping), usage (values out of range).
    [[nodiscard]] Result<JobId> submit(Request request);
    void cancel(JobId job);
    void cancelAll();

    [[nodiscard]] static std::vector<BundledModel> bundledModels();
    /// The path of a MODEL argument: a path, or a bundled name (fetched on first use). Errors: input, cancelled.
    [[nodiscard]] static Result<std::filesystem::path> resolveModel(const std::string &model, std::stop_token stop = {});

private:
    struct Private;
    std::unique_ptr<Private> d;
};

} // namespace spectra
