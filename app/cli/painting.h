// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/cli.h"
#include "views/export.h"

#include <memory>
#include <string>

class QApplication;

namespace spectra::cli {

/// A QApplication without windows, for figure and report. The platform is `offscreen` whatever the environment says.
class OffscreenApplication {
public:
    OffscreenApplication();
    ~OffscreenApplication();
    OffscreenApplication(const OffscreenApplication &) = delete;
    OffscreenApplication &operator=(const OffscreenApplication &) = delete;

private:
    std::unique_ptr<QApplication> m_application;
};

/// "print", "light" or "dark".
[[nodiscard]] Result<ThemeKind> parseTheme(const std::string &name);

} // namespace spectra::cli
