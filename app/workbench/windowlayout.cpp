// SPDX-License-Identifier: GPL-3.0-or-later
// The window's arrangement: docks, workspaces, what a session file keeps of them.
#include "app/workbench/figure/figureworkspace.h"
#include "app/workbench/mainwindow.h"
#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"
#include "app/workbench/shell/startpage.h"

#include <QShowEvent>
#include <QToolBar>

#include <algorithm>

namespace spectra {

namespace {

constexpr auto layoutArea = Qt::LeftDockWidgetArea;

} // namespace

/// Prompt at the left; Gram and load above, space and metrics below them; the trajectory under all three; details at the
/// right over the whole height; tasks under the trajectory when asked for.
void MainWindow::arrangeDefault()
{
    const auto at = [this](const char *id) { return dock(QLatin1String(id)); };
    QDockWidget *prompt = at("prompt"), *details = at("details"), *trajectory = at("trajectory"), *gram = at("gram"),
                *load = at("load"), *space = at("space"), *metrics = at("metrics"), *tasks = at("tasks");
    for (QDockWidget *dock : m_docks) {
        dock->setFloating(false);
        removeDockWidget(dock);
    }
    addDockWidget(layoutArea, prompt);
    const auto split = [this](QDockWidget *beside, QDockWidget *dock, Qt::Orientation orientation) {
        if (beside && dock)
            splitDockWidget(beside, dock, orientation);
    };
    split(prompt, details, Qt::Horizontal);
    split(prompt, trajectory, Qt::Vertical);
    split(trajectory ? trajectory : prompt, tasks, Qt::Vertical);
    split(prompt, gram, Qt::Horizontal);
    split(gram, load, Qt::Horizontal);
    split(gram, space, Qt::Vertical);
    split(load, metrics, Qt::Vertical);
    for (QDockWidget *dock : m_docks) {
        if (dockWidgetArea(dock) == Qt::NoDockWidgetArea)
            addDockWidget(layoutArea, dock);
        dock->setVisible(dock != tasks);
    }
}

void MainWindow::applyDefaultSizes()
{
    const auto list = [this](std::initializer_list<const char *> ids) {
        QList<QDockWidget *> found;
        for (const char *id : ids)
            if (QDockWidget *d = dock(QLatin1String(id)))
                found << d;
        return found;
    };
    const int side = std::clamp(width() * 19 / 100, 230, 380);
    const int middle = std::max(200, (width() - 2 * side) / 2);
    const int rest = std::max(300, height() - 110);
    const auto resize = [this](const QList<QDockWidget *> &docks, QList<int> sizes, Qt::Orientation orientation) {
        if (docks.size() == sizes.size())
            resizeDocks(docks, sizes, orientation);
    };
    resize(list({"prompt", "gram", "load", "details"}), {side, middle, middle, side}, Qt::Horizontal);
    resize(list({"gram", "space", "trajectory"}), {rest * 36 / 100, rest * 36 / 100, rest * 28 / 100}, Qt::Vertical);
    resize(list({"load", "metrics"}), {rest * 36 / 100, rest * 36 / 100}, Qt::Vertical);
}

void MainWindow::restoreDefaultLayout()
{
    if (m_workspace != Workspace::explore)
        showWorkspace(Workspace::explore);
    arrangeDefault();
    applyDefaultSizes();
    m_registry.updateEnableStates();
    m_workbench.touch();
}

bool MainWindow::restoreLayout(const QByteArray &layout)
{
    const bool restored = QMainWindow::restoreState(layout, layoutVersion);
    m_bannerBar->setVisible(!m_banners->banners().empty());
    return restored;
}

void MainWindow::showWorkspace(Workspace workspace)
{
    const bool same = workspace == m_workspace;
    if (m_workspace == Workspace::explore && !same) {
        m_exploreState = saveState(layoutVersion);
        for (QDockWidget *dock : m_docks)
            dock->hide();
    }
    m_workspace = workspace;
    if (workspace == Workspace::explore) {
        m_pages->hide();
        if (!same) {
            restoreLayout(m_exploreState);
            if (isVisible() && !std::exchange(m_sized, true))
                applyDefaultSizes();
        }
    } else {
        m_pages->setCurrentIndex(workspace == Workspace::start ? 0 : static_cast<int>(workspace) - 1);
        m_pages->show();
        if (workspace == Workspace::figure && !same && m_figure->panels().empty() && m_workbench.session().current())
            for (const char *id : {"gram", "load"})
                m_figure->addPanel(QLatin1String(id)); // a figure to start from
        if (workspace == Workspace::start)
            m_start->setFocus();
    }
    m_registry.updateEnableStates();
    if (!same)
        m_workbench.touch();
}

void MainWindow::showEvent(QShowEvent *event)
{
    QMainWindow::showEvent(event);
    if (m_workspace == Workspace::explore && !m_sized) {
        m_sized = true;
        applyDefaultSizes();
    }
}

void MainWindow::save(SessionDocument &document) const
{
    document.workspace = workspaceName(m_workspace);
    document.geometry = saveGeometry();
    document.layout = m_workspace == Workspace::explore ? saveState(layoutVersion) : m_exploreState;
    document.layoutVersion = layoutVersion;
    for (const auto &[id, view] : m_views)
        document.views[id] = view->saveState();
    document.figure = m_figure->saveState();
    m_prompt->save(document);
}

void MainWindow::restore(const SessionDocument &document)
{
    for (const auto &[id, view] : m_views)
        if (document.views.contains(id))
            view->restoreState(document.views[id].toObject());
    m_figure->restoreState(document.figure);
    m_prompt->restore(document);
    const Workspace wanted = workspaceByName(document.workspace).value_or(Workspace::explore);
    showWorkspace(Workspace::explore);
    // A layout of another version is left alone: the docks stay where they are.
    if (document.layoutVersion == layoutVersion && restoreLayout(document.layout))
        m_sized = true;
    if (wanted == Workspace::start && !document.traces.empty())
        return;
    showWorkspace(wanted);
}

} // namespace spectra
