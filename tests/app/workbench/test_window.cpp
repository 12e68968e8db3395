// SPDX-License-Identifier: GPL-3.0-or-later
// The window with real events: opening, sessions, commands, undo, drops, keyboard.
#include "support.h"

#include "app/workbench/commands/commandpalette.h"
#include "app/workbench/figure/figureworkspace.h"
#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"
#include "app/workbench/shell/mainbar.h"
#include "app/workbench/shell/startpage.h"
#include "app/workbench/shell/statusline.h"
#include "app/workbench/shell/taskpanel.h"

#include <QDragEnterEvent>
#include <QDropEvent>
#include <QMimeData>
#include <QSet>
#include <QSignalSpy>
#include <QTableWidget>

namespace spectra {

using namespace shelltest;

namespace {

void drop(QWidget *widget, const QMimeData &mime)
{
    QDragEnterEvent enter(QPoint(50, 50), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QApplication::sendEvent(widget, &enter);
    EXPECT_TRUE(enter.isAccepted());
    QDropEvent event(QPointF(50, 50), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QApplication::sendEvent(widget, &event);
}

void drop(QWidget *widget, const QStringList &paths)
{
    QMimeData mime;
    QList<QUrl> urls;
    for (const QString &path : paths)
        urls << QUrl::fromLocalFile(path);
    mime.setUrls(urls);
    drop(widget, mime);
}

RowSet rows(std::size_t size, std::size_t first, std::size_t last)
{
    RowSet set(size);
    set.insertRange(first, last);
    return set;
}

} // namespace

TEST(Window, StartsOnTheStartPageAndOpensATrace)
{
    Program program;
    EXPECT_EQ(program.window->workspace(), Workspace::start);
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.window->workspace(), Workspace::explore);
    ASSERT_TRUE(program.workbench->session().current());
    EXPECT_EQ(program.workbench->session().current()->name, QStringLiteral("a.h5"));
    EXPECT_TRUE(program.window->dock(QStringLiteral("gram"))->isVisible());
    EXPECT_TRUE(program.errors().isEmpty()) << program.errors().join(u'\n').toStdString();
    EXPECT_EQ(program.window->statusLine().scopeText(), QStringLiteral("causal routing · ε 0.05 · float32 · CPU"));
    EXPECT_TRUE(program.window->statusLine().noteText().contains(QStringLiteral("untrained"))) << "a fresh router is told";
    // The same file again is shown, not opened twice.
    program.workbench->open({program.path(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.workbench->session().traces().size(), 1u);
}

TEST(Window, TwoClicksFromStartToTheExpertUnderTheMouse)
{
    Program program;
    program.example = program.makeTrace(QStringLiteral("example.h5"));
    program.close();
    program.start();
    // First click: the example.
    QTest::mouseClick(program.window->startPage().exampleButton(), Qt::LeftButton);
    ASSERT_TRUE(program.settle());
    TokenTextView *text = program.window->promptView().tokenText();
    ASSERT_TRUE(QTest::qWaitFor([&] { return !text->tokens().empty(); }, 10000)) << "the text of the first sequence is there by itself";
    // Second click: a token. Its expert is what the view shows of it.
    const QRect place = text->tokenRect(3);
    ASSERT_TRUE(place.isValid());
    QTest::mouseClick(text->viewport(), Qt::LeftButton, Qt::NoModifier, place.center());
    Session &session = program.workbench->session();
    ASSERT_EQ(session.focusedToken(), std::optional<std::int64_t>(text->tokens()[3].row));
    const auto block = session.current()->source->block(Column::experts, session.layer(), {*session.focusedToken(), *session.focusedToken() + 1});
    ASSERT_TRUE(block.ok());
    EXPECT_EQ(text->tokens()[3].experts[static_cast<std::size_t>(session.layer())], (*block)->u16[0]);
}

TEST(Window, ClosesWhileLoading)
{
    Program program;
    program.holdLoading(true);
    program.workbench->open({program.makeTrace(QStringLiteral("slow.h5"))});
    EXPECT_FALSE(program.window->isIdle());
    program.close(); // must neither hang nor leave a thread: the listener looks
}

TEST(Window, ASecondFileOpensWhileTheFirstLoads)
{
    Program program;
    program.holdLoading(true);
    program.workbench->open({program.makeTrace(QStringLiteral("one.h5")), program.makeTrace(QStringLiteral("two.h5"))});
    EXPECT_EQ(program.workbench->tasks().activeCount(), 2);
    QTest::qWait(20);
    EXPECT_TRUE(program.workbench->session().traces().empty());
    program.holdLoading(false);
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.workbench->session().traces().size(), 2u);
}

TEST(Window, LoadingIsCancelledFromTheTaskList)
{
    Program program;
    program.holdLoading(true);
    program.workbench->open({program.makeTrace(QStringLiteral("slow.h5"))});
    program.window->showTasks();
    auto *panel = program.window->dock(QStringLiteral("tasks"))->findChild<TaskPanel *>();
    ASSERT_EQ(panel->rows().size(), 1u);
    QTest::mouseClick(panel->rows().front()->cancelButton(), Qt::LeftButton);
    ASSERT_TRUE(program.settle());
    EXPECT_TRUE(program.workbench->session().traces().empty());
    EXPECT_TRUE(program.errors().isEmpty()) << "what one asked for is no error";
}

TEST(Window, ARefusedFileLeavesStateAsItWasAndSaysWhy)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("good.h5"))});
    ASSERT_TRUE(program.settle());
    program.workbench->open({program.makeTrace(QStringLiteral("broken.h5"))});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.workbench->session().traces().size(), 1u);
    ASSERT_EQ(program.errors().size(), 1);
    EXPECT_TRUE(program.errors().front().contains(QStringLiteral("routing/experts")));
    EXPECT_TRUE(program.errors().front().contains(QStringLiteral("broken.h5")));
    const auto *label = program.window->banners().banners().front()->findChild<QLabel *>(QStringLiteral("bannerText"));
    EXPECT_TRUE(label->textInteractionFlags() & Qt::TextSelectableByMouse);
    // It is there to be read, in full, on every page of the window.
    for (const Workspace page : {Workspace::explore, Workspace::figure, Workspace::start, Workspace::explore}) {
        program.window->showWorkspace(page);
        QCoreApplication::processEvents();
        EXPECT_TRUE(label->isVisible());
        EXPECT_GE(label->height(), label->heightForWidth(label->width()));
        EXPECT_TRUE(program.window->rect().contains(QRect(label->mapTo(program.window.get(), QPoint()), label->size())));
    }
}

TEST(Window, DropsOpenOrSayWhyNot)
{
    Program program;
    drop(program.window.get(), {program.makeTrace(QStringLiteral("dropped.h5"))});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.workbench->session().traces().size(), 1u);
    drop(program.window.get(), {program.makeFile(QStringLiteral("prompts.jsonl"), "one\ntwo\n")});
    ASSERT_TRUE(program.settle());
    EXPECT_FALSE(program.window->promptView().editor()->isEnabled()) << "the file's texts are what will be run";
    drop(program.window.get(), {program.makeFile(QStringLiteral("weights.bin"), "PK\3\4")});
    drop(program.window.get(), {program.makeFile(QStringLiteral("fake.h5"), "text")});
    EXPECT_EQ(program.errors().size(), 2);
    QMimeData text;
    text.setText(QStringLiteral("https://example.org/x.h5"));
    drop(program.window.get(), text);
    EXPECT_EQ(program.errors().size(), 3);
    for (const QString &error : program.errors())
        EXPECT_EQ(error.count(u'\n'), 2) << "what, where, mend: " << error.toStdString();
}

TEST(Window, UndoTakesBackNamedSteps)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    Session &session = program.workbench->session();
    QUndoStack &stack = program.workbench->undoStack();
    EXPECT_FALSE(stack.canUndo()) << "opening is no step";
    const std::size_t n = session.current()->selection.size();
    session.setLayer(2);
    QTest::qWait(UndoRecorder::layerMergeMs + 50);
    session.select(rows(n, 5, 25), SelectMode::replace, QStringLiteral("Select by rectangle"));
    EXPECT_EQ(stack.count(), 2);
    EXPECT_EQ(stack.undoText(), QStringLiteral("Select by rectangle"));
    QTest::qWait(UndoRecorder::rowsMergeMs + 50);
    session.saveGroup(QStringLiteral("mine"));
    QTest::qWait(UndoRecorder::rowsMergeMs + 50);
    session.setFilter(rows(n, 0, 100), QStringLiteral("Filter"));
    EXPECT_EQ(stack.count(), 4);
    program.trigger("edit.undo");
    EXPECT_EQ(session.current()->filter.count(), n);
    program.trigger("edit.undo");
    EXPECT_TRUE(session.groups().empty());
    program.trigger("edit.undo");
    EXPECT_TRUE(session.current()->selection.empty());
    program.trigger("edit.undo");
    EXPECT_EQ(session.layer(), 0);
    for (int i = 0; i < 4; ++i)
        program.trigger("edit.redo");
    EXPECT_EQ(session.layer(), 2);
    EXPECT_EQ(session.current()->selection.count(), 20u);
    EXPECT_EQ(session.current()->filter.count(), 100u);
    ASSERT_EQ(session.groups().size(), 1u);
    EXPECT_EQ(session.groups()[0].rows.count(), 20u);
    EXPECT_EQ(stack.count(), 4) << "undo and redo make no steps of their own";
}

TEST(Window, ASliderIsOneStep)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    QSlider *slider = program.window->mainBar().layerSlider();
    slider->setFocus();
    for (int i = 0; i < 3; ++i)
        QTest::keyClick(slider, Qt::Key_Right);
    EXPECT_EQ(program.workbench->session().layer(), 3);
    EXPECT_EQ(program.workbench->undoStack().count(), 1);
    program.trigger("edit.undo");
    EXPECT_EQ(program.workbench->session().layer(), 0);
    EXPECT_EQ(slider->value(), 0);
}

TEST(Window, SessionsAreSavedAndRestored)
{
    Program program;
    const QString file = program.path(QStringLiteral("work.spectra-session"));
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    Session &session = program.workbench->session();
    session.setLayer(3);
    session.select(rows(session.current()->selection.size(), 10, 20), SelectMode::replace, QStringLiteral("x"));
    session.saveGroup(QStringLiteral("ten"));
    program.window->promptView().setText(QStringLiteral("a prompt"));
    program.window->dock(QStringLiteral("metrics"))->hide();
    program.workbench->saveSession(file);
    EXPECT_TRUE(program.errors().isEmpty());
    program.workbench->newSession();
    program.window->restoreDefaultLayout();
    EXPECT_TRUE(session.traces().empty());
    program.workbench->open({file});
    ASSERT_TRUE(program.settle());
    ASSERT_TRUE(QTest::qWaitFor([&] { return session.layer() == 3; }, 5000));
    EXPECT_EQ(session.current()->selection.count(), 10u);
    ASSERT_EQ(session.groups().size(), 1u);
    EXPECT_EQ(program.window->promptView().editor()->toPlainText(), QStringLiteral("a prompt"));
    EXPECT_TRUE(program.window->dock(QStringLiteral("metrics"))->isHidden());
    EXPECT_FALSE(program.workbench->undoStack().canUndo());
}

TEST(Window, AHostileSessionChangesNothing)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    program.workbench->open({program.makeFile(QStringLiteral("bad.spectra-session"), QByteArray(5000, '['))});
    EXPECT_EQ(program.errors().size(), 1);
    EXPECT_EQ(program.workbench->session().traces().size(), 1u);
    // A session whose traces are gone opens with what is left and names the rest.
    program.workbench->open({program.makeFile(QStringLiteral("gone.spectra-session"),
                                              "{\"format\":\"spectra-session\",\"version\":1,\"traces\":[{\"path\":\"/nowhere/x.h5\"}],"
                                              "\"layout\":{\"version\":1,\"state\":\"AAAA\"},\"views\":{\"gram\":7},\"linked\":{\"experts\":\"no\"}}")});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.errors().size(), 2);
    EXPECT_TRUE(program.workbench->session().traces().empty());
}

TEST(Window, WhatACrashLeftIsRestored)
{
    Program first({}, true);
    first.workbench->open({first.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(first.settle());
    first.workbench->session().setLayer(2);
    QSignalSpy saved(&first.workbench->autosave(), &Autosave::saved);
    ASSERT_TRUE(saved.wait(30000)) << "a change is saved by itself";
    const QString own = first.workbench->autosave().path();
    ASSERT_TRUE(QFile::exists(own));
    EXPECT_TRUE(first.workbench->autosave().abandoned().isEmpty()) << "the own session is in use";
    const QString left = QFileInfo(own).path() + QStringLiteral("/0123.spectra-session");
    ASSERT_TRUE(QFile::copy(own, left)); // as of a process that is gone
    first.close();
    EXPECT_FALSE(QFile::exists(own)) << "a clean end leaves nothing";
    first.start();
    EXPECT_EQ(first.workbench->autosave().abandoned(), QStringList{left});
    first.window->offerRecovery();
    ASSERT_EQ(first.window->banners().banners().size(), 1u);
    auto *restore = first.window->banners().banners().front()->findChild<QPushButton *>();
    ASSERT_NE(restore, nullptr);
    ASSERT_TRUE(QTest::qWaitFor([&] { return restore->isVisible(); }, 2000)) << "the offer is to be seen";
    ASSERT_TRUE(first.settle());
    QTest::mouseClick(restore, Qt::LeftButton);
    ASSERT_TRUE(first.settle());
    EXPECT_TRUE(first.errors().isEmpty()) << first.errors().join(u'\n').toStdString();
    ASSERT_EQ(first.workbench->session().traces().size(), 1u);
    EXPECT_EQ(first.workbench->session().layer(), 2);
    EXPECT_EQ(first.window->workspace(), Workspace::explore);
    EXPECT_TRUE(QFile::exists(left)) << "kept until this session is saved";
    ASSERT_TRUE(QTest::qWaitFor([&] { return !QFile::exists(left); }, 30000)) << "what was restored is the own session's from now on";
    EXPECT_TRUE(QFile::exists(first.workbench->autosave().path()));
}

TEST(Window, WhatCannotBeRestoredIsKept)
{
    Program program({}, true);
    const QString left = QFileInfo(program.workbench->autosave().path()).path() + QStringLiteral("/0123.spectra-session");
    QFile file(left);
    ASSERT_TRUE(file.open(QIODevice::WriteOnly));
    file.write("{\"format\":\"spectra-session\",\"version\":99}");
    file.close();
    program.window->offerRecovery();
    ASSERT_EQ(program.window->banners().banners().size(), 1u);
    auto *restore = program.window->banners().banners().front()->findChild<QPushButton *>();
    ASSERT_TRUE(QTest::qWaitFor([&] { return restore->isVisible(); }, 2000));
    QTest::mouseClick(restore, Qt::LeftButton);
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.errors().size(), 1);
    program.workbench->open({program.makeTrace(QStringLiteral("other.h5"))});
    ASSERT_TRUE(program.settle());
    QSignalSpy saved(&program.workbench->autosave(), &Autosave::saved);
    ASSERT_TRUE(saved.wait(30000));
    EXPECT_TRUE(QFile::exists(left)) << "a newer program may read it";
}

TEST(Window, RecentFilesAreRemembered)
{
    Program program({}, true);
    const QString a = program.makeTrace(QStringLiteral("a.h5")), b = program.makeTrace(QStringLiteral("b.h5"));
    program.workbench->open({a});
    ASSERT_TRUE(program.settle());
    program.workbench->open({b});
    ASSERT_TRUE(program.settle());
    program.workbench->open({program.makeTrace(QStringLiteral("broken.h5"))});
    ASSERT_TRUE(program.settle());
    EXPECT_EQ(program.workbench->recentFiles().paths(), (QStringList{b, a})) << "newest first, refused files not at all";
    program.close();
    program.start();
    EXPECT_EQ(program.workbench->recentFiles().paths(), (QStringList{b, a}));
    EXPECT_EQ(program.window->startPage().recentList()->count(), 2);
    for (int i = 0; i < 20; ++i)
        program.workbench->recentFiles().add(program.path(QString::number(i)));
    EXPECT_EQ(program.workbench->recentFiles().paths().size(), RecentFiles::maxPaths);
}

TEST(Window, ThePaletteRunsACommand)
{
    Program program;
    QTest::keyClick(program.window.get(), Qt::Key_P, Qt::ControlModifier | Qt::ShiftModifier);
    CommandPalette &palette = program.window->palettePopup();
    ASSERT_TRUE(QTest::qWaitFor([&] { return palette.isVisible(); }, 2000));
    auto *edit = palette.findChild<QLineEdit *>();
    QTest::keyClicks(edit, QStringLiteral("darktheme"));
    QTest::keyClick(edit, Qt::Key_Return);
    EXPECT_FALSE(palette.isVisible());
    EXPECT_EQ(program.window->themes().choice(), ThemeChoice::dark);
    EXPECT_TRUE(program.window->themes().theme().isDark());
    program.trigger("view.themeLight");
    // A command that cannot be done now is not done.
    palette.popUp();
    edit->clear();
    QTest::keyClicks(edit, QStringLiteral("reload trace"));
    QTest::keyClick(edit, Qt::Key_Return);
    EXPECT_TRUE(palette.isVisible());
    QTest::keyClick(edit, Qt::Key_Escape);
    EXPECT_FALSE(palette.isVisible());
}

TEST(Window, EveryCommandHasTextTipAndAnOwnShortcut)
{
    Program program;
    QSet<QString> keys, ids;
    for (const auto &command : program.window->registry().all()) {
        EXPECT_FALSE(command->title().isEmpty()) << command->id().toStdString();
        EXPECT_FALSE(command->action()->statusTip().isEmpty()) << command->id().toStdString();
        EXPECT_FALSE(ids.contains(command->id())) << command->id().toStdString();
        ids << command->id();
        const QString shortcut = command->action()->shortcut().toString();
        EXPECT_TRUE(shortcut.isEmpty() || !keys.contains(shortcut)) << shortcut.toStdString();
        keys << shortcut;
    }
    EXPECT_GT(ids.size(), 35);
    QTest::keyClick(program.window.get(), Qt::Key_Slash, Qt::ControlModifier);
    auto *sheet = program.window->findChild<ShortcutSheet *>();
    ASSERT_TRUE(sheet);
    EXPECT_GT(sheet->findChild<QTableWidget *>()->rowCount(), 25);
    sheet->close();
}

TEST(Window, EveryControlHasANameForScreenReaders)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    for (const QWidget *widget : program.window->findChildren<QWidget *>()) {
        if (!widget->isVisible() || !(widget->focusPolicy() & Qt::TabFocus))
            continue;
        const bool plainText = qobject_cast<const QAbstractButton *>(widget) && !qobject_cast<const QAbstractButton *>(widget)->text().isEmpty();
        const QString parent = widget->parentWidget() ? widget->parentWidget()->accessibleName() : QString();
        EXPECT_TRUE(plainText || !widget->accessibleName().isEmpty() || !parent.isEmpty())
            << widget->metaObject()->className() << " " << widget->objectName().toStdString();
    }
}

TEST(Window, TheKeyboardAloneReachesEverything)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    QTest::keyClick(program.window.get(), Qt::Key_BracketRight, Qt::ControlModifier);
    EXPECT_EQ(program.workbench->session().layer(), 1);
    QTest::keyClick(program.window.get(), Qt::Key_I, Qt::ControlModifier);
    EXPECT_FALSE(program.workbench->session().current()->selection.empty());
    QTest::qWait(50); // the commands learn of the change from the event loop
    QTest::keyClick(program.window.get(), Qt::Key_Z, Qt::ControlModifier);
    EXPECT_TRUE(program.workbench->session().current()->selection.empty());
    QTest::keyClick(program.window.get(), Qt::Key_4, Qt::ControlModifier);
    EXPECT_EQ(program.window->workspace(), Workspace::figure);
    QTest::keyClick(program.window.get(), Qt::Key_1, Qt::ControlModifier);
    EXPECT_EQ(program.window->workspace(), Workspace::explore);
    QTest::keyClick(program.window.get(), Qt::Key_P, Qt::ControlModifier);
    EXPECT_TRUE(program.window->promptView().editor()->hasFocus());
    QTest::keyClicks(program.window->promptView().editor(), QStringLiteral("hello"));
    EXPECT_EQ(program.window->promptView().editor()->toPlainText(), QStringLiteral("hello"));
    // Tab walks through the window and comes back.
    QSet<QWidget *> seen;
    for (int i = 0; i < 200 && !seen.contains(QApplication::focusWidget()); ++i) {
        seen << QApplication::focusWidget();
        QTest::keyClick(QApplication::focusWidget(), Qt::Key_Tab);
    }
    EXPECT_GT(seen.size(), 8);
    EXPECT_TRUE(seen.contains(program.window->promptView().runButton()));
}

TEST(Window, LayoutIsKeptAndCanBePutBack)
{
    Program program({}, true);
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    QDockWidget *load = program.window->dock(QStringLiteral("load"));
    program.trigger("dock.load");
    EXPECT_TRUE(load->isHidden());
    program.trigger("view.figure");
    program.trigger("view.explore");
    EXPECT_TRUE(load->isHidden()) << "workspaces keep the layout";
    program.close();
    program.start();
    program.workbench->open({program.path(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    load = program.window->dock(QStringLiteral("load"));
    EXPECT_TRUE(load->isHidden()) << "and so does the next start";
    program.trigger("view.defaultLayout");
    EXPECT_TRUE(load->isVisible());
    QDockWidget *prompt = program.window->dock(QStringLiteral("prompt")), *details = program.window->dock(QStringLiteral("details"));
    QDockWidget *trajectory = program.window->dock(QStringLiteral("trajectory"));
    QTest::qWait(50);
    EXPECT_LT(prompt->geometry().right(), program.window->dock(QStringLiteral("gram"))->geometry().left());
    if (details && trajectory) {
        EXPECT_GT(details->geometry().left(), load->geometry().right() - 1);
        EXPECT_GT(trajectory->geometry().top(), prompt->geometry().bottom() - 1);
    }
    for (QDockWidget *dock : program.window->docks())
        EXPECT_TRUE(program.window->registry().find(QStringLiteral("dock.") + dock->objectName())) << "every dock is in the View menu";
}

TEST(Window, FigureIsExportedAsItIsShown)
{
    Program program;
    program.workbench->open({program.makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program.settle());
    program.trigger("view.figure");
    FigureWorkspace &figure = program.window->figure();
    EXPECT_EQ(figure.panels().size(), 2u) << "something to begin with";
    ASSERT_TRUE(program.settle());
    for (const char *name : {"f.pdf", "f.svg", "f.png"}) {
        const auto written = exportPage(program.path(QLatin1String(name)), figure.spec(), figure.panels());
        ASSERT_TRUE(written.ok()) << written.error().what << " " << written.error().where;
    }
    QFile svg(program.path(QStringLiteral("f.svg")));
    ASSERT_TRUE(svg.open(QIODevice::ReadOnly));
    const QByteArray text = svg.readAll();
    EXPECT_TRUE(text.contains("<text")) << "text stays text";
    QImage png(program.path(QStringLiteral("f.png")));
    EXPECT_NEAR(png.width(), 170 / 25.4 * 300, 1);
    EXPECT_TRUE(png.text(QStringLiteral("spectra-provenance")).contains(QStringLiteral("uuid-a.h5")));
    EXPECT_FALSE(exportPage(program.path(QStringLiteral("f.bmp")), figure.spec(), figure.panels()).ok());
    EXPECT_FALSE(exportPage(QStringLiteral("/nowhere/at/all/f.pdf"), figure.spec(), figure.panels()).ok());
    const QJsonObject state = figure.saveState();
    figure.removePanel(0);
    figure.restoreState(state);
    EXPECT_EQ(figure.panels().size(), 2u);
}

} // namespace spectra
