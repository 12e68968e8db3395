// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/bridge/tracesaver.h"

#include "engine/trace/livetrace.h"

namespace spectra {

TraceSaver liveTraceSaver()
{
    return [](const std::shared_ptr<const TraceSource> &trace, const QString &path, bool overwrite, std::stop_token stop) -> Result<void> {
        const auto *live = dynamic_cast<const LiveTrace *>(trace.get());
        if (live == nullptr)
            return usageError("only a run in memory can be saved as a trace", path.toStdString());
        return live->save(path.toStdString(), overwrite, std::move(stop));
    };
}

} // namespace spectra
