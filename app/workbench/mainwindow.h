// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/commands/commandregistry.h"
#include "app/workbench/shell/themecontrol.h"
#include "app/workbench/workbench.h"
#include "views/view.h"

#include <QDockWidget>
#include <QMainWindow>
#include <QStackedWidget>

#include <map>
#include <memory>
#include <vector>

class QToolBar;

namespace spectra {

class BannerArea;
class CommandPalette;
class DockTitle;
class FigureWorkspace;
class MainBar;
class PromptView;
class StartPage;
class StatusLine;

enum class Workspace { start, explore, compare, train, figure };
[[nodiscard]] QString workspaceName(Workspace workspace);
[[nodiscard]] std::optional<Workspace> workspaceByName(const QString &name);

/// The window: docks, workspaces, menus and tool bar over a Workbench. What a user can do is in the command registry; the
/// window only arranges. Closing it closes the Workbench first: engine joined, pools drained, session saved, then the
/// views go.
class MainWindow : public QMainWindow {
    Q_OBJECT
public:
    explicit MainWindow(Workbench &workbench, QWidget *parent = nullptr);
    ~MainWindow() override;

    [[nodiscard]] Workbench &workbench() { return m_workbench; }
    [[nodiscard]] CommandRegistry &registry() { return m_registry; }
    [[nodiscard]] ThemeControl &themes() { return *m_themes; }
    [[nodiscard]] PromptView &promptView() { return *m_prompt; }
    [[nodiscard]] FigureWorkspace &figure() { return *m_figure; }
    [[nodiscard]] MainBar &mainBar() { return *m_bar; }
    [[nodiscard]] StatusLine &statusLine() { return *m_status; }
    [[nodiscard]] BannerArea &banners() { return *m_banners; }
    [[nodiscard]] StartPage &startPage() { return *m_start; }
    [[nodiscard]] CommandPalette &palettePopup() { return *m_palette; }

    [[nodiscard]] Workspace workspace() const { return m_workspace; }
    void showWorkspace(Workspace workspace);
    void restoreDefaultLayout();
    [[nodiscard]] const std::vector<QDockWidget *> &docks() const { return m_docks; }
    [[nodiscard]] QDockWidget *dock(const QString &id) const;
    [[nodiscard]] View *view(const QString &id) const;
    /// The view that had the keyboard last; the first visible one otherwise.
    [[nodiscard]] View *activeView() const;

    // What commands need of the window: all return at once
    void chooseFiles();
    void chooseSessionFile();
    /// Asks for the file of the current trace, a run in memory.
    void chooseTraceFile();
    void chooseExport(View *view, const QString &format);
    void askGroupName();
    void showPalette();
    void showShortcuts();
    void showAbout();
    void showTasks();

    /// True when nothing is being opened, run, computed or drawn.
    [[nodiscard]] bool isIdle() const;
    /// Offers what a program that ended unexpectedly left behind.
    void offerRecovery();

    static constexpr int layoutVersion = 1;

protected:
    void closeEvent(QCloseEvent *event) override;
    void showEvent(QShowEvent *event) override;
    void dragEnterEvent(QDragEnterEvent *event) override;
    void dragMoveEvent(QDragMoveEvent *event) override;
    void dropEvent(QDropEvent *event) override;

private:
    void buildDocks();
    void buildMenus();
    void connectSession();
    QDockWidget *addDock(const QString &id, const QString &title, QWidget *content);
    void arrangeDefault();
    void applyDefaultSizes();
    /// As QMainWindow::restoreState, but notices stay to be seen whatever the layout was saved with.
    bool restoreLayout(const QByteArray &layout);
    void followTasksOf(View *view);
    void applyTheme(const Theme &theme);
    void updateTitle();
    void save(SessionDocument &document) const;
    void restore(const SessionDocument &document);
    void exportTo(View *view, const QString &path);

    Workbench &m_workbench;
    CommandRegistry m_registry;
    std::unique_ptr<ThemeControl> m_themes;
    QStackedWidget *m_pages;
    StartPage *m_start;
    FigureWorkspace *m_figure = nullptr;
    PromptView *m_prompt = nullptr;
    BannerArea *m_banners;
    QToolBar *m_bannerBar = nullptr;
    MainBar *m_bar = nullptr;
    StatusLine *m_status = nullptr;
    CommandPalette *m_palette = nullptr;
    std::vector<QDockWidget *> m_docks;
    std::map<QString, View *> m_views;
    View *m_lastView = nullptr;
    Workspace m_workspace = Workspace::start;
    QByteArray m_exploreState; ///< of the docks while another workspace is shown
    bool m_sized = false;
};

} // namespace spectra
