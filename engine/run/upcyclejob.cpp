// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/run/job.h"
#include "engine/run/sequences.h"
#include "engine/train/calibrate.h"
#include "engine/train/upcycle.h"

#include <fmt/format.h>

#include <chrono>

namespace spectra {
namespace {

/// The text on which the upcycled model is held against its source: prose, numbers, code and another script.
constexpr const char *kProbe = "The river bends twice before it reaches the mill, and 3.1415 of its 27 bridges are older than the town. "
                               "def area(r): return pi * r ** 2  # in metres. Жизнь прожить — не поле перейти. "
                               "If f is continuous on [a, b], then it attains its maximum there.";

double since(std::chrono::steady_clock::time_point start)
{
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Result<torch::Tensor> probeLogits(std::shared_ptr<const Checkpoint> checkpoint, const LoadOptions &options, const std::vector<std::int32_t> &ids,
                                  const JobContext &context)
{
    SPECTRA_TRY(const auto model, Model::load(std::move(checkpoint), options, context.progress(), context.stop));
    PassInput input;
    input.sequences.push_back({ids, {}, nullptr});
    PassHooks hooks;
    hooks.stop = context.stop;
    SPECTRA_TRY(const torch::Tensor hidden, model->forward(input, hooks));
    return model->logits(hidden);
}

/// Largest logit difference between two models on the probe text; the models are held one after the other.
Result<double> logitDifference(const std::shared_ptr<const Checkpoint> &source, const std::shared_ptr<const Checkpoint> &result,
                               const LoadOptions &options, const Tokenizer &tokenizer, const JobContext &context, std::int64_t &tokens)
{
    SPECTRA_TRY(const auto encoding, tokenizer.encode(kProbe));
    tokens = static_cast<std::int64_t>(encoding.ids.size());
    SPECTRA_TRY(const torch::Tensor before, probeLogits(source, options, encoding.ids, context));
    SPECTRA_TRY(const torch::Tensor after, probeLogits(result, options, encoding.ids, context));
    return (before - after).abs().max().item<double>();
}

Result<std::vector<CalibrationSequence>> calibrationSequences(const std::vector<Prompt> &prompts, const Tokenizer &tokenizer, std::int64_t vocabulary,
                                                              int sequenceLength, std::stop_token stop)
{
    SPECTRA_TRY(auto cut, cutPrompts(prompts, tokenizer, vocabulary, {sequenceLength, 0, false, false, std::move(stop)}));
    std::vector<CalibrationSequence> sequences;
    for (TokenSequence &s : cut.sequences)
        sequences.push_back({std::move(s.ids), std::move(s.mask)});
    return sequences;
}

/// `base` with the router of `model` as calibration left it.
std::shared_ptr<const Checkpoint> calibratedCheckpoint(std::shared_ptr<const Checkpoint> base, const Model &model)
{
    ModelConfig config = base->config();
    config.routerJson = model.router()->options();
    config.routerCalibrated = true;
    return withRouter(std::move(base), *model.router(), std::move(config));
}

/// tokenizer.json for the folder: the source's own text when it has one, otherwise the vocabulary written as one.
Result<std::string> tokenizerText(const Checkpoint &source, const Tokenizer &tokenizer)
{
    if (const auto file = source.tokenizerFile())
        return readTextFile(*file, std::uint64_t(1) << 28);
    return tokenizer.toJson();
}

} // namespace

Result<Summary> runUpcycle(const JobContext &context, const UpcycleRequest &request)
{
    const auto start = std::chrono::steady_clock::now();
    SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
    SPECTRA_TRY(const auto path, Engine::resolveModel(request.spec.model, context.stop));
    SPECTRA_TRY(const auto source, Checkpoint::open(path));
    SPECTRA_TRY(const UpcycleOptions options, upcycleOptions(request.settings, source->config(), request.spec.seed));
    SPECTRA_TRY(const auto tokenizer, tokenizerOf(*source));
    SPECTRA_TRY(auto result, upcycled(source, options));
    LoadOptions load;
    SPECTRA_TRY(load.device, resolveDevice(request.spec.device));
    load.seed = request.spec.seed;

    Summary summary;
    if (!request.calibration.empty()) {
        SPECTRA_TRY(const auto sequences, calibrationSequences(request.calibration, *tokenizer, source->config().vocabulary, 512, context.stop));
        SPECTRA_TRY(const auto model, Model::load(result, load, context.progress(), context.stop));
        CalibrateOptions calibration;
        if (request.calibrationBatches > 0)
            calibration.batches = request.calibrationBatches;
        if (request.calibrationBatchTokens > 0)
            calibration.batchTokens = request.calibrationBatchTokens;
        SPECTRA_TRY(const auto calibrated, calibrate(*model, sequences, calibration, context.progress(), context.stop));
        summary.cvBefore = calibrated.cvBefore;
        summary.cvAfter = calibrated.cvAfter;
        result = calibratedCheckpoint(result, *model);
    }
    FolderOptions folder;
    folder.place = request.output;
    folder.overwrite = request.overwrite;
    folder.dtype = options.dtype;
    SPECTRA_TRY(folder.tokenizerJson, tokenizerText(*source, *tokenizer));
    folder.tokenizerConfigJson = tokenizer->toConfigJson();
    SPECTRA_CHECK(writeFolder(*result, folder, context.progress(), context.stop));

    // What was written is what is held against the source: the folder, loaded again.
    SPECTRA_TRY(const auto written, Checkpoint::open(request.output));
    const auto need = estimateMemory(written->config(), Compute::f32).weights;
    if (need + need / 8 < availableMemory()) {
        auto difference = logitDifference(source, written, load, *tokenizer, context, summary.tokens);
        if (!difference) {
            Error error = std::move(difference.error()).in(request.output.string());
            error.mend = "the folder is whole; only its check against the source is not done";
            return error;
        }
        summary.maxLogitDifference = *difference;
    } else {
        summary.warnings.emplace_back("the result was not held against its source: it does not fit into memory here");
    }
    summary.output = request.output;
    summary.seconds = since(start);
    return summary;
}

Result<Summary> runCalibrate(const JobContext &context, const CalibrateRequest &request)
{
    const auto start = std::chrono::steady_clock::now();
    SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    SPECTRA_TRY(const auto sequences, calibrationSequences(request.prompts, *loaded->tokenizer, loaded->model->config().vocabulary, request.sequenceLength, context.stop));
    CalibrateOptions options;
    options.batches = request.batches;
    options.batchTokens = request.batchTokens;
    auto calibrated = calibrate(*loaded->model, sequences, options, context.progress(), context.stop);
    // The held model no longer is what its spec says.
    (void)context.models->drop(loaded->handle);
    if (!calibrated)
        return calibrated.error();
    FolderOptions folder;
    folder.place = request.output;
    folder.overwrite = request.overwrite;
    SPECTRA_TRY(folder.tokenizerJson, tokenizerText(*loaded->checkpoint, *loaded->tokenizer));
    folder.tokenizerConfigJson = loaded->tokenizer->toConfigJson();
    const auto result = calibratedCheckpoint(loaded->checkpoint, *loaded->model);
    SPECTRA_CHECK(writeFolder(*result, folder, context.progress(), context.stop));
    Summary summary;
    summary.output = request.output;
    summary.cvBefore = calibrated->cvBefore;
    summary.cvAfter = calibrated->cvAfter;
    summary.tokens = calibrated->countedTokens;
    summary.seconds = since(start);
    return summary;
}

} // namespace spectra
