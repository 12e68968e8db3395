// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/core/random.h"
#include "engine/run/environment.h"
#include "engine/run/heldout.h"
#include "engine/run/routingcourse.h"
#include "engine/run/runfolder.h"
#include "engine/run/runlog.h"
#include "engine/run/trainsetup.h"
#include "engine/train/calibrate.h"
#include "engine/train/processes.h"
#include "engine/train/upcycle.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <set>

namespace spectra {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr int kShares[] = {10, 25, 50, 75, 100};

/// Steps after which the held-out text is looked at: every n, and where the tables want the loss.
std::set<std::int64_t> evaluationSteps(const TrainConfig &config)
{
    std::set<std::int64_t> steps;
    for (const int share : kShares)
        steps.insert(std::max<std::int64_t>(1, (config.steps * share + 99) / 100));
    if (config.evaluateEvery > 0)
        for (std::int64_t s = config.evaluateEvery; s <= config.steps; s += config.evaluateEvery)
            steps.insert(s);
    return steps;
}

/// One training run from its folder: steps, evaluations, checkpoints, and its end.
class TrainRun {
public:
    TrainRun(const JobContext &runContext, const TrainRequest &trainRequest, TrainSetup runSetup, std::shared_ptr<ProcessGroup> group)
        : context(runContext), request(trainRequest), setup(std::move(runSetup)), config(setup.config), processes(std::move(group)),
          rank(processes ? processes->rank() : 0), size(processes ? processes->size() : 1),
          sampler(setup.corpus, config.sequenceLength, config.dataSeed.value_or(config.seed),
                  config.romaBank.empty() ? BatchSampler::Cut::shifted : BatchSampler::Cut::fixed)
    {
    }

    Result<Summary> run();

private:
    [[nodiscard]] Result<void> start();
    [[nodiscard]] Result<void> prepareRouter();
    [[nodiscard]] Result<void> openBank();
    [[nodiscard]] Result<void> agree() const;
    [[nodiscard]] bool stopWanted() const;
    [[nodiscard]] Result<std::vector<TrainBatch>> batches(std::int64_t step) const;
    [[nodiscard]] ModelConfig describe(bool calibrated) const;
    [[nodiscard]] Result<void> checkpoint();
    [[nodiscard]] Result<LoadedModel> frozen(std::shared_ptr<const Checkpoint> weights) const;
    [[nodiscard]] JobContext looking() const;
    [[nodiscard]] std::map<std::string, double> memory() const;
    [[nodiscard]] Result<void> evaluate(std::int64_t step);
    [[nodiscard]] Result<void> finish(Summary &summary);
    [[nodiscard]] bool calibrates() const;
    [[nodiscard]] Json resultJson(const Evaluation &last, const std::optional<CalibrationResult> &calibration) const;

    const JobContext &context;
    const TrainRequest &request;
    TrainSetup setup;
    const TrainConfig &config;
    std::shared_ptr<ProcessGroup> processes; ///< null: one process
    int rank, size;
    BatchSampler sampler;
    std::optional<RomaTargets> roma;         ///< what the router is drawn to; none: nothing
    HeldOutText heldOut;
    std::unique_ptr<RunFolder> folder;
    std::unique_ptr<Trainer> trainer;
    std::optional<RunLog> log;
    std::int64_t saved = 0;                  ///< step of the newest checkpoint
    double joules = -1;
};

Result<std::vector<TrainBatch>> TrainRun::batches(std::int64_t step) const
{
    const std::int64_t s = config.batchSequences, t = config.sequenceLength;
    std::vector<TrainBatch> list;
    for (std::int64_t micro = 0; micro < config.accumulation; ++micro) {
        TrainBatch batch;
        batch.ids = torch::empty({s, t}, torch::kInt64);
        batch.targets = torch::empty({s, t}, torch::kInt64);
        auto *const ids = batch.ids.data_ptr<std::int64_t>(), *const targets = batch.targets.data_ptr<std::int64_t>();
        // All processes together take one stretch of the order, each its part.
        const std::int64_t number = (step * config.accumulation + micro) * size + rank;
        std::vector<BatchSampler::Sequence> sequences;
        for (std::int64_t i = 0; i < s; ++i) {
            const auto &sequence = sequences.emplace_back(sampler.at(number * s + i));
            for (std::int64_t j = 0; j < t; ++j) {
                ids[i * t + j] = sequence.tokens[static_cast<std::size_t>(j)];
                targets[i * t + j] = sequence.tokens[static_cast<std::size_t>(j + 1)];
            }
        }
        batch.seed = Random(config.seed, static_cast<std::uint64_t>(number) + 1)();
        if (roma) {
            SPECTRA_TRY(batch.manifold, roma->of(sequences));
        }
        list.push_back(std::move(batch));
    }
    return list;
}

ModelConfig TrainRun::describe(bool calibrated) const
{
    ModelConfig model = trainer->model().config();
    model.trainingStep = trainer->stepsDone();
    if (const Router *const router = trainer->model().router()) {
        model.routerJson = router->options();
        model.routerTrained = true;
        model.routerCalibrated = calibrated;
    }
    return model;
}

Result<void> TrainRun::checkpoint()
{
    // A step whose update overflowed has a good loss behind it: what cannot be gone on from does not take the place of what can.
    for (const TrainParameter &p : trainer->model().parameters())
        if (!torch::isfinite(p.value).all().item<bool>())
            return workError(fmt::format("step {} left weights that are not finite", trainer->stepsDone()), p.layer >= 0 ? fmt::format("layer {}: {}", p.layer, p.name) : p.name,
                             "lower the learning rate, raise the warm-up, or clip more; earlier checkpoints are intact");
    FolderOptions options;
    options.place = folder->checkpoint(trainer->stepsDone());
    options.overwrite = true;
    options.tokenizerJson = setup.tokenizerJson;
    options.tokenizerConfigJson = setup.tokenizer->toConfigJson();
    options.extra = [this](const fs::path &place) { return trainer->saveState(place); };
    if (auto written = writeFolder(*trainer->model().snapshot(describe(false), false), options, {}, {}); !written.ok()) {
        Error error = std::move(written.error()).in(options.place.string());
        error.mend = fmt::format("make room, then continue with --resume: earlier checkpoints are intact{}", saved > 0 ? fmt::format(" (step {})", saved) : "");
        return error;
    }
    saved = trainer->stepsDone();
    folder->keepCheckpoints(config.keepCheckpoints);
    return {};
}

Result<LoadedModel> TrainRun::frozen(std::shared_ptr<const Checkpoint> weights) const
{
    const torch::NoGradGuard noGrad;
    LoadedModel loaded;
    loaded.checkpoint = std::move(weights);
    loaded.tokenizer = setup.tokenizer;
    SPECTRA_TRY(loaded.model, Model::load(loaded.checkpoint, LoadOptions(), {}, looking().stop));
    return loaded;
}

/// Of several processes one looks while the others wait in the next step's exchange: it does not leave them there, a stop comes after it.
JobContext TrainRun::looking() const
{
    JobContext here = context;
    if (processes)
        here.stop = std::stop_token();
    return here;
}

std::map<std::string, double> TrainRun::memory() const
{
    std::map<std::string, double> bytes;
    double known = 0;
    for (const auto &[name, size_] : trainer->memory())
        known += bytes[name] = static_cast<double>(size_);
    bytes["peak"] = static_cast<double>(peakMemory());
    bytes["rest"] = std::max(0.0, bytes["peak"] - known); // activations at their largest, texts, libraries
    return bytes;
}

Result<void> TrainRun::evaluate(std::int64_t step)
{
    SPECTRA_TRY(LoadedModel loaded, frozen(trainer->model().snapshot(describe(false), false)));
    const fs::path trace = config.keepTraces && config.traceTokens > 0 ? folder->trace(step) : fs::path();
    SPECTRA_TRY(Evaluation evaluation, evaluateHeldOut(looking(), loaded, heldOut, step, trace, request.commandLine, false));
    evaluation.memory = memory();
    SPECTRA_CHECK(log->add(evaluation, heldOut.domains));
    SPECTRA_CHECK(log->writeMetrics());
    context.sink->note(context.id, fmt::format("step {}: held-out loss {:.4f}", step, evaluation.loss));
    return {};
}

bool TrainRun::calibrates() const
{
    const Router *const router = trainer->model().router();
    if (!router || config.calibrationBatches == 0)
        return false;
    const auto options = nlohmann::json::parse(router->options(), nullptr, false);
    return options.contains("calibrated_epsilon") && options.value("scoring", "") == "osr" && options.value("sinkhorn_scope", "") == "causal";
}

/// Processes that differ would go on side by side with nonsense. Errors (input).
Result<void> TrainRun::agree() const
{
    const std::string all = config.toJson() + setup.corpus->manifest() + setup.tokenizerJson + (roma ? roma->sha256() : std::string());
    Sha256 sha;
    sha.add(std::as_bytes(std::span(all.data(), all.size())));
    const std::string own = sha.hex();
    auto first = torch::empty({static_cast<std::int64_t>(own.size())}, torch::kUInt8);
    std::copy(own.begin(), own.end(), first.data_ptr<std::uint8_t>());
    processes->broadcast(first);
    if (!std::equal(own.begin(), own.end(), first.data_ptr<std::uint8_t>()))
        return inputError(fmt::format("process {} of {} has another configuration or other texts than process 0", rank, size), request.where,
                          "start every process with the same configuration, settings and files");
    return {};
}

/// All processes stop behind the same step.
bool TrainRun::stopWanted() const
{
    if (!processes)
        return context.stop.stop_requested();
    auto wanted = torch::full({1}, context.stop.stop_requested() ? 1.0 : 0.0, torch::kFloat64);
    processes->sumInPlace(wanted);
    return wanted.item<double>() > 0;
}

/// Gives a fresh router what it must know of the texts and the model before the first step.
Result<void> TrainRun::prepareRouter()
{
    Router *const router = trainer->model().router();
    if (!router)
        return {};
    if (router->needs().tokenCounts) {
        auto counts = torch::zeros({setup.model.vocabulary}, torch::kInt64);
        for (std::size_t d = 0; d < setup.corpus->domains().size(); ++d)
            for (const std::int32_t id : setup.corpus->training(d))
                ++counts.data_ptr<std::int64_t>()[id];
        SPECTRA_CHECK(router->setTokenCounts(counts));
    }
    if (router->needs().tokenEmbeddings && !setup.source)
        return usageError("clusters of tokens need a trained model's embeddings, and this model starts from scratch", request.where + ": router",
                          "start from a checkpoint (model.start upcycle), or take another assignment");
    if (router->needs().tokenEmbeddings)
        for (const TrainParameter &p : trainer->model().parameters())
            if (p.name == "model.embed_tokens.weight")
                SPECTRA_CHECK(router->setTokenEmbeddings(p.value.detach()));
    return {};
}

/// The bank of a run with router roma_like, and for a person what it means.
Result<void> TrainRun::openBank()
{
    if (config.romaBank.empty()) {
        if (rank == 0 && nlohmann::json::parse(config.routerJson, nullptr, false).value("type", "") == "roma_like")
            context.sink->note(context.id, "router roma_like has no bank (roma.bank): it trains as softmax top-k");
        return {};
    }
    auto opened = RomaTargets::open(romaRequest(setup, request.folder), *setup.corpus, sampler, config.sequenceLength, context.stop);
    if (!opened)
        return opened.error().kind == ErrorKind::cancelled ? opened.error() : opened.error().in(request.where + ": roma.bank");
    roma = std::move(*opened);
    if (rank == 0)
        context.sink->note(context.id, fmt::format("{} of {} training windows are drawn to their {} nearest of {} successful ones (sigma {:.4g})", roma->windows(), roma->allWindows(),
                                                   roma->neighbours().k, roma->bank().samples, roma->neighbours().sigma));
    return {};
}

Result<void> TrainRun::start()
{
    SPECTRA_CHECK(openBank());
    if (processes)
        SPECTRA_CHECK(agree());
    fs::path last;
    if (rank == 0) {
        SPECTRA_TRY(folder, RunFolder::open(request.output, config, setup, request.resume, request.overwrite, request.commandLine, context.threads));
        last = folder->lastCheckpoint();
        if (roma)
            SPECTRA_CHECK(keepRomaBank(request.output, *roma, !last.empty()));
    }
    if (processes) {
        const std::string text = last.string();
        auto length = torch::full({1}, static_cast<std::int64_t>(text.size()), torch::kInt64);
        processes->broadcast(length);
        auto name = torch::zeros({length.item<std::int64_t>()}, torch::kUInt8);
        if (rank == 0)
            std::copy(text.begin(), text.end(), name.data_ptr<std::uint8_t>());
        processes->broadcast(name);
        last = std::string(name.data_ptr<std::uint8_t>(), name.data_ptr<std::uint8_t>() + name.numel());
    }
    SPECTRA_TRY(TrainerOptions options, trainerOptions(config));
    options.pass.collective = processes.get();
    const TrainMemory need = estimateTrainMemory(setup.model, config.batchSequences, config.sequenceLength, options.pass, options.routerOnly);
    if (need.total() > availableMemory())
        return inputError(fmt::format("training needs about {:.1f} GB of memory more than is free here", static_cast<double>(need.total()) / 1e9), request.where,
                          "smaller training.batch_sequences with more accumulation, activation_checkpointing, or a smaller model");
    SPECTRA_TRY(auto model, beginModel(context, setup, last));
    SPECTRA_TRY(trainer, Trainer::create(std::move(model), std::move(options)));
    if (!last.empty()) {
        SPECTRA_CHECK(trainer->loadState(last));
        saved = trainer->stepsDone();
        context.sink->note(context.id, fmt::format("going on after step {}", saved));
    } else {
        SPECTRA_CHECK(prepareRouter());
    }
    if (rank > 0)
        return {};
    if (processes && nlohmann::json::parse(config.routerJson, nullptr, false).value("expert_choice_routing", false))
        context.sink->note(context.id, fmt::format("each of the {} processes decides the quota over its own tokens", size));
    SPECTRA_TRY(log, RunLog::open(request.output, trainer->stepsDone()));
    heldOut = heldOutText(*setup.corpus, *setup.tokenizer, config.sequenceLength, config.evaluateTokens, config.traceTokens);
    return {};
}

Result<Summary> TrainRun::run()
{
    const auto begin = std::chrono::steady_clock::now();
    SPECTRA_CHECK(start());
    // Of a run that goes on, the energy of its earlier parts is not known.
    joules = trainer->stepsDone() == 0 ? processorJoules() : -1;
    const std::set<std::int64_t> due = evaluationSteps(config);
    const std::int64_t end = request.maxSteps > 0 ? std::min(request.maxSteps, config.steps) : config.steps;
    Summary summary;
    if (rank == 0)
        summary.output = request.output;
    const auto since = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
    const auto stopped = [&](Error error) -> Error {
        // A stop keeps what is finished: the state between two steps.
        if (error.kind == ErrorKind::cancelled && rank == 0 && trainer->stepsDone() > saved) {
            if (auto kept = checkpoint(); !kept.ok())
                return kept.error();
        }
        if (error.kind == ErrorKind::cancelled)
            error.mend = fmt::format("{} steps are kept in {}; --resume goes on", saved, request.output.string());
        else if (error.kind == ErrorKind::work && saved > 0)
            error.mend += fmt::format("{}the last good checkpoint is {}", error.mend.empty() ? "" : "; ",
                                      folder ? folder->checkpoint(saved).string() : fmt::format("that of step {}", saved));
        return error;
    };
    // A run that was stopped while it looked at the held-out text has the step, but not what the look would have found.
    if (rank == 0 && due.contains(trainer->stepsDone()) && !log->hasEvaluation(trainer->stepsDone()))
        if (auto evaluated = evaluate(trainer->stepsDone()); !evaluated.ok())
            return stopped(std::move(evaluated.error()));
    while (trainer->stepsDone() < end) {
        if (stopWanted())
            return stopped(cancelledError());
        SPECTRA_TRY(const auto micro, batches(trainer->stepsDone()));
        auto report = trainer->step(micro, processes ? std::stop_token() : context.stop);
        if (!report)
            return stopped(std::move(report.error()));
        summary.tokens += report->tokens * size;
        const std::int64_t step = trainer->stepsDone();
        if (rank > 0)
            continue;
        SPECTRA_CHECK(log->add(*report));
        context.report({fmt::format("training (loss {:.3f})", report->loss), step, end, "steps"});
        if (due.contains(step))
            if (auto evaluated = evaluate(step); !evaluated.ok())
                return stopped(std::move(evaluated.error()));
        if ((config.checkpointEvery > 0 && step % config.checkpointEvery == 0) || step == end)
            SPECTRA_CHECK(checkpoint());
    }
    if (end == config.steps && rank == 0)
        if (auto finished = finish(summary); !finished.ok())
            return stopped(std::move(finished.error()));
    summary.seconds = since();
    summary.tokensPerSecond = summary.seconds > 0 ? static_cast<double>(summary.tokens) / summary.seconds : 0;
    return summary;
}

Result<void> TrainRun::finish(Summary &summary)
{
    std::shared_ptr<const Checkpoint> weights = trainer->model().snapshot(describe(false), false);
    SPECTRA_TRY(LoadedModel loaded, frozen(weights));
    std::optional<CalibrationResult> calibration;
    if (calibrates()) {
        std::vector<CalibrationSequence> sequences;
        const std::int64_t count = (config.calibrationBatches * config.calibrationBatchTokens + config.sequenceLength - 1) / config.sequenceLength;
        for (std::int64_t i = 0; i < count; ++i) {
            const auto tokens = sampler.at(i).tokens.first(static_cast<std::size_t>(config.sequenceLength));
            sequences.push_back({{tokens.begin(), tokens.end()}, {}});
        }
        CalibrateOptions options;
        options.batches = config.calibrationBatches;
        options.batchTokens = config.calibrationBatchTokens;
        SPECTRA_TRY(calibration, calibrate(*loaded.model, sequences, options, context.progress(), context.stop));
        ModelConfig described = describe(true);
        described.routerJson = loaded.model->router()->options();
        weights = withRouter(weights, *loaded.model->router(), described);
        loaded.checkpoint = weights;
        summary.cvBefore = calibration->cvBefore;
        summary.cvAfter = calibration->cvAfter;
    }
    const fs::path trace = config.keepTraces && config.traceTokens > 0 ? folder->trace(trainer->stepsDone()) : fs::path();
    SPECTRA_TRY(Evaluation last, evaluateHeldOut(looking(), loaded, heldOut, trainer->stepsDone(), trace, request.commandLine, true));
    last.stage = calibration ? "calibrated" : "final";
    last.memory = memory();
    SPECTRA_CHECK(log->add(last, heldOut.domains));
    SPECTRA_CHECK(log->writeMetrics());
    FolderOptions options;
    options.place = folder->final();
    options.dtype = config.finalDtype == "bf16" ? DType::bf16 : config.finalDtype == "f16" ? DType::f16 : DType::f32;
    options.overwrite = true;
    options.tokenizerJson = setup.tokenizerJson;
    options.tokenizerConfigJson = setup.tokenizer->toConfigJson();
    SPECTRA_CHECK(writeFolder(*weights, options, context.progress(), context.stop));
    Json result = resultJson(last, calibration);
    if (last.metrics) {
        const std::set<std::int64_t> looked = evaluationSteps(config);
        SPECTRA_TRY(result["metrics"]["routing_consistency"],
                    routingCourse({looked.begin(), looked.end()}, [this](std::int64_t step) { return folder->trace(step); }, context.stop));
    }
    summary.document = result.dump(2, ' ', false, Json::error_handler_t::replace);
    return folder->writeResult(summary.document);
}

Json TrainRun::resultJson(const Evaluation &last, const std::optional<CalibrationResult> &calibration) const
{
    Json result;
    double seconds = 0, tokens = 0;
    std::map<std::string, double> parts;
    for (const Json &row : log->steps()) {
        seconds += row["seconds"].get<double>();
        tokens += row["tokens"].get<double>() * size; // the log has this process's own
        for (const auto &item : row["time"].items())
            parts[item.key()] += item.value().get<double>();
    }
    result["name"] = config.name;
    result["router"] = nlohmann::json::parse(config.routerJson, nullptr, false).value("type", "");
    result["causal"] = last.causal;
    result["steps"] = trainer->stepsDone();
    result["tokens"] = tokens;
    result["seconds"] = seconds;
    result["tokens_per_s"] = seconds > 0 ? tokens / seconds : 0;
    result["peak_memory_host"] = peakMemory();
    if (joules >= 0 && tokens > 0)
        result["joules_per_token"] = (processorJoules() - joules) / tokens;
    const TrainFlops flops = trainFlopsPerToken(setup.model, config.sequenceLength);
    result["flops_per_token"] = {{"attention", flops.attention}, {"router", flops.router}, {"experts", flops.experts},
                                 {"dense", flops.dense},         {"head", flops.head},     {"total", flops.total()}};
    result["router_flops_share"] = flops.router / flops.total();
    for (const auto &[name, part] : parts)
        result["time_share"][name] = seconds > 0 ? part / seconds : 0;
    result["held_out_loss"] = last.loss;
    result["perplexity"] = std::exp(last.loss);
    double bits = 0;
    for (std::size_t d = 0; d < heldOut.domains.size(); ++d) {
        const double perByte = heldOut.bytesPerToken[d] > 0 ? last.domainLoss[d] / std::log(2.0) / heldOut.bytesPerToken[d] : 0;
        bits += perByte / static_cast<double>(heldOut.domains.size());
        result["domains"][heldOut.domains[d]] = {{"loss", last.domainLoss[d]}, {"bits_per_byte", perByte}};
    }
    result["bits_per_byte"] = bits;
    for (const int share : kShares) {
        const std::int64_t step = std::max<std::int64_t>(1, (config.steps * share + 99) / 100);
        for (const Json &row : log->evaluations())
            if (row["evaluation"] == step && row["stage"] == "training")
                result["loss_at"][std::to_string(share)] = row["held_out_loss"];
    }
    result["steps_to"] = Json::object();
    for (const double target : config.targetLosses) {
        Json &reached = result["steps_to"][fmt::format("{}", target)];
        reached = nullptr;
        for (const Json &row : log->evaluations())
            if (reached.is_null() && row["held_out_loss"].get<double>() <= target)
                reached = row["evaluation"];
    }
    if (roma)
        result["roma"] = {{"windows", roma->windows()},   {"of", roma->allWindows()},         {"samples", roma->bank().samples}, {"neighbours", roma->neighbours().k},
                          {"layers", roma->bank().layers}, {"sigma", roma->neighbours().sigma}, {"sha256", roma->sha256()}};
    if (calibration)
        result["calibration"] = {{"batches", calibration->batches}, {"cv_before", calibration->cvBefore}, {"cv_after", calibration->cvAfter}};
    if (last.metrics) {
        result["decoder_index"] = last.metrics->decoderIndex;
        result["metrics"] = metricsJson(*last.metrics);
    }
    return result;
}

} // namespace

Result<Summary> runTrain(const JobContext &context, const TrainRequest &request)
{
    if (request.dryRun) {
        Summary summary;
        bool fits = true;
        std::string reason;
        SPECTRA_TRY(summary.document, dryRun(context, request, fits, reason));
        if (!fits)
            summary.warnings.push_back(reason);
        return summary;
    }
    SPECTRA_TRY(const auto processes, joinProcesses());
    const auto train = [&]() -> Result<Summary> {
        if (!processes || processes->rank() == 0)
            SPECTRA_CHECK(RunFolder::check(request.output, request.resume, request.overwrite));
        SPECTRA_TRY(TrainSetup setup, openTrainSetup(context, request));
        TrainRun run(context, request, std::move(setup), processes);
        return run.run();
    };
    Result<Summary> result = train();
    if (!processes)
        return result;
    if (!result && result.error().kind != ErrorKind::cancelled) {
        // The others wait for this process and would do so for ever: say why here and now, and end them.
        std::fprintf(stderr, "error: %s: %s (process %d of %d)\n", result.error().what.c_str(), result.error().where.c_str(), processes->rank(), processes->size());
        std::fflush(stderr);
        processes->abort(exitCode(result.error().kind));
    }
    processes->finish();
    return result;
}

} // namespace spectra
