// SPDX-License-Identifier: GPL-3.0-or-later
// A run of the Prompt view becomes a file: the saving itself is scripted, what the window makes of it is not.
#include "support.h"

#include "app/workbench/prompt/promptview.h"
#include "app/workbench/shell/bannerarea.h"
#include "engine/trace/livetrace.h"

#include <QFileDialog>
#include <QLineEdit>
#include <QMenu>
#include <QMenuBar>
#include <QMessageBox>

namespace spectra {

using namespace shelltest;

namespace {

/// What the scripted saving was asked, and what it does until it is let go on.
struct Saving {
    std::mutex mutex;
    std::condition_variable_any changed;
    bool held = false;
    std::optional<Error> failure;
    int calls = 0;
    bool stopped = false;
    std::shared_ptr<const TraceSource> source;
    QString path;
    bool overwrite = false;

    void hold(bool on)
    {
        const std::lock_guard lock(mutex);
        held = on;
        changed.notify_all();
    }
};

/// A run in memory, which ends when the test says so.
class RunInMemory : public viewtest::GatedTrace {
public:
    using GatedTrace::GatedTrace;
    std::atomic<bool> ended{false};
    [[nodiscard]] std::shared_ptr<const TraceInfo> info() const override
    {
        auto info = std::make_shared<TraceInfo>(*GatedTrace::info());
        info->file.clear();
        info->complete = ended;
        return info;
    }
};

class SaveTrace : public ::testing::Test {
protected:
    void run(bool toItsEnd = true)
    {
        FakeEngine::Script played;
        live = std::make_shared<RunInMemory>(viewtest::sampleTrace());
        live->ended = toItsEnd;
        played.trace = live;
        played.tokens = 20;
        played.waitsForCancel = !toItsEnd;
        program = std::make_unique<Program>(played, true);
        *program->saver = [s = saving](const std::shared_ptr<const TraceSource> &source, const QString &path, bool overwrite, std::stop_token stop) -> Result<void> {
            std::unique_lock lock(s->mutex);
            ++s->calls;
            s->source = source;
            s->path = path;
            s->overwrite = overwrite;
            s->changed.wait(lock, stop, [&] { return !s->held; });
            if (stop.stop_requested()) {
                s->stopped = true;
                return cancelledError();
            }
            if (s->failure)
                return *s->failure;
            QFile file(path);
            if (!file.open(QIODevice::WriteOnly))
                return workError("not writable", path.toStdString());
            file.write("\x89HDF\r\n\x1a\n");
            return {};
        };
        program->trigger("run.edit");
        QTest::keyClicks(program->window->promptView().editor(), QStringLiteral("hello"));
        QTest::mouseClick(program->window->promptView().runButton(), Qt::LeftButton);
        ASSERT_TRUE(QTest::qWaitFor([&] { return program->workbench->runner().tokens() == 20; }, 10000));
        if (toItsEnd) {
            ASSERT_TRUE(program->settle());
        }
    }
    void TearDown() override { saving->hold(false); }

    /// As the menu shows it.
    [[nodiscard]] bool enabled() const
    {
        program->window->registry().updateEnableStates();
        return program->window->registry().action(QStringLiteral("file.saveTrace"))->isEnabled();
    }
    [[nodiscard]] std::shared_ptr<OpenTrace> trace() const { return program->workbench->session().current(); }
    [[nodiscard]] TaskState lastTask() const
    {
        TaskModel &tasks = program->workbench->tasks();
        return static_cast<TaskState>(tasks.index(tasks.rowCount() - 1).data(TaskModel::StateRole).toInt());
    }
    [[nodiscard]] bool askedToSave() const
    {
        return QTest::qWaitFor([&] {
            const std::lock_guard lock(saving->mutex);
            return saving->calls > 0;
        }, 10000);
    }
    /// Opens the dialog with the command and types a name into it.
    void saveAs(const QString &path)
    {
        program->trigger("file.saveTrace");
        auto *dialog = program->window->findChild<QFileDialog *>(QStringLiteral("saveTraceDialog"));
        ASSERT_TRUE(dialog);
        ASSERT_TRUE(QTest::qWaitForWindowExposed(dialog));
        auto *edit = dialog->findChild<QLineEdit *>();
        ASSERT_TRUE(edit);
        EXPECT_EQ(edit->text(), QStringLiteral("Prompt 1.h5")) << "the name of the run is offered";
        edit->selectAll();
        QTest::keyClicks(edit, path);
        QTest::keyClick(edit, Qt::Key_Return);
        QCoreApplication::sendPostedEvents(nullptr, QEvent::DeferredDelete);
    }

    std::shared_ptr<Saving> saving = std::make_shared<Saving>();
    std::shared_ptr<RunInMemory> live;
    std::unique_ptr<Program> program;
};

} // namespace

TEST_F(SaveTrace, TheFileTakesThePlaceOfTheRun)
{
    run();
    Session &session = program->workbench->session();
    const quint64 id = trace()->id;
    ASSERT_EQ(trace()->source, live);
    ASSERT_TRUE(enabled());
    RowSet rows(trace()->selection.size());
    rows.insertRange(10, 20);
    session.select(rows, SelectMode::replace, QStringLiteral("x"));
    EXPECT_TRUE(program->workbench->document().traces.empty());

    const QString path = program->path(QStringLiteral("run.h5"));
    saveAs(program->path(QStringLiteral("run"))); // the suffix comes by itself
    ASSERT_TRUE(askedToSave());
    ASSERT_TRUE(program->settle());
    EXPECT_EQ(saving->calls, 1);
    EXPECT_EQ(saving->source, live);
    EXPECT_EQ(saving->path, path);
    EXPECT_FALSE(saving->overwrite) << "nothing was there";
    ASSERT_EQ(session.traces().size(), 1u) << "replaced, not added";
    EXPECT_EQ(trace()->id, id);
    EXPECT_NE(trace()->source, live);
    EXPECT_EQ(trace()->info->file, path.toStdString());
    EXPECT_EQ(trace()->selection.count(), 10u);
    EXPECT_TRUE(program->workbench->recentFiles().paths().contains(path));
    ASSERT_EQ(program->workbench->document().traces.size(), 1u) << "part of the session file from now on";
    EXPECT_EQ(program->workbench->document().traces.front().path, path);
    EXPECT_FALSE(enabled()) << "a file is not saved again";
    EXPECT_TRUE(program->errors().isEmpty());
}

TEST_F(SaveTrace, StandsInTheFileMenuAndOnlyForRunsThatHaveEnded)
{
    run(false);
    EXPECT_FALSE(enabled()) << "the run goes on";
    const QMenu *file = program->window->menuBar()->findChild<QMenu *>(QString(), Qt::FindDirectChildrenOnly);
    ASSERT_TRUE(file);
    const QList<QAction *> actions = file->actions();
    const auto at = [&](const char *id) { return actions.indexOf(program->window->registry().action(QLatin1String(id))); };
    EXPECT_EQ(at("file.saveTrace"), at("file.saveSessionAs") + 1);
    program->workbench->saveTrace(trace()->id, program->path(QStringLiteral("early.h5")), false);
    EXPECT_EQ(saving->calls, 0);
    live->ended = true; // as the engine does with a run that is stopped
    program->trigger("run.cancelAll");
    ASSERT_TRUE(program->settle());
    EXPECT_TRUE(enabled()) << "what a stopped run has can be saved";
    program->workbench->closeCurrent();
    EXPECT_FALSE(enabled()) << "there is no trace";
    program->workbench->open({program->makeTrace(QStringLiteral("a.h5"))});
    ASSERT_TRUE(program->settle());
    EXPECT_FALSE(enabled()) << "a file is one already";
}

TEST_F(SaveTrace, AnExistingFileIsReplacedWhenTheUserSaysSo)
{
    run();
    const QString path = program->makeFile(QStringLiteral("old.h5"), "old");
    int asked = 0;
    QTimer answer;
    QObject::connect(&answer, &QTimer::timeout, [&] {
        auto *box = qobject_cast<QMessageBox *>(QApplication::activeModalWidget());
        if (box == nullptr)
            return;
        QTest::mouseClick(box->button(++asked == 1 ? QMessageBox::No : QMessageBox::Yes), Qt::LeftButton);
    });
    answer.start(20);
    saveAs(path);
    EXPECT_EQ(asked, 1);
    EXPECT_EQ(saving->calls, 0) << "no was said";
    auto *dialog = program->window->findChild<QFileDialog *>(QStringLiteral("saveTraceDialog"));
    ASSERT_TRUE(dialog);
    QTest::keyClick(dialog->findChild<QLineEdit *>(), Qt::Key_Return);
    EXPECT_EQ(asked, 2);
    ASSERT_TRUE(askedToSave());
    ASSERT_TRUE(program->settle());
    EXPECT_TRUE(saving->overwrite);
    EXPECT_EQ(trace()->info->file, path.toStdString());
}

TEST_F(SaveTrace, AFailureIsABannerAndAllIsAsBefore)
{
    run();
    saving->failure = workError("the disk is full", "run.h5", "Make room.");
    saveAs(program->path(QStringLiteral("run.h5")));
    ASSERT_TRUE(askedToSave());
    ASSERT_TRUE(program->settle());
    ASSERT_EQ(program->errors(), QStringList{QStringLiteral("the disk is full\nrun.h5\nMake room.")});
    EXPECT_EQ(lastTask(), TaskState::failed);
    EXPECT_EQ(trace()->source, live);
    EXPECT_TRUE(trace()->info->file.empty());
    EXPECT_FALSE(program->workbench->recentFiles().paths().contains(program->path(QStringLiteral("run.h5"))));
    EXPECT_TRUE(enabled()) << "it can be tried again";
}

TEST_F(SaveTrace, SavingBlocksNothingAndCanBeCancelled)
{
    run();
    saving->hold(true);
    saveAs(program->path(QStringLiteral("run.h5")));
    ASSERT_TRUE(askedToSave()) << "the event loop turns while the worker waits";
    EXPECT_FALSE(program->window->isIdle());
    EXPECT_EQ(lastTask(), TaskState::running);
    EXPECT_FALSE(enabled()) << "once at a time";
    program->workbench->saveTrace(trace()->id, program->path(QStringLiteral("second.h5")), false);
    EXPECT_EQ(program->workbench->tasks().activeCount(), 1);
    program->trigger("run.cancelAll");
    ASSERT_TRUE(program->settle());
    EXPECT_TRUE(saving->stopped);
    EXPECT_EQ(lastTask(), TaskState::cancelled);
    EXPECT_TRUE(program->errors().isEmpty()) << "cancelling is no error";
    EXPECT_EQ(trace()->source, live);
    EXPECT_TRUE(enabled());
}

TEST_F(SaveTrace, ClosingTheWindowStopsTheSaving)
{
    run();
    saving->hold(true);
    saveAs(program->path(QStringLiteral("run.h5")));
    ASSERT_TRUE(askedToSave());
    program->close();
    EXPECT_TRUE(saving->stopped);
}

TEST_F(SaveTrace, ATraceThatWasClosedMeanwhileStaysClosed)
{
    run();
    saving->hold(true);
    const QString path = program->path(QStringLiteral("run.h5"));
    saveAs(path);
    ASSERT_TRUE(askedToSave());
    program->workbench->closeCurrent();
    saving->hold(false);
    ASSERT_TRUE(program->settle());
    EXPECT_TRUE(program->workbench->session().traces().empty());
    EXPECT_TRUE(program->workbench->recentFiles().paths().contains(path)) << "but the file is there";
    EXPECT_TRUE(program->errors().isEmpty());
}

TEST_F(SaveTrace, AFileThatIsOpenIsNotReplaced)
{
    run();
    const quint64 id = trace()->id;
    const QString path = program->makeTrace(QStringLiteral("a.h5"));
    program->workbench->open({path});
    ASSERT_TRUE(program->settle());
    program->workbench->saveTrace(id, path, true);
    EXPECT_EQ(saving->calls, 0);
    ASSERT_EQ(program->errors().size(), 1);
    EXPECT_TRUE(program->errors().front().startsWith(QStringLiteral("is open in this window")));
    EXPECT_TRUE(program->window->isIdle());
}

TEST_F(SaveTrace, AnOpenTraceWhoseFileIsGoneIsNotInTheWay)
{
    run();
    const quint64 id = trace()->id;
    const QString gone = program->makeTrace(QStringLiteral("gone.h5"));
    program->workbench->open({gone});
    ASSERT_TRUE(program->settle());
    ASSERT_TRUE(QFile::remove(gone));
    program->workbench->saveTrace(id, program->path(QStringLiteral("run.h5")), false);
    ASSERT_TRUE(program->settle());
    EXPECT_TRUE(program->errors().isEmpty());
    EXPECT_EQ(program->workbench->session().trace(id)->info->file, program->path(QStringLiteral("run.h5")).toStdString());
}

TEST(TraceSaver, SavesRunsInMemoryAndNothingElse)
{
    QTemporaryDir folder;
    const TraceSaver save = liveTraceSaver();
    const QString path = folder.filePath(QStringLiteral("run.h5"));
    const auto other = save(viewtest::sampleTrace(), path, false, {});
    ASSERT_FALSE(other.ok());
    EXPECT_EQ(other.error().kind, ErrorKind::usage);
    EXPECT_FALSE(QFileInfo::exists(path));

    TraceSpec spec;
    spec.capture = Capture::minimal();
    const auto live = std::make_shared<LiveTrace>(spec);
    SequenceInfo info;
    info.id = "one";
    info.text = "ab";
    info.length = info.promptLength = info.counted = 2;
    TokenRecord tokens;
    tokens.id = {3, 4};
    tokens.text = {"a", "b"};
    tokens.position = tokens.byteOffset = {0, 1};
    live->beginSequence(info);
    live->addTokens(tokens);
    live->endSequence(0, info);
    EXPECT_FALSE(save(live, path, false, {}).ok()) << "not ended yet";
    live->finish({});
    const auto saved = save(live, path, false, {});
    ASSERT_TRUE(saved.ok()) << saved.error().what;
    const auto opened = fileTraceOpener()(path, {});
    ASSERT_TRUE(opened.ok()) << opened.error().what;
    EXPECT_EQ((*opened)->info()->tokens, 2);
    EXPECT_EQ((*opened)->info()->file, path.toStdString());
}

} // namespace spectra
