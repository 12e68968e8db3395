// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/commandregistry.h"

#include <algorithm>

namespace spectra {

Command *CommandRegistry::add(std::unique_ptr<Command> command)
{
    Q_ASSERT(!find(command->id()));
    const QKeySequence keys = command->action()->shortcut();
    Q_ASSERT(keys.isEmpty() || std::ranges::none_of(m_commands, [&](const auto &c) { return c->action()->shortcut() == keys; }));
    m_commands.push_back(std::move(command));
    return m_commands.back().get();
}

void CommandRegistry::remove(const QString &id)
{
    std::erase_if(m_commands, [&](const auto &c) { return c->id() == id; });
}

Command *CommandRegistry::find(const QString &id) const
{
    const auto found = std::ranges::find_if(m_commands, [&](const auto &c) { return c->id() == id; });
    return found == m_commands.end() ? nullptr : found->get();
}

QAction *CommandRegistry::action(const QString &id) const
{
    Command *command = find(id);
    Q_ASSERT(command);
    return command ? command->action() : nullptr;
}

void CommandRegistry::updateEnableStates()
{
    m_scheduled = false;
    for (const auto &command : m_commands)
        command->updateEnableState();
}

void CommandRegistry::scheduleUpdate()
{
    if (std::exchange(m_scheduled, true))
        return;
    QMetaObject::invokeMethod(this, &CommandRegistry::updateEnableStates, Qt::QueuedConnection);
}

} // namespace spectra
