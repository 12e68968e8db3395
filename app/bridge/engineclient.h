// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/run/engine.h"

#include <functional>
#include <memory>
#include <vector>

namespace spectra {

/// What the shell needs of an engine. The destructor refuses new jobs, cancels all and joins: afterwards the sink is
/// never called again. All functions may be called from any thread.
class EngineClient {
public:
    virtual ~EngineClient() = default;
    /// Errors: work (queue full, stopping, or the engine could not start), usage (values out of range).
    [[nodiscard]] virtual Result<JobId> submit(Request request) = 0;
    virtual void cancel(JobId job) = 0;
    virtual void cancelAll() = 0;
    /// The models that can be named without a path.
    [[nodiscard]] virtual std::vector<BundledModel> bundledModels() const = 0;
};

using EngineFactory = std::function<std::unique_ptr<EngineClient>(std::shared_ptr<EngineSink>)>;

/// The real engine. Its thread starts with the first job, so that a window that only shows traces never pays for it.
[[nodiscard]] std::unique_ptr<EngineClient> makeRunEngine(std::shared_ptr<EngineSink> sink);

} // namespace spectra
