// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/tracesource.h"

#include <QString>

#include <functional>
#include <memory>
#include <stop_token>

namespace spectra {

/// Writes a trace that lives in memory to a file; runs on a worker. Nothing is left behind when it fails or is stopped.
using TraceSaver = std::function<Result<void>(const std::shared_ptr<const TraceSource> &trace, const QString &path, bool overwrite, std::stop_token stop)>;

/// The saver for runs of the Prompt view. Errors: usage (not a run in memory, or one that has not ended), work, cancelled.
[[nodiscard]] TraceSaver liveTraceSaver();

} // namespace spectra
