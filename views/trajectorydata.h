// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/tracecolumns.h"

#include <QString>

namespace spectra {

/// Routing of all tokens and layers as the picture needs it. Immutable.
struct TrajectoryData {
    std::shared_ptr<const TokenColumns> columns;
    std::vector<std::shared_ptr<const LayerRouting>> layers;
    std::vector<std::shared_ptr<const std::vector<float>>> entropy; ///< empty unless shown
    std::vector<std::int32_t> decoderIndex;
    std::vector<std::string> domains;
    int experts = 0;
    std::int64_t tokens = 0;
    float low = 0, high = 1;   ///< range of a continuous colour
    QString color;
};

/// Texts of a stretch of tokens.
struct TokenTexts {
    TokenRange range;
    std::vector<std::string> text;
};

} // namespace spectra
