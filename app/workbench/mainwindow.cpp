// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/mainwindow.h"

#include "app/workbench/commands/allcommands.h"
#include "app/workbench/commands/commandpalette.h"
#include "app/workbench/figure/figureworkspace.h"
#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"
#include "app/workbench/shell/mainbar.h"
#include "app/workbench/shell/startpage.h"
#include "app/workbench/shell/statusline.h"
#include "app/workbench/shell/taskpanel.h"
#include "app/workbench/shell/widgets.h"
#include "views/viewfactory.h"

#include <QAbstractScrollArea>
#include <QApplication>
#include <QCloseEvent>
#include <QFileInfo>
#include <QLabel>
#include <QLocale>
#include <QMenuBar>
#include <QVBoxLayout>

#include <algorithm>

namespace spectra {

namespace {

/// A workspace that the program does not have yet says so, and what can be done instead.
QWidget *absentPage(const QString &title, const QString &text, QWidget *parent)
{
    auto *page = new QWidget(parent);
    page->setAccessibleName(title);
    auto *heading = new QLabel(title, page);
    heading->setFont(headingFont(heading->font(), 1.5));
    heading->setAlignment(Qt::AlignHCenter);
    QLabel *body = quietLabel(text, page);
    body->setAlignment(Qt::AlignHCenter);
    body->setFixedSize(520, body->heightForWidth(520)); // an aligned label is not given the height that its lines need
    auto *layout = new QVBoxLayout(page);
    layout->addStretch(2);
    layout->addWidget(heading, 0, Qt::AlignHCenter);
    layout->addSpacing(8);
    layout->addWidget(body, 0, Qt::AlignHCenter);
    layout->addStretch(3);
    return page;
}

} // namespace

QString workspaceName(Workspace workspace)
{
    switch (workspace) {
    case Workspace::explore: return QStringLiteral("explore");
    case Workspace::compare: return QStringLiteral("compare");
    case Workspace::train: return QStringLiteral("train");
    case Workspace::figure: return QStringLiteral("figure");
    case Workspace::start: break;
    }
    return QStringLiteral("start");
}

std::optional<Workspace> workspaceByName(const QString &name)
{
    for (Workspace w : {Workspace::start, Workspace::explore, Workspace::compare, Workspace::train, Workspace::figure})
        if (name.compare(workspaceName(w), Qt::CaseInsensitive) == 0)
            return w;
    return std::nullopt;
}

MainWindow::MainWindow(Workbench &workbench, QWidget *parent)
    : QMainWindow(parent)
    , m_workbench(workbench)
    , m_themes(std::make_unique<ThemeControl>(workbench.settings()))
    , m_pages(new QStackedWidget(this))
    , m_start(new StartPage(workbench, this))
    , m_banners(new BannerArea(this))
{
    setObjectName(QStringLiteral("mainWindow"));
    setWindowIcon(QIcon(QStringLiteral(":/icons/spectra-workbench.svg")));
    setAcceptDrops(true);
    setDockNestingEnabled(true);
    setDockOptions(AnimatedDocks | AllowNestedDocks | AllowTabbedDocks);
    resize(1280, 800);

    addFileCommands(*this);
    addEditCommands(*this);
    addViewCommands(*this);
    addRunCommands(*this);
    addHelpCommands(*this);

    m_figure = new FigureWorkspace(
        workbench.session(), [this](const QString &id) { View *v = view(id); return v ? v->saveState() : QJsonObject(); }, this);
    m_pages->addWidget(m_start);
    m_pages->addWidget(absentPage(tr("Compare"),
                                  tr("Comparing checkpoints side by side is not part of this version. Until it is, open several traces "
                                     "and switch between them with the trace chooser or Ctrl+Tab: layer and layout stay."),
                                  this));
    m_pages->addWidget(absentPage(tr("Train"),
                                  tr("Following a training run is not part of this version. Traces of a trained checkpoint open in Explore "
                                     "like any other."),
                                  this));
    m_pages->addWidget(m_figure);
    setCentralWidget(m_pages);

    buildDocks();
    addDockCommands(*this);
    m_bar = new MainBar(workbench.session(), m_registry, this);
    addToolBar(Qt::TopToolBarArea, m_bar);
    m_bar->toggleViewAction()->setEnabled(false);
    addToolBarBreak(Qt::TopToolBarArea);
    m_bannerBar = new QToolBar(tr("Notices"), this);
    m_bannerBar->setObjectName(QStringLiteral("bannerBar"));
    m_bannerBar->setMovable(false);
    m_bannerBar->setFloatable(false);
    m_bannerBar->setContentsMargins(0, 0, 0, 0);
    m_banners->setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Preferred);
    m_bannerBar->addWidget(m_banners);
    m_bannerBar->toggleViewAction()->setVisible(false);
    addToolBar(Qt::TopToolBarArea, m_bannerBar);
    m_bannerBar->setVisible(false);
    connect(m_banners, &BannerArea::emptyChanged, m_bannerBar, [this](bool empty) { m_bannerBar->setVisible(!empty); });
    m_status = new StatusLine(workbench.session(), workbench.tasks(), this);
    setStatusBar(m_status);
    connect(m_status, &StatusLine::taskListRequested, this, &MainWindow::showTasks);
    m_palette = new CommandPalette(m_registry, this);
    buildMenus();
    // Shortcuts work whatever has the keyboard, and without opening a menu.
    for (const auto &command : m_registry.all())
        addAction(command->action());

    connectSession();
    applyTheme(m_themes->theme());
    connect(m_themes.get(), &ThemeControl::themeChanged, this, &MainWindow::applyTheme);
    workbench.addDocumentPart([this](SessionDocument &d) { save(d); }, [this](const SessionDocument &d) { restore(d); });

    arrangeDefault();
    if (QSettings *settings = workbench.settings()) {
        restoreGeometry(settings->value(QStringLiteral("window/geometry")).toByteArray());
        const QByteArray state = settings->value(QStringLiteral("window/layout")).toByteArray();
        if (!state.isEmpty() && restoreLayout(state))
            m_sized = true;
    }
    m_exploreState = saveState(layoutVersion);
    m_workspace = Workspace::explore;
    showWorkspace(Workspace::start);
    updateTitle();
    m_registry.updateEnableStates();
}

MainWindow::~MainWindow()
{
    m_workbench.close();
}

QDockWidget *MainWindow::addDock(const QString &id, const QString &title, QWidget *content)
{
    auto *dock = new QDockWidget(title, this);
    dock->setObjectName(id);
    dock->setWidget(content);
    dock->setAccessibleName(title);
    dock->setTitleBarWidget(new DockTitle(dock));
    m_docks.push_back(dock);
    return dock;
}

void MainWindow::buildDocks()
{
    m_prompt = new PromptView(m_workbench, this);
    QDockWidget *promptDock = addDock(QStringLiteral("prompt"), tr("Prompt"), m_prompt);
    const auto promptTitle = [promptDock](const QString &text) { static_cast<DockTitle *>(promptDock->titleBarWidget())->setSubtitle(text); };
    connect(m_prompt, &PromptView::subtitleChanged, this, promptTitle);
    for (const ViewKind &kind : viewKinds()) {
        View *view = kind.create(this);
        view->setSession(&m_workbench.session());
        QDockWidget *dock = addDock(kind.id, kind.title, view);
        dock->setToolTip({});
        connect(view, &View::subtitleChanged, this,
                [dock](const QString &text) { static_cast<DockTitle *>(dock->titleBarWidget())->setSubtitle(text); });
        connect(view, &View::exportRequested, this, &MainWindow::chooseExport);
        connect(view, &View::stateChanged, &m_registry, [this] { m_registry.scheduleUpdate(); });
        followTasksOf(view);
        m_views[kind.id] = view;
    }
    addDock(QStringLiteral("tasks"), tr("Tasks"), new TaskPanel(m_workbench.tasks(), this));
    connect(qApp, &QApplication::focusChanged, this, [this](QWidget *, QWidget *now) {
        for (QWidget *w = now; w; w = w->parentWidget())
            if (auto *view = qobject_cast<View *>(w)) {
                if (this->view(view->viewId()) == view && std::exchange(m_lastView, view) != view)
                    m_registry.scheduleUpdate();
                return;
            }
    });
}

void MainWindow::followTasksOf(View *view)
{
    // Views report work that is worth a row (a map that is being computed); quick reads end before they say a word.
    auto task = std::make_shared<quint64>(0);
    TaskModel &tasks = m_workbench.tasks();
    connect(view, &View::progress, this, [view, task, &tasks](const QString &stage, qint64 done, qint64 total, const QString &unit) {
        if (*task == 0)
            *task = tasks.start(view->title(), [view] { view->cancel(); });
        tasks.setProgress(*task, stage, done, total, unit);
    });
    connect(view, &View::workingChanged, this, [view, task, &tasks](bool working) {
        if (working || *task == 0)
            return;
        const bool failed = view->state() == ViewState::failed;
        tasks.finish(std::exchange(*task, 0), failed ? TaskState::failed : TaskState::done, failed ? view->message().section(QLatin1Char('\n'), 0, 0) : QString());
    });
}

void MainWindow::buildMenus()
{
    const auto add = [this](QMenu *menu, std::initializer_list<const char *> ids) {
        for (const char *id : ids) {
            if (*id == '\0')
                menu->addSeparator();
            else
                menu->addAction(m_registry.action(QLatin1String(id)));
        }
    };
    menuBar()->setObjectName(QStringLiteral("menuBar"));
    QMenu *file = menuBar()->addMenu(tr("&File"));
    add(file, {"file.open", "file.example"});
    QMenu *recent = file->addMenu(tr("Open &recent"));
    recent->setObjectName(QStringLiteral("recentMenu"));
    connect(recent, &QMenu::aboutToShow, this, [this, recent] {
        recent->clear();
        RecentFiles &files = m_workbench.recentFiles();
        for (const QString &path : files.paths())
            recent->addAction(path, this, [this, path] { m_workbench.open({path}); });
        recent->addSeparator();
        QAction *clear = recent->addAction(tr("Forget all"), &files, &RecentFiles::clear);
        clear->setEnabled(!files.paths().isEmpty());
    });
    add(file, {"file.reload", "file.close", "", "file.newSession", "file.saveSession", "file.saveSessionAs", "file.saveTrace", "", "file.exportFigure", "file.exportData", "", "file.quit"});
    QMenu *edit = menuBar()->addMenu(tr("&Edit"));
    add(edit, {"edit.undo", "edit.redo", "", "edit.invert", "edit.clearSelection", "edit.filter", "edit.clearFilter", "", "edit.saveGroup"});
    QMenu *groups = edit->addMenu(tr("Gro&ups"));
    connect(groups, &QMenu::aboutToShow, this, [this, groups] {
        groups->clear();
        Session &session = m_workbench.session();
        const auto trace = session.current();
        QMenu *forget = nullptr;
        for (const RowGroup &group : session.groups()) {
            if (!trace || group.trace != trace->id)
                continue;
            const QString name = group.name;
            groups->addAction(tr("%1 (%2 tokens)").arg(name).arg(group.rows.count()), this,
                              [&session, name] { session.selectGroup(name, selectModeOf(QApplication::keyboardModifiers())); });
            if (!forget)
                forget = new QMenu(tr("Remove"), groups);
            forget->addAction(name, this, [&session, name] { session.removeGroup(name); });
        }
        if (forget) {
            groups->addSeparator();
            groups->addMenu(forget);
        } else {
            groups->addAction(tr("No groups yet: select tokens, then Save selection as group"))->setEnabled(false);
        }
    });
    add(edit, {"", "edit.copyView"});
    QMenu *viewMenu = menuBar()->addMenu(tr("&View"));
    add(viewMenu, {"view.start", "view.explore", "view.compare", "view.train", "view.figure", ""});
    for (QDockWidget *dock : m_docks)
        viewMenu->addAction(m_registry.action(QStringLiteral("dock.") + dock->objectName()));
    add(viewMenu, {"", "view.defaultLayout", "", "view.previousLayer", "view.nextLayer", "view.nextTrace", ""});
    QMenu *theme = viewMenu->addMenu(tr("T&heme"));
    add(theme, {"view.themeSystem", "view.themeLight", "view.themeDark"});
    add(viewMenu, {"view.fullScreen", "view.palette"});
    QMenu *run = menuBar()->addMenu(tr("&Run"));
    add(run, {"run.edit", "run.run", "", "view.tasks", "run.cancelAll", "run.clearTasks"});
    QMenu *help = menuBar()->addMenu(tr("&Help"));
    add(help, {"help.shortcuts", "", "help.about"});
    for (QMenu *menu : {file, edit, viewMenu, run, help})
        connect(menu, &QMenu::aboutToShow, &m_registry, &CommandRegistry::updateEnableStates);
}

void MainWindow::connectSession()
{
    Session &session = m_workbench.session();
    const auto refresh = [this] { m_registry.scheduleUpdate(); };
    connect(&session, &Session::tracesChanged, this, refresh);
    connect(&session, &Session::currentChanged, this, refresh);
    connect(&session, &Session::layerChanged, this, refresh);
    connect(&session, &Session::rowsChanged, this, [this](RowLayer layer) {
        if (layer != RowLayer::highlight)
            m_registry.scheduleUpdate();
    });
    connect(&m_workbench.undoStack(), &QUndoStack::indexChanged, this, refresh);
    connect(&m_workbench.tasks(), &TaskModel::activeChanged, this, refresh);
    connect(&m_workbench.runner(), &PromptRunner::runningChanged, this, refresh);
    connect(&session, &Session::currentChanged, this, &MainWindow::updateTitle);
    connect(&session, &Session::tracesChanged, this, [this] {
        updateTitle();
        if (m_workbench.session().traces().empty() && m_workspace == Workspace::explore && !m_workbench.runner().isRunning())
            showWorkspace(Workspace::start);
    });
    connect(&m_workbench, &Workbench::noticed, m_banners, [this](const Notice &notice) { m_banners->show(notice); });
    connect(&m_workbench, &Workbench::traceShown, this, [this] {
        if (m_workspace != Workspace::figure)
            showWorkspace(Workspace::explore);
    });
    connect(&m_workbench, &Workbench::modelOpened, this, [this](const QString &model) {
        showWorkspace(Workspace::explore);
        dock(QStringLiteral("prompt"))->show();
        m_prompt->setModel(model);
        m_prompt->focusEditor();
    });
    connect(&m_workbench, &Workbench::promptsRead, this, [this](const QString &path, const std::shared_ptr<const std::vector<Prompt>> &prompts) {
        showWorkspace(Workspace::explore);
        dock(QStringLiteral("prompt"))->show();
        m_prompt->setPrompts(path, prompts);
        m_prompt->focusEditor();
    });
    connect(&m_workbench, &Workbench::sessionRestored, this, [this] { updateTitle(); });
    connect(m_prompt, &PromptView::changed, &m_workbench, &Workbench::touch);
    connect(m_figure, &FigureWorkspace::changed, this, [this] {
        m_workbench.touch();
        m_registry.scheduleUpdate();
    });
    connect(m_figure, &FigureWorkspace::exportRequested, this, &MainWindow::chooseExport);
    connect(m_start, &StartPage::openRequested, this, &MainWindow::chooseFiles);
    connect(m_start, &StartPage::promptRequested, this, [this] { m_registry.action(QStringLiteral("run.edit"))->trigger(); });
    for (const auto &[id, view] : m_views)
        connect(view, &View::optionsChanged, &m_workbench, &Workbench::touch);
}

QDockWidget *MainWindow::dock(const QString &id) const
{
    const auto found = std::ranges::find_if(m_docks, [&](const QDockWidget *d) { return d->objectName() == id; });
    return found == m_docks.end() ? nullptr : *found;
}

View *MainWindow::view(const QString &id) const
{
    const auto found = m_views.find(id);
    return found == m_views.end() ? nullptr : found->second;
}

View *MainWindow::activeView() const
{
    if (m_lastView && m_lastView->isVisible())
        return m_lastView;
    for (const ViewKind &kind : viewKinds())
        if (View *candidate = view(kind.id); candidate && candidate->isVisible())
            return candidate;
    return nullptr;
}

void MainWindow::applyTheme(const Theme &theme)
{
    for (const auto &[id, view] : m_views)
        view->setTheme(theme);
    m_prompt->setTheme(theme);
    m_figure->setTheme(theme);
    m_status->setTheme(theme);
    // Under an application style sheet a viewport does not follow the palette of its scroll area.
    for (QAbstractScrollArea *area : findChildren<QAbstractScrollArea *>())
        area->viewport()->setPalette(area->palette());
}

void MainWindow::updateTitle()
{
    const auto trace = m_workbench.session().current();
    const QString program = tr("SPECTRA Workbench");
    setWindowTitle(trace ? tr("%1 – %2").arg(trace->name, program) : program);
}

void MainWindow::showTasks()
{
    QDockWidget *tasks = dock(QStringLiteral("tasks"));
    tasks->show();
    tasks->raise();
}

bool MainWindow::isIdle() const
{
    if (!m_workbench.isIdle() || m_prompt->isWorking() || (m_workspace == Workspace::figure && m_figure->isWorking()))
        return false;
    for (const auto &[id, view] : m_views)
        if (view->isVisible() && (view->isWorking() || view->state() == ViewState::busy))
            return false;
    return true;
}

void MainWindow::offerRecovery()
{
    // One notice each, the newest first: nothing is thrown away unasked. More than fit wait for the next start.
    const QStringList found = m_workbench.autosave().abandoned();
    for (const QString &path : found.first(std::min<qsizetype>(found.size(), BannerArea::maxBanners))) {
        const QString when = QLocale(QLocale::English).toString(QFileInfo(path).lastModified(), QStringLiteral("d MMMM yyyy, HH:mm:ss"));
        Notice notice{Notice::Kind::warning, tr("The program ended unexpectedly"), tr("A session of %1 is left").arg(when), {}};
        notice.actions.emplace_back(tr("Restore"), [this, path] {
            // Thrown away only when the restored session has been saved in its place: opening it may fail, or crash again.
            const auto restored = connect(&m_workbench, &Workbench::sessionRestored, this, [this, path] {
                connect(&m_workbench.autosave(), &Autosave::saved, this, [path] { Autosave::discard(path); }, Qt::SingleShotConnection);
                m_workbench.touch();
            }, Qt::SingleShotConnection);
            if (!m_workbench.openSession(path, true))
                disconnect(restored);
        });
        notice.actions.emplace_back(tr("Discard"), [path] { Autosave::discard(path); });
        m_banners->show(notice);
    }
}

void MainWindow::closeEvent(QCloseEvent *event)
{
    if (QSettings *settings = m_workbench.settings()) {
        settings->setValue(QStringLiteral("window/geometry"), saveGeometry());
        settings->setValue(QStringLiteral("window/layout"), m_workspace == Workspace::explore ? saveState(layoutVersion) : m_exploreState);
    }
    m_workbench.close();
    event->accept();
}

} // namespace spectra
