// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/tracesource.h"

#include <memory>
#include <string>
#include <vector>

namespace spectra::cli {

/// Opens traces from the command line, each probed first.
[[nodiscard]] Result<std::vector<std::shared_ptr<const TraceSource>>> openTraces(const std::vector<std::string> &files);
/// Ordinal of a decoder layer in a trace. Errors (usage): the trace has no such layer.
[[nodiscard]] Result<int> layerOrdinal(const TraceInfo &info, int decoderLayer);

} // namespace spectra::cli
