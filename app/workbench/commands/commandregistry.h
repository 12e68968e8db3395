// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/commands/command.h"

#include <memory>
#include <vector>

namespace spectra {

/// All commands of the window, in the order in which they were added. The palette and the shortcut sheet show exactly
/// these. Keeps the ids and the shortcuts unique (both are asserted).
class CommandRegistry : public QObject {
    Q_OBJECT
public:
    explicit CommandRegistry(QObject *parent = nullptr) : QObject(parent) {}

    Command *add(std::unique_ptr<Command> command);
    void remove(const QString &id);
    [[nodiscard]] Command *find(const QString &id) const;
    [[nodiscard]] QAction *action(const QString &id) const;
    [[nodiscard]] const std::vector<std::unique_ptr<Command>> &all() const { return m_commands; }
    /// Asks every command whether it can be done now.
    void updateEnableStates();
    /// The same at the next turn of the event loop, once for many calls.
    void scheduleUpdate();

private:
    std::vector<std::unique_ptr<Command>> m_commands;
    bool m_scheduled = false;
};

} // namespace spectra
