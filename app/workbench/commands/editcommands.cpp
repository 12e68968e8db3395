// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/windowcommand.h"

#include "views/export.h"

namespace spectra {

namespace {

class UndoCommand : public WindowCommand {
public:
    explicit UndoCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.undo"), tr("Edit"), tr("&Undo"), tr("Take back the last change of layer, selection, filter, groups or domains"), QKeySequence::Undo})
    {
    }
    void triggered() override { workbench().undoStack().undo(); }
    void updateEnableState() override
    {
        const QUndoStack &stack = workbench().undoStack();
        setEnabled(stack.canUndo());
        action()->setText(stack.canUndo() ? tr("&Undo: %1").arg(stack.undoText()) : tr("&Undo"));
    }
};

class RedoCommand : public WindowCommand {
public:
    explicit RedoCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.redo"), tr("Edit"), tr("&Redo"), tr("Do again what was taken back"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_Z)})
    {
    }
    void triggered() override { workbench().undoStack().redo(); }
    void updateEnableState() override
    {
        const QUndoStack &stack = workbench().undoStack();
        setEnabled(stack.canRedo());
        action()->setText(stack.canRedo() ? tr("&Redo: %1").arg(stack.redoText()) : tr("&Redo"));
    }
};

class InvertCommand : public WindowCommand {
public:
    explicit InvertCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.invert"), tr("Edit"), tr("&Invert selection"), tr("Select the tokens that are not selected"), QKeySequence(Qt::CTRL | Qt::Key_I)})
    {
    }
    void triggered() override { session().invertSelection(); }
    void updateEnableState() override { setEnabled(session().current() != nullptr); }
};

class ClearSelectionCommand : public WindowCommand {
public:
    explicit ClearSelectionCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.clearSelection"), tr("Edit"), tr("&Clear selection"), tr("Select nothing"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_A)})
    {
    }
    void triggered() override { session().clearSelection(); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && !trace->selection.empty());
    }
};

class FilterCommand : public WindowCommand {
public:
    explicit FilterCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.filter"), tr("Edit"), tr("&Show only the selection"), tr("Filter every view to the selected tokens"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_F)})
    {
    }
    void triggered() override
    {
        if (const auto trace = session().current())
            session().setFilter(RowSet(trace->selection), tr("Show only the selection"));
    }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && !trace->selection.empty());
    }
};

class ClearFilterCommand : public WindowCommand {
public:
    explicit ClearFilterCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.clearFilter"), tr("Edit"), tr("Clear &filter"), tr("Show all tokens again")})
    {
    }
    void triggered() override { session().clearFilter(); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && trace->filter.count() < trace->filter.size());
    }
};

class SaveGroupCommand : public WindowCommand {
public:
    explicit SaveGroupCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.saveGroup"), tr("Edit"), tr("Save selection as &group…"), tr("Keep the selected tokens under a name"), QKeySequence(Qt::CTRL | Qt::Key_G)})
    {
    }
    void triggered() override { window().askGroupName(); }
    void updateEnableState() override
    {
        const auto trace = session().current();
        setEnabled(trace && !trace->selection.empty());
    }
};

class CopyViewCommand : public WindowCommand {
public:
    explicit CopyViewCommand(MainWindow &window)
        : WindowCommand(window, {QStringLiteral("edit.copyView"), tr("Edit"), tr("Copy &picture and data"), tr("Put the active view on the clipboard as PNG, SVG and table"), QKeySequence(Qt::CTRL | Qt::SHIFT | Qt::Key_C)})
    {
    }
    void triggered() override
    {
        if (View *view = window().activeView())
            copyToClipboard(*view);
    }
    void updateEnableState() override
    {
        setEnabled(window().workspace() == Workspace::explore && window().activeView() && window().activeView()->state() == ViewState::ready);
    }
};

} // namespace

void addEditCommands(MainWindow &window)
{
    addCommand<UndoCommand>(window);
    addCommand<RedoCommand>(window);
    addCommand<InvertCommand>(window);
    addCommand<ClearSelectionCommand>(window);
    addCommand<FilterCommand>(window);
    addCommand<ClearFilterCommand>(window);
    addCommand<SaveGroupCommand>(window);
    addCommand<CopyViewCommand>(window);
}

} // namespace spectra
