// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/windowcommand.h"
#include "app/workbench/prompt/promptview.h"

namespace spectra {

namespace {

class RunCommand : public WindowCommand {
public:
    explicit RunCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("run.run"), tr("Run"), tr("&Run the prompt"), tr("Run the text or the prompts of the Prompt view, or stop the run"), QKeySequence(Qt::CTRL | Qt::Key_Return)})
    {
    }
    void triggered() override
    {
        PromptView &prompt = window().promptView();
        if (workbench().runner().isRunning()) {
            prompt.stop();
            return;
        }
        window().showWorkspace(Workspace::explore);
        prompt.run();
    }
    void updateEnableState() override
    {
        action()->setText(workbench().runner().isRunning() ? tr("Stop the &run") : tr("&Run the prompt"));
    }
};

class EditPromptCommand : public WindowCommand {
public:
    explicit EditPromptCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("run.edit"), tr("Run"), tr("&Edit the prompt"), tr("Put the keyboard into the prompt's editor"), QKeySequence(Qt::CTRL | Qt::Key_P)})
    {
    }
    void triggered() override
    {
        window().showWorkspace(Workspace::explore);
        window().dock(QStringLiteral("prompt"))->show();
        window().promptView().focusEditor();
    }
};

class CancelAllCommand : public WindowCommand {
public:
    explicit CancelAllCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("run.cancelAll"), tr("Run"), tr("&Cancel all tasks"), tr("Stop everything that runs; finished parts stay"), QKeySequence(Qt::CTRL | Qt::Key_Period)})
    {
    }
    void triggered() override { workbench().tasks().cancelAll(); }
    void updateEnableState() override { setEnabled(workbench().tasks().activeCount() > 0); }
};

class ClearTasksCommand : public WindowCommand {
public:
    explicit ClearTasksCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("run.clearTasks"), tr("Run"), tr("Clear &finished tasks"), tr("Take finished tasks off the list")})
    {
    }
    void triggered() override { workbench().tasks().clearFinished(); }
};

} // namespace

void addRunCommands(MainWindow &window)
{
    addCommand<RunCommand>(window);
    addCommand<EditPromptCommand>(window);
    addCommand<CancelAllCommand>(window);
    addCommand<ClearTasksCommand>(window);
}

} // namespace spectra
