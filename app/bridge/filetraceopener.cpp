// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/bridge/traceloader.h"

#include "engine/trace/tracereader.h"

namespace spectra {

TraceOpener fileTraceOpener()
{
    return [](const QString &path, std::stop_token stop) -> Result<std::shared_ptr<const TraceSource>> {
        OpenOptions options;
        options.stop = stop;
        auto reader = openTrace(path.toStdString(), options);
        if (!reader)
            return reader.error();
        return std::shared_ptr<const TraceSource>(std::move(*reader));
    };
}

} // namespace spectra
