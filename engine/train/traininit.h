// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/result.h"
#include "engine/model/weights.h"
#include "engine/router/router.h"
#include "engine/train/trainmodel.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

/// What a TrainModel is made of before it runs: checks, fresh weights, the list of parameters.
namespace spectra::train {

/// Sizes that fit together. Errors: input for a configuration that comes from a file, else usage.
[[nodiscard]] Result<void> checkTrainable(const ModelConfig &config, bool fromFile);
/// Errors (input): the weights alone do not fit.
[[nodiscard]] Result<void> fitsMemory(const ModelConfig &config, const std::string &file);
[[nodiscard]] RouterShape routerShape(const ModelConfig &config);
/// The checkpoint's router, or a fresh one under its options where the checkpoint has none of its tensors.
[[nodiscard]] Result<std::unique_ptr<Router>> routerOf(const Checkpoint &checkpoint, const ModelConfig &config, std::uint64_t seed);
/// N(0, 0.02²), drawn for each matrix by its checkpoint name; o_proj and down_proj times 1/√(2L); norms 1, biases 0.
[[nodiscard]] Weights freshWeights(const ModelConfig &config, std::uint64_t seed);
[[nodiscard]] std::vector<TrainParameter> trainedParameters(const ModelConfig &config, const Weights &weights, const Router *router);

} // namespace spectra::train
