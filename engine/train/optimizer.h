// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/train/trainmodel.h"

#include <torch/torch.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace spectra {

struct OptimizerOptions {
    std::string type = "adamw";          ///< adamw | muon
    double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weightDecay = 0.1;
    double momentum = 0.95;              ///< Muon's
};

/// Learning rate of each ParameterGroup in a step, in the enum's order.
using GroupRates = std::array<double, 3>;

/// Linear warm-up, then cosine or constant. Factor of the peak rate in step 0, 1, …
struct Schedule {
    std::string type = "cosine";
    std::int64_t steps = 1000, warmup = 0;
    double finalShare = 0.1;
    double routerUntil = 1;              ///< share of the steps in which routers learn; then they rest, the others go on
    [[nodiscard]] double factor(std::int64_t step) const;
    [[nodiscard]] bool routerLearns(std::int64_t step) const { return static_cast<double>(step) < routerUntil * static_cast<double>(steps); }
};

/// Norms of gradients before clipping.
struct GradientNorms {
    double router = 0, experts = 0, other = 0, all = 0;
    bool finite = true;
    std::int64_t badLayer = -1;          ///< decoder layer of the first gradient that is not finite
    std::string badName;
};
/// ‖g‖₂ over all parameters and by group; in one pass over memory. Undefined gradients count as 0.
[[nodiscard]] GradientNorms gradientNorms(const std::vector<TrainParameter> &parameters);

/// Updates parameters from their .grad. Fused: one pass over each parameter's memory, threads share it by blocks of fixed size,
/// so that the result does not depend on the number of threads.
class Optimizer {
public:
    virtual ~Optimizer() = default;
    /// `scale` multiplies every gradient first (clipping: clip/norm, accumulation: 1/n). `rates` by group.
    virtual void step(const GroupRates &rates, double scale) = 0;
    /// .grad of every parameter becomes zero (kept allocated).
    void zeroGradients();
    /// Moments under "NAME.m", "NAME.v", … and what else the state needs, for a checkpoint; load() takes the same back.
    [[nodiscard]] virtual std::map<std::string, torch::Tensor> state() const = 0;
    /// Errors (input): a tensor is missing or mis-shaped.
    [[nodiscard]] virtual Result<void> load(const std::map<std::string, torch::Tensor> &state) = 0;
    [[nodiscard]] std::int64_t steps() const { return m_steps; }

protected:
    explicit Optimizer(std::vector<TrainParameter> parameters) : m_parameters(std::move(parameters)) {}
    std::vector<TrainParameter> m_parameters;
    std::int64_t m_steps = 0;
};

/// AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW computes it, or Muon (Jordan et al. 2024; with the update scaled to
/// AdamW's rms and weight decay as Liu et al. 2025, arXiv 2502.16982) for hidden matrices and AdamW for all else. Banks of
/// experts are orthogonalised expert by expert. Errors (usage): options.
[[nodiscard]] Result<std::unique_ptr<Optimizer>> makeOptimizer(std::vector<TrainParameter> parameters, const OptimizerOptions &options);

} // namespace spectra
