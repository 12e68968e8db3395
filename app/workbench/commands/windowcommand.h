// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/commands/command.h"
#include "app/workbench/mainwindow.h"

namespace spectra {

/// A command that acts on the window and what it shows.
class WindowCommand : public Command {
public:
    WindowCommand(MainWindow &window, Description description) : Command(std::move(description)), m_window(window) {}

protected:
    [[nodiscard]] MainWindow &window() const { return m_window; }
    [[nodiscard]] Workbench &workbench() const { return m_window.workbench(); }
    [[nodiscard]] Session &session() const { return m_window.workbench().session(); }

private:
    MainWindow &m_window;
};

template <typename T, typename... Args> void addCommand(MainWindow &window, Args &&...args)
{
    window.registry().add(std::make_unique<T>(window, std::forward<Args>(args)...));
}

} // namespace spectra
