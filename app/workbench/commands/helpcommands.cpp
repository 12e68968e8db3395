// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/windowcommand.h"

namespace spectra {

namespace {

class ShortcutsCommand : public WindowCommand {
public:
    explicit ShortcutsCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("help.shortcuts"), tr("Help"), tr("&Shortcuts"), tr("All shortcuts on one sheet"), QKeySequence(Qt::CTRL | Qt::Key_Slash)})
    {
    }
    void triggered() override { window().showShortcuts(); }
};

class AboutCommand : public WindowCommand {
public:
    explicit AboutCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("help.about"), tr("Help"), tr("&About"), tr("Version, licence and libraries")})
    {
    }
    void triggered() override { window().showAbout(); }
};

} // namespace

void addHelpCommands(MainWindow &window)
{
    addCommand<ShortcutsCommand>(window);
    addCommand<AboutCommand>(window);
}

} // namespace spectra
