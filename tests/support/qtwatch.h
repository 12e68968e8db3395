// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>
#include <QtGlobal>

#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>
#include <iterator>

namespace spectra::test {

/// For qInstallMessageHandler: a warning of Qt fails the running test.
inline void failOnQtWarning(QtMsgType type, const QMessageLogContext &, const QString &text)
{
    // The offscreen platform and a session without a log-in say so of themselves, not of the program.
    if (text.contains(QLatin1String("This plugin does not support")) || text.contains(QLatin1String("XDG_RUNTIME_DIR")))
        return;
    if (type == QtDebugMsg || type == QtInfoMsg)
        std::cerr << text.toStdString() << "\n";
    else
        ADD_FAILURE() << "Qt warns: " << text.toStdString();
}

inline int threadsOfProcess()
{
    return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/task"), {}));
}

} // namespace spectra::test
