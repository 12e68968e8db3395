// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/windowcommand.h"
#include "app/workbench/figure/figureworkspace.h"

namespace spectra {

namespace {

class OpenCommand : public WindowCommand {
public:
    explicit OpenCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.open"), tr("File"), tr("&Open…"), tr("Open a trace, a .gguf model, prompts or a session"), QKeySequence::Open})
    {
    }
    void triggered() override { window().chooseFiles(); }
};

class OpenExampleCommand : public WindowCommand {
public:
    explicit OpenExampleCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.example"), tr("File"), tr("Open the &example"), tr("Open the bundled trace of SmolLM2-135M, or make it")})
    {
    }
    void triggered() override { workbench().openExample(); }
    void updateEnableState() override { setEnabled(workbench().hasExample()); }
};

class ReloadCommand : public WindowCommand {
public:
    explicit ReloadCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.reload"), tr("File"), tr("&Reload trace"), tr("Read the current trace again from its file"), QKeySequence::Refresh})
    {
    }
    void triggered() override { workbench().reloadCurrent(); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && !trace->info->file.empty());
    }
};

class CloseTraceCommand : public WindowCommand {
public:
    explicit CloseTraceCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.close"), tr("File"), tr("&Close trace"), tr("Close the current trace; its file stays as it is"), QKeySequence::Close})
    {
    }
    void triggered() override { workbench().closeCurrent(); }
    void updateEnableState() override { setEnabled(session().current() != nullptr); }
};

class NewSessionCommand : public WindowCommand {
public:
    explicit NewSessionCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.newSession"), tr("File"), tr("&New session"), tr("Close all traces and begin anew"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_N)})
    {
    }
    void triggered() override
    {
        workbench().newSession();
        window().showWorkspace(Workspace::start);
    }
};

class SaveSessionCommand : public WindowCommand {
public:
    explicit SaveSessionCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.saveSession"), tr("File"), tr("&Save session"), tr("Save open traces, selection, layout and prompt to a session file"), QKeySequence::Save})
    {
    }
    void triggered() override
    {
        if (workbench().sessionPath().isEmpty())
            window().chooseSessionFile();
        else
            workbench().saveSession(workbench().sessionPath());
    }
};

class SaveSessionAsCommand : public WindowCommand {
public:
    explicit SaveSessionAsCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.saveSessionAs"), tr("File"), tr("Save session &as…"), tr("Save the session under another name"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_S)})
    {
    }
    void triggered() override { window().chooseSessionFile(); }
};

/// A run of the Prompt view lives in memory until it is saved.
class SaveTraceCommand : public WindowCommand {
public:
    explicit SaveTraceCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.saveTrace"), tr("File"), tr("Save &trace as…"), tr("Save the current run, which is in memory only, as a trace file")})
    {
    }
    void triggered() override { window().chooseTraceFile(); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && workbench().canSaveTrace(trace->id));
    }
};

/// Exports the view that had the keyboard last; in the Figure workspace the page.
class ExportCommand : public WindowCommand {
public:
    ExportCommand(MainWindow &window, Description description, QString format)
        : WindowCommand(window, std::move(description)), m_format(std::move(format)), m_isData(m_format == QLatin1String("csv"))
    {
    }
    void triggered() override
    {
        View *view = window().activeView();
        if (window().workspace() == Workspace::figure)
            view = m_isData ? window().figure().selectedPanel() : nullptr;
        window().chooseExport(view, m_format);
    }
    void updateEnableState() override
    {
        if (window().workspace() == Workspace::figure)
            setEnabled(m_isData ? window().figure().selectedPanel() != nullptr : !window().figure().panels().empty());
        else
            setEnabled(window().workspace() == Workspace::explore && window().activeView() && window().activeView()->state() == ViewState::ready);
    }

private:
    QString m_format;
    bool m_isData;
};

class QuitCommand : public WindowCommand {
public:
    explicit QuitCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("file.quit"), tr("File"), tr("&Quit"), tr("Stop what runs and close the window"), QKeySequence(Qt::CTRL | Qt::Key_Q)})
    {
    }
    void triggered() override { window().close(); }
};

} // namespace

void addFileCommands(MainWindow &window)
{
    addCommand<OpenCommand>(window);
    addCommand<OpenExampleCommand>(window);
    addCommand<ReloadCommand>(window);
    addCommand<CloseTraceCommand>(window);
    addCommand<NewSessionCommand>(window);
    addCommand<SaveSessionCommand>(window);
    addCommand<SaveSessionAsCommand>(window);
    addCommand<SaveTraceCommand>(window);
    addCommand<ExportCommand>(window, Command::Description{QStringLiteral("file.exportFigure"), Command::tr("File"), Command::tr("&Export figure…"), Command::tr("Export the active view, or the page of the Figure workspace, as PDF, SVG or PNG"), QKeySequence(Qt::CTRL | Qt::Key_E)}, QStringLiteral("pdf"));
    addCommand<ExportCommand>(window, Command::Description{QStringLiteral("file.exportData"), Command::tr("File"), Command::tr("Export &data…"), Command::tr("Export the data that the active view shows as CSV or a LaTeX table"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_E)}, QStringLiteral("csv"));
    addCommand<QuitCommand>(window);
}

} // namespace spectra
