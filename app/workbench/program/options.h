// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/mainwindow.h"

#include <QSize>
#include <QStringList>

#include <optional>

namespace spectra {

/// The command line of the workbench program.
struct ProgramOptions {
    QStringList files;
    std::optional<ThemeChoice> theme;
    QString screenshot;                  ///< a picture of the window, then quit
    QSize size;
    std::optional<Workspace> workspace;
    std::optional<int> layer;            ///< decoder index
    bool quitAfterLoad = false;
    bool timing = false;                 ///< says on stderr when the window and the first picture stood

    /// Runs by itself: touches no settings, offers nothing.
    [[nodiscard]] bool scripted() const { return quitAfterLoad || !screenshot.isEmpty(); }
};

/// --help and --version need no display: their exit code, or −1 when a window is wanted.
[[nodiscard]] int answerWithoutWindow(int argc, char **argv);
/// Errors (usage): an unknown option, a value that is none.
[[nodiscard]] Result<ProgramOptions> readOptions(const QStringList &arguments);

} // namespace spectra
