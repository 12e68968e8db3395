// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/run/environment.h"
#include "engine/run/promptrun.h"
#include "engine/trace/tracereader.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>
#include <unistd.h>

namespace spectra {
namespace fs = std::filesystem;
namespace {

fs::path partOf(fs::path output)
{
    return output += ".part";
}

Result<std::map<int, Intervention>> interventions(const TraceRequest &request, const ModelConfig &config)
{
    std::map<int, Intervention> map;
    const auto add = [&](const std::vector<std::pair<int, int>> &pairs, bool forced) -> Result<void> {
        for (const auto &[layer, expert] : pairs) {
            const char *flag = forced ? "--force-expert" : "--mask-expert";
            if (std::find(config.moeLayers.begin(), config.moeLayers.end(), layer) == config.moeLayers.end())
                return usageError(fmt::format("layer {} has no experts", layer), flag);
            if (expert >= config.experts)
                return usageError(fmt::format("there is no expert {} (0 to {})", expert, config.experts - 1), flag);
            (forced ? map[layer].forced : map[layer].masked).push_back(expert);
        }
        return {};
    };
    SPECTRA_CHECK(add(request.maskExperts, false));
    SPECTRA_CHECK(add(request.forceExperts, true));
    return map;
}

Result<void> checkCausality(const Model &model, bool allowed)
{
    if (model.causal() || allowed)
        return {};
    return usageError("the router's choices depend on later tokens", "router",
                      model.router()->family() == "spectra" ? "set sinkhorn_scope=causal, or give --allow-noncausal to run it all the same"
                                                           : "give --allow-noncausal to run it all the same, or use another router");
}

/// Prints what the capture costs and refuses a run that will not fit the disk.
Result<void> checkSpace(const JobContext &context, const TraceRequest &request, const TraceSpec &spec, std::int64_t tokens, Summary &summary)
{
    Capture kept;
    kept.fields = spec.capture.fields & spec.available;
    const double share = tokens > 0 ? std::min(1.0, static_cast<double>(spec.hiddenTokens) / static_cast<double>(tokens)) : 1.0;
    summary.bytesPerToken = kept.bytesPerToken({spec.layers(), spec.experts, spec.slots, spec.routerDim, spec.hidden, spec.f16 ? 2 : 4, share});
    const double total = summary.bytesPerToken * static_cast<double>(tokens);
    context.sink->note(context.id, fmt::format("capture {}: {:.0f} bytes per token uncompressed, about {:.1f} MB in all", kept.toString(),
                                               summary.bytesPerToken, total / 1e6));
    std::error_code error;
    const fs::path folder = request.output.has_parent_path() ? request.output.parent_path() : fs::path(".");
    const fs::space_info space = fs::space(folder, error);
    if (!error && !request.ignoreDiskSpace && static_cast<double>(space.available) < total)
        return workError(fmt::format("the trace needs about {:.1f} GB and the disk has {:.1f} GB", total / 1e9,
                                     static_cast<double>(space.available) / 1e9),
                         request.output.string(), "capture less (--capture), fewer tokens (--max-tokens), or give --ignore-disk-space");
    return {};
}

/// Said before a model is loaded rather than after. Errors (work).
Result<void> checkFolder(const fs::path &output)
{
    const fs::path folder = output.has_parent_path() ? output.parent_path() : fs::path(".");
    std::error_code error;
    if (!fs::is_directory(folder, error))
        return workError("there is no such folder", folder.string(), "make it first, or name another place with -o");
    if (::access(folder.c_str(), W_OK | X_OK) != 0)
        return workError("the folder is not writable", folder.string(), "choose another place with -o");
    return {};
}

/// A run is continued with its own prompts only. Errors (input).
Result<void> checkSamePrompts(const fs::path &part, const std::vector<TokenSequence> &sequences)
{
    const auto differs = [&](std::size_t i) {
        return inputError("was begun with other prompts or cut otherwise", fmt::format("{}: sequence {}", part.string(), i),
                          "continue with the prompts and flags of the first run, or start a new one without --resume");
    };
    SPECTRA_TRY(const auto trace, TraceReader::open(part));
    SPECTRA_TRY(const auto written, trace->sequences());
    if (written->size() > sequences.size())
        return differs(sequences.size());
    for (std::size_t i = 0; i < written->size(); ++i) {
        const SequenceInfo &before = (*written)[i];
        const TokenSequence &now = sequences[i];
        // The text of a generated sequence goes on after its prompt.
        if (before.id != now.id || before.domain != now.domain || before.label != now.label || !before.text.starts_with(now.text)
            || before.promptLength != static_cast<std::int32_t>(now.ids.size()))
            return differs(i);
    }
    return {};
}

void warnOfContext(const ModelConfig &config, const std::vector<std::int64_t> &lengths, Summary &summary)
{
    const std::int64_t longest = lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
    if (config.context > 0 && longest > config.context)
        summary.warnings.push_back(fmt::format("sequences of up to {} tokens are longer than the context of {} that the model was trained with",
                                               longest, config.context));
}

void fillSummary(Summary &summary, const PromptRun &run, const LoadedModel &loaded, std::size_t sequences)
{
    summary.model = loaded.handle;
    summary.tokens = run.tokens;
    summary.sequences = static_cast<std::int64_t>(sequences);
    summary.seconds = run.seconds;
    summary.loadSeconds = loaded.loadSeconds;
    summary.tokensPerSecond = run.seconds > 0 ? static_cast<double>(run.tokens) / run.seconds : 0;
    const PassTiming &t = run.timing;
    const double known = t.attention + t.router + t.experts + t.dense + t.head + t.capture;
    const double all = std::max(run.seconds, known);
    if (all > 0)
        summary.timeShares = {{"attention", t.attention / all}, {"router", t.router / all}, {"experts", t.experts / all},
                              {"dense", t.dense / all}, {"head", t.head / all}, {"capture", t.capture / all},
                              {"other", std::max(0.0, 1 - known / all)}};
}

} // namespace

Result<TraceSpec> traceSpecFor(LoadedModel &loaded, const ModelSpec &modelSpec, const Capture &capture)
{
    Model &model = *loaded.model;
    const ModelConfig &config = model.config();
    SPECTRA_TRY(const RouterAbilities abilities, routerAbilities(model));
    TraceSpec spec;
    spec.capture = capture;
    spec.available = abilities.fields;
    spec.experts = static_cast<int>(config.experts);
    spec.slots = abilities.slots;
    spec.routerDim = abilities.routerDim;
    spec.hidden = static_cast<int>(config.hidden);
    spec.seed = modelSpec.seed;
    for (std::int64_t l = 0; l < config.layers; ++l) {
        const bool moe = config.moe() && std::find(config.moeLayers.begin(), config.moeLayers.end(), l) != config.moeLayers.end();
        (moe ? spec.decoderIndex : spec.denseIndex).push_back(static_cast<std::int32_t>(l));
    }
    ModelAttributes &m = spec.model;
    m.name = config.name;
    m.architecture = config.architecture;
    m.config = loaded.checkpoint->configJson();
    m.dtype = model.compute() == Compute::bf16 ? "bf16" : "f32";
    m.device = model.device().is_cuda() ? "cuda" : "cpu";
    m.tokenizerSha256 = loaded.tokenizer->sha256();
    m.layers = static_cast<std::int32_t>(config.layers);
    m.experts = static_cast<std::int32_t>(config.experts);
    m.topK = static_cast<std::int32_t>(config.topK);
    m.sharedExperts = static_cast<std::int32_t>(config.sharedExperts);
    m.routerDim = abilities.routerDim;
    m.hidden = static_cast<std::int32_t>(config.hidden);
    m.normalizeTopK = config.normalizeTopK;
    m.routedScalingFactor = config.routedScalingFactor;
    m.causal = model.causal();
    m.trainingStep = config.trainingStep;
    m.seed = static_cast<std::int64_t>(modelSpec.seed);
    m.note = loaded.note;
    if (const Router *router = model.router()) {
        m.router = router->name();
        const auto options = nlohmann::json::parse(router->options(), nullptr, false);
        m.scoreFunction = router->family() == "spectra" ? "cosine" : "softmax";
        if (router->family() == "spectra" && options.is_object()) {
            m.sinkhornScope = options.value("sinkhorn_scope", "causal");
            m.gruAxis = options.value("gru_axis", "sequence");
            m.sinkhornEpsilon = options.value("sinkhorn_epsilon", 0.05);
            m.sinkhornIterations = options.value("sinkhorn_iterations", 3);
            m.repulsionWeight = options.value("osr_repulsion_weight", 0.5);
            m.capacityFactor = options.value("expert_choice_capacity_factor", 1.25);
        }
    } else {
        m.router = "dense";
        m.scoreFunction = "none";
    }
    return spec;
}

Result<Summary> runLoad(const JobContext &context, const LoadRequest &request)
{
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    Summary summary;
    summary.model = loaded->handle;
    summary.loadSeconds = summary.seconds = loaded->loadSeconds;
    return summary;
}

Result<Summary> runTrace(const JobContext &context, const TraceRequest &request)
{
    if (!request.output.empty()) {
        SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
        SPECTRA_CHECK(checkFolder(request.output));
    }
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    Model &model = *loaded->model;
    SPECTRA_CHECK(checkCausality(model, request.allowNonCausal));
    SPECTRA_TRY(auto forced, interventions(request, model.config()));
    context.report({"tokenising", 0, 0, "tokens"});
    SPECTRA_TRY(const CutResult cut, cutPrompts(request.prompts, *loaded->tokenizer, model.config().vocabulary,
                                                {request.sequenceLength, request.maxTokens, request.parseSpecial, false, context.stop}));
    SPECTRA_TRY(TraceSpec spec, traceSpecFor(*loaded, request.spec, request.capture));
    spec.environment = environmentAttributes(request.commandLine, context.threads);
    spec.f16 = request.dtype != "f32";
    spec.compress = request.compress;
    spec.live = request.live;
    spec.hiddenTokens = request.hiddenTokens;
    for (const TokenSequence &s : cut.sequences)
        spec.plannedLengths.push_back(static_cast<std::int64_t>(s.ids.size()) + request.maxNewTokens);
    Summary summary;
    summary.warnings = cut.warnings;
    warnOfContext(model.config(), spec.plannedLengths, summary);
    summary.output = request.output;

    std::unique_ptr<TraceWriter> writer;
    std::shared_ptr<LiveTrace> live;
    std::vector<LayerTables> sums;
    std::int32_t firstSequence = 0;
    std::int64_t firstToken = 0;
    bool resumedRun = false;
    if (request.output.empty()) {
        live = std::make_shared<LiveTrace>(spec);
        context.sink->traceOpened(context.id, live);
    } else {
        SPECTRA_CHECK(checkSpace(context, request, spec, cut.tokens + static_cast<std::int64_t>(cut.sequences.size()) * request.maxNewTokens, summary));
        if (request.resume && TraceWriter::resumable(request.output)) {
            SPECTRA_CHECK(checkSamePrompts(partOf(request.output), cut.sequences));
            SPECTRA_TRY(auto resumed, TraceWriter::resume(request.output, spec, request.overwrite));
            writer = std::move(resumed.writer);
            sums = std::move(resumed.sums);
            firstSequence = static_cast<std::int32_t>(resumed.sequencesDone);
            firstToken = resumed.tokensDone;
            resumedRun = true;
            context.sink->note(context.id, fmt::format("going on after {} sequences ({} tokens)", firstSequence, firstToken));
        } else {
            SPECTRA_TRY(writer, TraceWriter::create(request.output, spec, request.overwrite));
        }
    }
    Recorder recorder(model, spec, writer.get(), live.get());
    if (!sums.empty())
        recorder.restore(sums);

    // Hashing reads every byte of the checkpoint: beside the run, never in front of it.
    std::optional<Result<std::string>> digest;
    std::jthread hashing;
    if (writer)
        hashing = std::jthread([&digest, checkpoint = loaded->checkpoint](const std::stop_token &stop) { digest = checkpoint->sha256(stop); });
    const std::stop_callback stopHashing(context.stop, [&hashing] { hashing.request_stop(); });

    PromptRun run(context, *loaded, spec, recorder, cut.sequences);
    run.batch = request.batch;
    run.maxNewTokens = request.maxNewTokens;
    run.sampling = request.sampling;
    run.seed = request.spec.seed;
    run.interventions = std::move(forced);
    run.firstSequence = firstSequence;
    run.firstToken = firstToken;
    const Result<void> done = run.run();
    fillSummary(summary, run, *loaded, cut.sequences.size() - static_cast<std::size_t>(firstSequence));
    if (live) { // also when it was stopped: what has arrived stays open in the window and can be saved
        live->finish(recorder.tables(), run.seconds + loaded->loadSeconds);
        summary.trace = live;
    }
    const auto kept = [&](Error error) -> Error {
        if (const auto closed = writer->cancel(recorder.tables()); !closed.ok())
            return closed.error();
        error.in(writer->file().string());
        if (error.mend.empty() || error.kind == ErrorKind::cancelled)
            error.mend = "what is finished is kept there; --resume goes on";
        return error;
    };
    if (!done.ok()) {
        hashing.request_stop();
        if (!writer)
            return done.error();
        // A stop keeps what is there. So does the failure of a continued run: it must not cost what an earlier one wrote.
        if (done.error().kind == ErrorKind::cancelled || resumedRun)
            return kept(done.error());
        writer->discard();
        return done.error();
    }
    if (writer) {
        if (hashing.joinable())
            hashing.join();
        if (digest && !digest->ok() && digest->error().kind == ErrorKind::cancelled)
            return kept(digest->error());
        if (digest && digest->ok())
            SPECTRA_CHECK(writer->setCheckpointSha256(**digest));
        if (const auto finished = writer->finish(recorder.tables(), run.seconds + loaded->loadSeconds); !finished.ok()) {
            if (!resumedRun)
                writer->discard();
            return finished.error();
        }
    }
    summary.text = run.generated;
    return summary;
}

Result<Summary> runGenerate(const JobContext &context, const GenerateRequest &request)
{
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    Model &model = *loaded->model;
    SPECTRA_CHECK(checkCausality(model, request.allowNonCausal));
    Prompt prompt;
    prompt.id = "prompt";
    prompt.text = request.text;
    if (prompt.text.empty())
        return inputError("the prompt is empty", "prompt", "type some text first");
    SPECTRA_TRY(const CutResult cut, cutPrompts({prompt}, *loaded->tokenizer, model.config().vocabulary, {0, 0, request.parseSpecial, true, context.stop}));
    SPECTRA_TRY(TraceSpec spec, traceSpecFor(*loaded, request.spec, request.capture));
    spec.environment = environmentAttributes("workbench", context.threads);
    for (const TokenSequence &s : cut.sequences)
        spec.plannedLengths.push_back(static_cast<std::int64_t>(s.ids.size()) + request.maxNewTokens);
    Summary summary;
    summary.warnings = cut.warnings;
    warnOfContext(model.config(), spec.plannedLengths, summary);
    const auto live = std::make_shared<LiveTrace>(spec);
    context.sink->traceOpened(context.id, live);
    Recorder recorder(model, spec, nullptr, live.get());
    PromptRun run(context, *loaded, spec, recorder, cut.sequences);
    run.maxNewTokens = request.maxNewTokens;
    run.sampling = request.sampling;
    run.seed = request.spec.seed;
    run.streamTokens = true;
    const Result<void> done = run.run();
    live->finish(recorder.tables(), run.seconds + loaded->loadSeconds);
    if (!done.ok())
        return done.error();
    fillSummary(summary, run, *loaded, cut.sequences.size());
    summary.trace = live;
    summary.text = run.generated;
    return summary;
}

} // namespace spectra
