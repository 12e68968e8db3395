// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/program/options.h"

#include <QElapsedTimer>
#include <QObject>
#include <QTimer>

namespace spectra {

/// Waits until the window is idle, sets layer and workspace, waits again, takes the picture if one was asked for and
/// quits: 0; 3 when a file was refused; 1 when the picture cannot be written.
class ScriptedRun : public QObject {
    Q_OBJECT
public:
    ScriptedRun(MainWindow &window, const ProgramOptions &options, const QElapsedTimer &sinceStart);

private:
    void look();
    void finish(int code);

    MainWindow &m_window;
    ProgramOptions m_options;
    QElapsedTimer m_sinceStart;
    QTimer m_timer;
    int m_quiet = 0;     ///< looks in a row that found the window idle
    bool m_prepared = false;
};

} // namespace spectra
