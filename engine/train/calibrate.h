// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/model/model.h"

#include <cstdint>
#include <map>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// The calibration of causal SPECTRA routing (method page, section 7, "Details"). The defaults are the method's; fewer or
/// smaller batches are another setting and are named in the result.
struct CalibrateOptions {
    std::int64_t batches = 80;
    std::int64_t batchTokens = 4096;     ///< counted tokens per batch; the prompts are repeated when short
    double firstStep = 0.5, lastStep = 0.01; ///< η falls geometrically from the first batch to the last
};

/// One prompt's tokens, already cut to sequences.
struct CalibrationSequence {
    std::vector<std::int32_t> tokens;
    std::vector<std::uint8_t> mask;      ///< 1 = counted; empty: all
};

struct CalibrationResult {
    std::vector<double> cvBefore, cvAfter; ///< per MoE layer: std/mean of expert load over one batch, before and after
    std::int64_t batches = 0, countedTokens = 0;
    double seconds = 0;
};

/// Finds mean_expression (one pass) and the potentials (dual ascent, all layers at once) with weights frozen; the model's
/// router holds them afterwards; after an error or a stop it holds what it had before. To write the result, give
/// withRouter() (upcycle.h) the model's checkpoint, router and a config with routerCalibrated set.
/// Errors: usage (router is not SPECTRA with scoring osr and scope causal, no counted tokens), cancelled.
[[nodiscard]] Result<CalibrationResult> calibrate(Model &model, std::span<const CalibrationSequence> sequences,
                                                  const CalibrateOptions &options, const ProgressFunction &progress, std::stop_token stop);

} // namespace spectra
