// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/train/blocks.h"
#include "engine/train/optimizer.h"

namespace spectra {

/// A parameter's gradient as f32 numbers in order, in the same memory wherever it has that form already; undefined: it has none.
[[nodiscard]] torch::Tensor plainGradient(const TrainParameter &parameter);

/// An optimiser whose state() shares memory with what it works on, so that load() is the same for all. Beside the moments it
/// keeps the number of steps and, for each parameter, of steps that had a gradient for it (torch's count for the bias
/// correction; a parameter without a gradient is left alone): "optimizer.step" and "NAME.step", one f32 each as in torch.
class SharedStateOptimizer : public Optimizer {
public:
    [[nodiscard]] Result<void> load(const std::map<std::string, torch::Tensor> &state) override;

protected:
    explicit SharedStateOptimizer(std::vector<TrainParameter> parameters);
    void countStep();
    /// Counts this step for a parameter and says how many that makes.
    std::int64_t countStepOf(std::size_t parameter);
    [[nodiscard]] std::map<std::string, torch::Tensor> counts() const;

private:
    torch::Tensor m_counts;              ///< [1 + parameters]
};

/// AdamW over some members of a parameter list.
class AdamWPart {
public:
    AdamWPart(const std::vector<TrainParameter> &parameters, std::vector<std::size_t> members, const OptimizerOptions &options);
    /// `countOf`: the step that this is for a parameter, 1, 2, …
    void step(const std::vector<TrainParameter> &parameters, const std::function<std::int64_t(std::size_t)> &countOf, const GroupRates &rates, double scale);
    void stateInto(const std::vector<TrainParameter> &parameters, std::map<std::string, torch::Tensor> &state) const;

private:
    OptimizerOptions m_options;
    std::vector<std::size_t> m_members;
    std::vector<torch::Tensor> m_first, m_second; ///< moments, per member
    std::vector<Block> m_blocks;                  ///< `tensor` counts members
};

[[nodiscard]] std::unique_ptr<Optimizer> makeAdamW(std::vector<TrainParameter> parameters, const OptimizerOptions &options);
[[nodiscard]] std::unique_ptr<Optimizer> makeMuon(std::vector<TrainParameter> parameters, const OptimizerOptions &options);

} // namespace spectra
