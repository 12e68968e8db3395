// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/data/corpus.h"
#include "engine/run/job.h"
#include "engine/run/romatargets.h"
#include "engine/train/trainconfig.h"
#include "engine/train/trainer.h"

#include <filesystem>
#include <memory>
#include <string>

namespace spectra {

/// A configuration with what it names opened: tokenizer, texts, and how the model begins.
struct TrainSetup {
    TrainConfig config;
    std::shared_ptr<const Checkpoint> source;     ///< what training starts from (experts and router in place); null: scratch
    std::shared_ptr<const Tokenizer> tokenizer;
    std::string tokenizerJson;
    std::shared_ptr<const Corpus> corpus;
    ModelConfig model;                            ///< of the model to train
};

/// The model that a configuration describes; `vocabulary` is the tokenizer's. For upcycled and router-only runs the sizes are
/// those of `source`. Errors (usage, input).
[[nodiscard]] Result<ModelConfig> trainedModelConfig(const TrainConfig &config, const Checkpoint *source, std::int64_t vocabulary);
/// The checkpoint that an upcycled or router-only run starts from, with experts and router. Errors: input, usage.
[[nodiscard]] Result<std::shared_ptr<const Checkpoint>> startingCheckpoint(const TrainConfig &config, const std::filesystem::path &folder, std::stop_token stop);
[[nodiscard]] CorpusOptions corpusOptions(const TrainConfig &config, const std::filesystem::path &folder);

/// Opens everything; the tokenizer is trained and texts are tokenised on the way, or taken from the cache.
[[nodiscard]] Result<TrainSetup> openTrainSetup(const JobContext &context, const TrainRequest &request);
/// A fresh model, or that of a checkpoint folder.
[[nodiscard]] Result<std::unique_ptr<TrainModel>> beginModel(const JobContext &context, const TrainSetup &setup, const std::filesystem::path &checkpoint);
[[nodiscard]] Result<TrainerOptions> trainerOptions(const TrainConfig &config);
/// What a run with router roma_like asks of its bank; files are seen from `folder`. No bank: `bank` is empty.
[[nodiscard]] RomaRequest romaRequest(const TrainSetup &setup, const std::filesystem::path &folder);

/// What a run would need, without data and without allocating it: memory, operations, time at this machine's measured speed, disk.
/// JSON; `fits` false where memory or disk would not do. Errors: usage.
[[nodiscard]] Result<std::string> dryRun(const JobContext &context, const TrainRequest &request, bool &fits, std::string &reason);

} // namespace spectra
