// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/metrics/loads.h"
#include "views/tracecolumns.h"

#include <QString>

namespace spectra {

/// What the load view shows. Immutable.
struct LoadData {
    LoadTable table;
    std::vector<std::int32_t> decoderIndex;
    std::vector<std::string> domains;               ///< of TraceInfo, may be fewer than the table's when some have no name
    int slots = 1;
    std::shared_ptr<const TokenColumns> columns;    ///< null: not needed yet
    std::shared_ptr<const LayerRouting> routing;    ///< of the shown layer; null: nothing selected
    int routingLayer = -1;
};

inline QString domainName(const std::string &name)
{
    return name.empty() ? QStringLiteral("no domain") : QString::fromStdString(name);
}

} // namespace spectra
