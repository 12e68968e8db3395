// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/run/engine.h"
#include "engine/run/loadedmodel.h"

#include <stop_token>
#include <string>

namespace spectra {

/// What a running job has at hand. Lives on the engine thread for the time of one job.
struct JobContext {
    JobId id = 0;
    EngineSink *sink = nullptr;
    ModelStore *models = nullptr;
    std::stop_token stop;
    int threads = 0;

    void report(const Progress &p) const { sink->progress(id, p); }
    [[nodiscard]] ProgressFunction progress() const
    {
        return [this](const Progress &p) { report(p); };
    }
};

/// Values that no job can have. Errors (usage).
[[nodiscard]] Result<void> checkRequest(const Request &request);

// One function per kind of job; each returns when the job is over. Errors as Engine documents them.
[[nodiscard]] Result<Summary> runLoad(const JobContext &context, const LoadRequest &request);
[[nodiscard]] Result<Summary> runTrace(const JobContext &context, const TraceRequest &request);
[[nodiscard]] Result<Summary> runGenerate(const JobContext &context, const GenerateRequest &request);
[[nodiscard]] Result<Summary> runLogits(const JobContext &context, const LogitsRequest &request);
[[nodiscard]] Result<Summary> runUpcycle(const JobContext &context, const UpcycleRequest &request);
[[nodiscard]] Result<Summary> runTrain(const JobContext &context, const TrainRequest &request);
[[nodiscard]] Result<Summary> runCalibrate(const JobContext &context, const CalibrateRequest &request);
[[nodiscard]] Result<Summary> runEval(const JobContext &context, const EvalRequest &request);
[[nodiscard]] Result<Summary> runRomaBank(const JobContext &context, const RomaBankRequest &request);

} // namespace spectra
