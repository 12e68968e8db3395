// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/tracefile.h"

#include "engine/trace/tracereader.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace spectra::cli {

Result<std::vector<std::shared_ptr<const TraceSource>>> openTraces(const std::vector<std::string> &files)
{
    std::vector<std::shared_ptr<const TraceSource>> traces;
    for (const std::string &file : files) {
        SPECTRA_TRY(auto trace, openTrace(file));
        traces.push_back(std::move(trace));
    }
    return traces;
}

Result<int> layerOrdinal(const TraceInfo &info, int decoderLayer)
{
    const auto found = std::find(info.decoderIndex.begin(), info.decoderIndex.end(), decoderLayer);
    if (found == info.decoderIndex.end())
        return usageError(fmt::format("the trace has no layer {}", decoderLayer), "--layer",
                          fmt::format("it has the decoder layers {}", fmt::join(info.decoderIndex, ", ")));
    return static_cast<int>(found - info.decoderIndex.begin());
}

} // namespace spectra::cli
