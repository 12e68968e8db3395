// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/trainsetup.h"

#include "engine/core/files.h"
#include "engine/run/loadedmodel.h"
#include "engine/train/upcycle.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace spectra {
namespace fs = std::filesystem;
namespace {

std::string routerType(const std::string &json)
{
    return nlohmann::json::parse(json, nullptr, false).value("type", std::string());
}

fs::path seenFrom(const fs::path &folder, const std::string &file)
{
    return fs::path(file).is_absolute() ? fs::path(file) : folder / file;
}

/// Multiply-adds of f32 that this machine does in a second in a product of the size that training has, times two.
double measuredFlops()
{
    const auto a = torch::rand({1024, 512}), b = torch::rand({512, 1024});
    auto c = torch::matmul(a, b);
    const auto start = std::chrono::steady_clock::now();
    int rounds = 0;
    double seconds = 0;
    while (seconds < 0.3) {
        torch::matmul_out(c, a, b);
        ++rounds;
        seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return 2.0 * 1024 * 512 * 1024 * rounds / seconds;
}

} // namespace

CorpusOptions corpusOptions(const TrainConfig &config, const fs::path &folder)
{
    CorpusOptions options;
    for (const TrainConfig::Domain &d : config.domains) {
        DomainSource source{d.name, {}, d.weight};
        for (const std::string &file : d.files)
            source.files.push_back(seenFrom(folder, file));
        options.domains.push_back(std::move(source));
    }
    options.heldOut = config.heldOut;
    options.textField = config.textField;
    options.minCharacters = config.minCharacters;
    options.maxCharacters = config.maxCharacters;
    options.deduplicate = config.deduplicate;
    options.maxTokens = config.maxTokens;
    return options;
}

Result<ModelConfig> trainedModelConfig(const TrainConfig &config, const Checkpoint *source, std::int64_t vocabulary)
{
    if (source)
        return source->config();
    ModelConfig m;
    const bool dense = routerType(config.routerJson) == "dense";
    m.architecture = config.architecture;
    m.modelType = dense ? config.architecture : "spectra";
    m.name = config.name;
    m.vocabulary = vocabulary;
    m.hidden = config.hidden;
    m.intermediate = config.intermediate;
    m.layers = config.layers;
    m.heads = config.heads;
    m.kvHeads = config.kvHeads;
    m.headDim = config.headDim > 0 ? config.headDim : config.hidden / config.heads;
    m.context = config.context;
    m.normEpsilon = config.normEpsilon;
    m.tiedHead = config.tiedHead;
    m.rope.theta = config.ropeTheta;
    if (dense)
        return m;
    m.experts = config.experts;
    m.topK = config.topK;
    m.sharedExperts = config.shared;
    m.expertIntermediate = config.intermediate / config.granularity;
    m.sharedIntermediate = config.shared * config.intermediate;
    m.routerJson = config.routerJson;
    SPECTRA_TRY(const LayerChoice choice, LayerChoice::parse(config.moeLayers));
    SPECTRA_TRY(m.moeLayers, choice.resolve(config.layers));
    return m;
}

Result<std::shared_ptr<const Checkpoint>> startingCheckpoint(const TrainConfig &config, const fs::path &folder, std::stop_token stop)
{
    if (config.start == "scratch")
        return std::shared_ptr<const Checkpoint>();
    std::error_code error;
    const fs::path beside = seenFrom(folder, config.checkpoint);
    SPECTRA_TRY(const fs::path path, Engine::resolveModel(fs::exists(beside, error) ? beside.string() : config.checkpoint, stop));
    SPECTRA_TRY(const auto source, Checkpoint::open(path));
    const std::string wanted = routerType(config.routerJson);
    // Its own router of the same kind is trained on; only another kind replaces it.
    if (wanted == "dense" || (source->config().moe() && routerType(source->config().routerJson) == wanted))
        return source;
    UpcycleOptions options;
    options.experts = config.experts;
    options.topK = config.topK;
    options.granularity = config.granularity;
    options.shared = config.shared;
    options.noise = config.noise;
    options.routerJson = config.routerJson;
    options.seed = config.seed;
    SPECTRA_TRY(options.layers, LayerChoice::parse(config.moeLayers));
    return upcycled(source, options);
}

Result<TrainSetup> openTrainSetup(const JobContext &context, const TrainRequest &request)
{
    TrainSetup setup;
    SPECTRA_TRY(setup.config, TrainConfig::parse(request.config, request.where, request.set));
    const TrainConfig &config = setup.config;
    SPECTRA_TRY(setup.source, startingCheckpoint(config, request.folder, context.stop));
    const CorpusOptions texts = corpusOptions(config, request.folder);
    const fs::path cache = cacheFolder();
    std::error_code error;
    fs::create_directories(cache, error);
    if (error)
        return workError("cannot be made: " + error.message(), cache.string(), "set XDG_CACHE_HOME to a folder that can be written");
    if (!config.tokenizerFile.empty()) {
        const fs::path file = seenFrom(request.folder, config.tokenizerFile);
        SPECTRA_TRY(setup.tokenizer, Tokenizer::fromJsonFile(file));
        SPECTRA_TRY(setup.tokenizerJson, readTextFile(file, std::uint64_t(1) << 28));
    } else if (setup.source) {
        SPECTRA_TRY(setup.tokenizer, tokenizerOf(*setup.source));
        setup.tokenizerJson = setup.tokenizer->toJson();
    } else {
        SPECTRA_TRY(setup.tokenizerJson, corpusTokenizer(texts, config.vocabulary, cache, context.progress(), context.stop));
        SPECTRA_TRY(setup.tokenizer, Tokenizer::fromJson(setup.tokenizerJson, "the trained tokenizer", corpusTokenizerConfig()));
    }
    if (setup.source && setup.tokenizer->size() > setup.source->config().vocabulary)
        return inputError(fmt::format("the tokenizer has {} tokens, the model {}", setup.tokenizer->size(), setup.source->config().vocabulary), config.tokenizerFile,
                          "tokenizer and model do not belong together");
    SPECTRA_TRY(setup.corpus, Corpus::open(texts, setup.tokenizer, config.sequenceLength + 1, cache, context.progress(), context.stop));
    SPECTRA_TRY(setup.model, trainedModelConfig(config, setup.source.get(), setup.tokenizer->size()));
    return setup;
}

Result<std::unique_ptr<TrainModel>> beginModel(const JobContext &context, const TrainSetup &setup, const fs::path &checkpoint)
{
    if (!checkpoint.empty()) {
        SPECTRA_TRY(const auto opened, Checkpoint::open(checkpoint));
        const ModelConfig &stored = opened->config();
        if (stored.hidden != setup.model.hidden || stored.layers != setup.model.layers || stored.experts != setup.model.experts
            || stored.vocabulary != setup.model.vocabulary || stored.moeLayers != setup.model.moeLayers)
            return inputError("the checkpoint is of another shape than the configuration describes", checkpoint.string(),
                              "continue with the configuration of the first run");
        return TrainModel::load(opened, setup.config.seed, context.progress(), context.stop);
    }
    if (setup.source)
        return TrainModel::load(setup.source, setup.config.seed, context.progress(), context.stop);
    return TrainModel::fresh(setup.model, setup.config.seed);
}

Result<TrainerOptions> trainerOptions(const TrainConfig &config)
{
    TrainerOptions options;
    options.optimizer = {config.optimizer, config.beta1, config.beta2, config.epsilon, config.weightDecay, config.muonMomentum};
    options.schedule = {config.schedule, config.steps, config.warmup, config.finalShare, config.routerUntil};
    options.peakRates = {config.rateRouter, config.rateExperts, config.rateOther};
    options.clip = config.clip;
    options.qkClip = config.qkClip;
    options.routerOnly = config.start == "router_only";
    options.freezeShared = config.freezeShared && config.start != "scratch"; // fresh shared experts have nothing to keep
    options.pass.activationCheckpointing = config.activationCheckpointing;
    if (config.precision == "bf16" && !cpuHasFastBf16())
        return usageError("this processor has no bf16 arithmetic", "training.precision", "use f32, or auto");
    options.pass.compute = config.precision != "f32" && cpuHasFastBf16() ? Compute::bf16 : Compute::f32;
    return options;
}

Result<std::string> dryRun(const JobContext &context, const TrainRequest &request, bool &fits, std::string &reason)
{
    SPECTRA_TRY(const TrainConfig config, TrainConfig::parse(request.config, request.where, request.set));
    nlohmann::ordered_json document;
    nlohmann::ordered_json missing = nlohmann::ordered_json::array();
    std::error_code error;
    for (const TrainConfig::Domain &d : config.domains)
        for (const std::string &file : d.files)
            if (!fs::exists(seenFrom(request.folder, file), error))
                missing.push_back({{"domain", d.name}, {"file", file}});
    std::shared_ptr<const Checkpoint> source;
    if (auto opened = startingCheckpoint(config, request.folder, context.stop); opened)
        source = *opened;
    else if (opened.error().kind == ErrorKind::input)
        missing.push_back({{"checkpoint", config.checkpoint}, {"sizes", "those of the configuration's \"model\""}});
    else
        return opened.error();
    TrainConfig sized = config;
    if (!source)
        sized.start = "scratch";
    SPECTRA_TRY(const ModelConfig model, trainedModelConfig(sized, source.get(), config.vocabulary));
    SPECTRA_TRY(const TrainerOptions options, trainerOptions(config));
    const TrainMemory memory = estimateTrainMemory(model, config.batchSequences, config.sequenceLength, options.pass, options.routerOnly);
    const TrainFlops flops = trainFlopsPerToken(model, config.sequenceLength);
    const double tokens = static_cast<double>(config.steps) * static_cast<double>(config.batchSequences) * static_cast<double>(config.accumulation) * static_cast<double>(config.sequenceLength);
    const double speed = measuredFlops();
    const std::uint64_t kept = config.keepCheckpoints > 0 ? static_cast<std::uint64_t>(config.keepCheckpoints) + 1
                                                          : static_cast<std::uint64_t>(config.steps / std::max<std::int64_t>(1, config.checkpointEvery) + 1);
    const std::uint64_t disk = kept * (memory.weights + memory.optimizer) + memory.weights;
    const std::uint64_t available = availableMemory();
    fs::path place = request.output.empty() ? fs::path(".") : request.output;
    while (!place.empty() && !fs::exists(place, error))
        place = place.parent_path();
    const fs::space_info space = fs::space(place.empty() ? fs::path(".") : place, error);
    fits = memory.total() <= available && (error || disk <= space.available);
    const auto gigabytes = [](double bytes) { return bytes / 1e9; };
    if (memory.total() > available)
        reason = fmt::format("training needs about {:.1f} GB of memory and this machine has {:.1f} GB free", gigabytes(static_cast<double>(memory.total())),
                             gigabytes(static_cast<double>(available)));
    else if (!fits)
        reason = fmt::format("checkpoints need about {:.1f} GB of disk and there are {:.1f} GB free", gigabytes(static_cast<double>(disk)),
                             gigabytes(static_cast<double>(space.available)));
    document["name"] = config.name;
    document["fits"] = fits;
    if (!fits)
        document["reason"] = reason;
    document["memory"] = {{"weights", memory.weights},       {"gradients", memory.gradients}, {"optimizer", memory.optimizer},
                          {"activations", memory.activations}, {"total", memory.total()},       {"available", available}};
    document["flops_per_token"] = {{"attention", flops.attention}, {"router", flops.router}, {"experts", flops.experts},
                                   {"dense", flops.dense},         {"head", flops.head},     {"total", flops.total()}};
    document["router_flops_share"] = flops.total() > 0 ? flops.router / flops.total() : 0;
    document["tokens"] = tokens;
    document["machine_flops_per_s"] = speed;
    // Large products run at the measured speed; a step of small ones reaches about half of it.
    document["seconds"] = flops.total() * tokens / (0.5 * speed);
    document["disk"] = {{"needed", disk}, {"available", error ? 0 : space.available}};
    document["parameters"] = memory.weights / 4;
    document["missing"] = std::move(missing);
    return document.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace spectra
