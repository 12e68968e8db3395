// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <QString>

#include <functional>
#include <utility>
#include <vector>

namespace spectra {

/// Something to tell without stopping anybody: shown as a banner at the top of the window.
struct Notice {
    enum class Kind { information, warning, error };
    Kind kind = Kind::information;
    QString what, where, mend;
    std::vector<std::pair<QString, std::function<void()>>> actions = {}; ///< buttons; each closes the banner
};

[[nodiscard]] inline Notice noticeOf(const Error &error)
{
    return {Notice::Kind::error, QString::fromStdString(error.what), QString::fromStdString(error.where),
            QString::fromStdString(error.mend)};
}

} // namespace spectra
