// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/train/optimizer.h"
#include "engine/train/trainmodel.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

struct TrainerOptions {
    OptimizerOptions optimizer;
    Schedule schedule;
    GroupRates peakRates = {5e-5, 1e-5, 1e-5}; ///< in the order of ParameterGroup
    double clip = 1.0;                   ///< of the global gradient norm; 0: none
    double qkClip = 0;                   ///< largest attention logit that QK-clip leaves; 0: off
    bool routerOnly = false;             ///< all but the router is frozen
    bool freezeShared = true;            ///< shared experts are frozen
    TrainPassOptions pass;
};

/// What one optimiser step did. Losses and loads are those of the whole global batch, all processes together.
struct StepReport {
    std::int64_t step = 0;               ///< steps done, this one included
    double loss = 0;                     ///< mean −log p, nats
    std::map<std::string, double> routerLosses;
    GradientNorms gradients;             ///< before clipping
    double rate = 0;                     ///< factor of the peak rates
    std::int64_t tokens = 0;             ///< of this process
    double seconds = 0, forward = 0, backward = 0, optimizer = 0;
    TrainTiming timing;                  ///< of the forward passes
    std::vector<std::vector<double>> loads; ///< per MoE layer [E]: share of the assignments
    std::vector<double> dropped, fellBack, violation; ///< per MoE layer, mean over micro-batches
};

/// Gradient accumulation, clipping, update, and what a router does after a step; checkpoints that go on bit-identically.
/// Nothing random is kept between steps: every draw comes from the micro-batch's own seed. Engine thread only.
class Trainer {
public:
    /// Errors (usage): optimiser options; nothing to train (router-only of a dense model).
    [[nodiscard]] static Result<std::unique_ptr<Trainer>> create(std::unique_ptr<TrainModel> model, TrainerOptions options);

    /// One optimiser step over micro-batches of equal size. After an error parameters are as before the step.
    /// Errors: work (a loss or gradient that is not finite: names the step and the layer), cancelled.
    [[nodiscard]] Result<StepReport> step(std::span<const TrainBatch> batches, std::stop_token stop = {});

    [[nodiscard]] std::int64_t stepsDone() const { return m_steps; }
    [[nodiscard]] TrainModel &model() { return *m_model; }
    [[nodiscard]] const TrainerOptions &options() const { return m_options; }
    /// Bytes held now: "weights" (with the router's buffers), "gradients", "optimizer".
    [[nodiscard]] std::map<std::string, std::uint64_t> memory() const;

    /// Writes the optimiser's state into `folder`/optimizer (which must not exist), beside the model that writeFolder() put there.
    [[nodiscard]] Result<void> saveState(const std::filesystem::path &folder, std::stop_token stop = {}) const;
    /// Takes it back: the model must have been loaded from the same folder. Errors (input): missing, damaged, of another shape, of
    /// another number of processes.
    [[nodiscard]] Result<void> loadState(const std::filesystem::path &folder);

private:
    Trainer() = default;
    [[nodiscard]] std::int64_t processes() const;
    [[nodiscard]] std::string firstBadPlace(const TrainBatch &batch);
    void gather(StepReport &report, const TrainOutput &output, std::vector<torch::Tensor> &loads, double share) const;
    void share(StepReport &report, std::vector<torch::Tensor> &loads);

    std::unique_ptr<TrainModel> m_model;
    TrainerOptions m_options;
    std::vector<TrainParameter> m_parameters; ///< those that are trained
    std::unique_ptr<Optimizer> m_optimizer;
    std::int64_t m_steps = 0;
};

} // namespace spectra
