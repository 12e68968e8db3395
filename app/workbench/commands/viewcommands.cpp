// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/windowcommand.h"

namespace spectra {

namespace {

class WorkspaceCommand : public WindowCommand {
public:
    WorkspaceCommand(MainWindow &window, Workspace workspace, Description description)
        : WindowCommand(window, std::move(description)), m_workspace(workspace)
    {
    }
    void triggered() override
    {
        window().showWorkspace(m_workspace);
        updateEnableState(); // a second click does not uncheck
    }
    void updateEnableState() override { setChecked(window().workspace() == m_workspace); }

private:
    Workspace m_workspace;
};

class LayerCommand : public WindowCommand {
public:
    LayerCommand(MainWindow &window, int by, Description description) : WindowCommand(window, std::move(description)), m_by(by) {}
    void triggered() override { session().setLayer(session().layer() + m_by); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        const int next = session().layer() + m_by;
        setEnabled(trace && next >= 0 && next < trace->info->layers());
    }

private:
    int m_by;
};

class NextTraceCommand : public WindowCommand {
public:
    explicit NextTraceCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("view.nextTrace"), tr("View"), tr("&Next trace"), tr("Show the next open trace"), QKeySequence(Qt::CTRL | Qt::Key_Tab)})
    {
    }
    void triggered() override
    {
        const auto &traces = session().traces();
        const auto current = session().current();
        for (std::size_t i = 0; i < traces.size(); ++i)
            if (current && traces[i]->id == current->id) {
                session().setCurrent(traces[(i + 1) % traces.size()]->id);
                return;
            }
    }
    void updateEnableState() override { setEnabled(session().traces().size() > 1); }
};

class DefaultLayoutCommand : public WindowCommand {
public:
    explicit DefaultLayoutCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("view.defaultLayout"), tr("View"), tr("Restore &default layout"), tr("Put every view back to its place")})
    {
    }
    void triggered() override { window().restoreDefaultLayout(); }
};

class ThemeCommand : public WindowCommand {
public:
    ThemeCommand(MainWindow &window, ThemeChoice choice, Description description)
        : WindowCommand(window, std::move(description)), m_choice(choice)
    {
    }
    void triggered() override
    {
        window().themes().choose(m_choice);
        window().registry().updateEnableStates();
    }
    void updateEnableState() override { setChecked(window().themes().choice() == m_choice); }

private:
    ThemeChoice m_choice;
};

class PaletteCommand : public WindowCommand {
public:
    explicit PaletteCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("view.palette"), tr("View"), tr("Command &palette…"), tr("Find and run any command"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_P)})
    {
    }
    void triggered() override { window().showPalette(); }
};

class TasksCommand : public WindowCommand {
public:
    explicit TasksCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("view.tasks"), tr("View"), tr("Show &tasks"), tr("Show what runs, with progress and cancel"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_T)})
    {
    }
    void triggered() override { window().showTasks(); }
};

class FullScreenCommand : public WindowCommand {
public:
    explicit FullScreenCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("view.fullScreen"), tr("View"), tr("&Full screen"), tr("Use the whole screen"), QKeySequence(Qt::Key_F11), true})
    {
    }
    void triggered() override { window().setWindowState(window().windowState() ^ Qt::WindowFullScreen); }
    void updateEnableState() override { setChecked(window().isFullScreen()); }
};

/// Shows or hides one dock, in the Explore workspace.
class DockCommand : public WindowCommand {
public:
    DockCommand(MainWindow &window, QDockWidget *dock)
        : WindowCommand(window, {QStringLiteral("dock.") + dock->objectName(), tr("View"), dock->windowTitle(), tr("Show or hide the view %1").arg(dock->windowTitle()), {}, true})
        , m_dock(dock)
    {
        connect(dock, &QDockWidget::visibilityChanged, this, [this] { updateEnableState(); });
    }
    void triggered() override
    {
        const bool show = window().workspace() != Workspace::explore || m_dock->isHidden();
        if (show && window().workspace() != Workspace::explore)
            window().showWorkspace(Workspace::explore);
        m_dock->setVisible(show);
        if (show)
            m_dock->raise();
        updateEnableState();
    }
    void updateEnableState() override { setChecked(!m_dock->isHidden()); }

private:
    QDockWidget *m_dock;
};

} // namespace

void addViewCommands(MainWindow &window)
{
    addCommand<WorkspaceCommand>(window, Workspace::explore, Command::Description{QStringLiteral("view.explore"), Command::tr("View"), Command::tr("&Explore"), Command::tr("Explore the routing of one trace in linked views"), QKeySequence(Qt::CTRL | Qt::Key_1), true});
    addCommand<WorkspaceCommand>(window, Workspace::compare, Command::Description{QStringLiteral("view.compare"), Command::tr("View"), Command::tr("&Compare"), Command::tr("Compare checkpoints or traces"), QKeySequence(Qt::CTRL | Qt::Key_2), true});
    addCommand<WorkspaceCommand>(window, Workspace::train, Command::Description{QStringLiteral("view.train"), Command::tr("View"), Command::tr("&Train"), Command::tr("Follow a training run"), QKeySequence(Qt::CTRL | Qt::Key_3), true});
    addCommand<WorkspaceCommand>(window, Workspace::figure, Command::Description{QStringLiteral("view.figure"), Command::tr("View"), Command::tr("&Figure"), Command::tr("Lay out views as a figure for paper"), QKeySequence(Qt::CTRL | Qt::Key_4), true});
    addCommand<WorkspaceCommand>(window, Workspace::start, Command::Description{QStringLiteral("view.start"), Command::tr("View"), Command::tr("&Start page"), Command::tr("Recent work and the bundled example"), QKeySequence(Qt::CTRL | Qt::Key_0), true});
    addCommand<LayerCommand>(window, -1, Command::Description{QStringLiteral("view.previousLayer"), Command::tr("View"), Command::tr("Pre&vious layer"), Command::tr("Show the layer before"), QKeySequence(Qt::CTRL | Qt::Key_BracketLeft)});
    addCommand<LayerCommand>(window, 1, Command::Description{QStringLiteral("view.nextLayer"), Command::tr("View"), Command::tr("Ne&xt layer"), Command::tr("Show the layer after"), QKeySequence(Qt::CTRL | Qt::Key_BracketRight)});
    addCommand<NextTraceCommand>(window);
    addCommand<TasksCommand>(window);
    addCommand<DefaultLayoutCommand>(window);
    addCommand<ThemeCommand>(window, ThemeChoice::system, Command::Description{QStringLiteral("view.themeSystem"), Command::tr("View"), Command::tr("Theme of the &desktop"), Command::tr("Light or dark as the desktop is"), {}, true});
    addCommand<ThemeCommand>(window, ThemeChoice::light, Command::Description{QStringLiteral("view.themeLight"), Command::tr("View"), Command::tr("&Light theme"), Command::tr("Dark text on light ground"), {}, true});
    addCommand<ThemeCommand>(window, ThemeChoice::dark, Command::Description{QStringLiteral("view.themeDark"), Command::tr("View"), Command::tr("Dar&k theme"), Command::tr("Light text on dark ground"), {}, true});
    addCommand<PaletteCommand>(window);
    addCommand<FullScreenCommand>(window);
}

void addDockCommands(MainWindow &window)
{
    for (QDockWidget *dock : window.docks())
        addCommand<DockCommand>(window, dock);
}

} // namespace spectra
