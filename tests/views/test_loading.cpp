// SPDX-License-Identifier: GPL-3.0-or-later
// Reading in the background: nothing blocks the window, the newest request wins, what was there stays.
#include "sampletrace.h"
#include "support.h"

#include "views/metricsmodel.h"
#include "views/metricsview.h"
#include "views/spaceview.h"
#include "views/viewfactory.h"

#include <QAbstractItemModelTester>
#include <QClipboard>
#include <QLabel>
#include <QSignalSpy>
#include <QSortFilterProxyModel>
#include <QTableView>
#include <QThread>
#include <QToolButton>

#include <atomic>
#include <latch>

namespace spectra::viewtest {
namespace {

TEST(LatestJobTest, TheNewestWinsWhateverEndsLast)
{
    LatestJob job;
    std::vector<int> applied;
    std::latch release(1);
    std::atomic<bool> firstStopped = false, began = false;
    job.start([&](JobContext &context) -> Result<LatestJob::Apply> {
        began = true;
        release.wait();
        firstStopped = context.stop().stop_requested();
        context.partial([&] { applied.push_back(10); });
        return LatestJob::Apply([&] { applied.push_back(1); });
    });
    ASSERT_TRUE(QTest::qWaitFor([&] { return began.load(); })); // a job that has not begun is never run at all
    job.start([&](JobContext &) -> Result<LatestJob::Apply> { return LatestJob::Apply([&] { applied.push_back(2); }); });
    ASSERT_TRUE(QTest::qWaitFor([&] { return !job.isRunning(); }));
    release.count_down();
    QTest::qWait(50);
    EXPECT_EQ(applied, (std::vector<int>{2}));
    EXPECT_TRUE(firstStopped);
}

TEST(LatestJobTest, ResultsAreAppliedOnTheGuiThreadAndErrorsArrive)
{
    LatestJob job;
    QThread *where = nullptr, *worker = nullptr;
    job.start([&](JobContext &) -> Result<LatestJob::Apply> {
        worker = QThread::currentThread();
        return LatestJob::Apply([&] { where = QThread::currentThread(); });
    });
    ASSERT_TRUE(QTest::qWaitFor([&] { return where != nullptr; }));
    EXPECT_EQ(where, qApp->thread());
    EXPECT_NE(worker, qApp->thread());
    std::string failed;
    QObject::connect(&job, &LatestJob::failed, [&](const Error &e) { failed = e.what; });
    job.start([](JobContext &) -> Result<LatestJob::Apply> { throw std::runtime_error("thrown"); });
    ASSERT_TRUE(QTest::qWaitFor([&] { return !failed.empty(); }));
    EXPECT_EQ(failed, "thrown");
}

TEST(LatestJobTest, DestructionStopsAndWaits)
{
    std::atomic<bool> began = false, ended = false;
    bool applied = false;
    {
        LatestJob job;
        job.start([&](JobContext &context) -> Result<LatestJob::Apply> {
            began = true;
            while (!context.stop().stop_requested())
                std::this_thread::yield();
            ended = true;
            return LatestJob::Apply([&] { applied = true; });
        });
        ASSERT_TRUE(QTest::qWaitFor([&] { return began.load(); }));
    }
    EXPECT_TRUE(ended);
    QTest::qWait(5);
    EXPECT_FALSE(applied);
}

struct Gated : ::testing::TestWithParam<const char *> {
    std::shared_ptr<GatedTrace> trace = std::make_shared<GatedTrace>(sampleTrace());
};

TEST_P(Gated, TheWindowLivesWhileFilesAreRead)
{
    trace->close();
    Session session;
    session.addTrace(trace, QStringLiteral("slow"));
    const std::unique_ptr<View> view(createView(QString::fromLatin1(GetParam())));
    view->resize(400, 300);
    view->show();
    view->setSession(&session);
    EXPECT_EQ(view->state(), ViewState::busy);
    ASSERT_TRUE(QTest::qWaitFor([&] { return trace->waiting > 0; }));
    view->grab(); // paints what it has: nothing yet
    trace->open();
    ASSERT_TRUE(settle(*view));
    EXPECT_EQ(view->state(), ViewState::ready);
}

TEST_P(Gated, ClosingAViewWhileItReadsStopsTheReading)
{
    trace->close();
    Session session;
    session.addTrace(trace, QStringLiteral("slow"));
    std::unique_ptr<View> view(createView(QString::fromLatin1(GetParam())));
    view->show();
    view->setSession(&session);
    ASSERT_TRUE(QTest::qWaitFor([&] { return trace->waiting > 0; }));
    view.reset(); // must not wait for the file
    EXPECT_TRUE(trace->wasCancelled());
}

TEST_P(Gated, ADamagedTraceIsSaidAndMended)
{
    Session session;
    session.addTrace(trace, QStringLiteral("broken"));
    trace->broken = true;
    const std::unique_ptr<View> view(createView(QString::fromLatin1(GetParam())));
    view->show();
    view->setSession(&session);
    ASSERT_TRUE(settle(*view));
    ASSERT_EQ(view->state(), ViewState::failed);
    EXPECT_TRUE(view->message().contains(QStringLiteral("chunk 7 cannot be read")));
    EXPECT_TRUE(view->message().contains(QStringLiteral("Write the trace again.")));
    const auto *notice = view->findChild<QLabel *>(QStringLiteral("notice"));
    ASSERT_NE(notice, nullptr);
    EXPECT_TRUE(notice->isVisible());
    EXPECT_TRUE(notice->textInteractionFlags().testFlag(Qt::TextSelectableByMouse));
    trace->broken = false;
    view->reload();
    ASSERT_TRUE(settle(*view));
    EXPECT_EQ(view->state(), ViewState::ready);
    EXPECT_FALSE(notice->isVisible());
}

INSTANTIATE_TEST_SUITE_P(Views, Gated, ::testing::Values("load", "space", "trajectory", "metrics", "details"));

TEST(Loading, TheOldPictureStaysWhileTheNewIsRead)
{
    auto trace = std::make_shared<GatedTrace>(sampleTrace());
    Shown shown = showView(QStringLiteral("space"), trace);
    trace->close();
    shown.session->setLayer(1);
    EXPECT_EQ(shown.view->state(), ViewState::busy);
    const auto table = shown.view->tableData();
    EXPECT_GT(table.rows, 0);
    trace->open();
    ASSERT_TRUE(settle(*shown.view));
}

TEST(Loading, LayersInQuickSuccessionEndAtTheLast)
{
    auto trace = std::make_shared<GatedTrace>(sampleTrace());
    Shown shown = showView(QStringLiteral("space"), trace);
    for (const int layer : {1, 2, 3, 0, 2})
        shown.session->setLayer(layer);
    ASSERT_TRUE(settle(*shown.view));
    EXPECT_TRUE(shown.view->subtitle().contains(QStringLiteral("layer 5"))) << shown.view->subtitle().toStdString();
}

TEST(Loading, ALiveMapIsSeenOnItsWayAndCanBeStopped)
{
    SampleShape shape;
    shape.sequences = 60;
    const auto trace = sampleTrace(shape);
    Session session;
    session.addTrace(trace, QStringLiteral("sample"));
    SpaceView view;
    ASSERT_TRUE(view.setOption(QStringLiteral("iterations"), QStringLiteral("5000")).ok());
    view.resize(400, 300);
    view.show();
    view.setSession(&session);
    ASSERT_TRUE(QTest::qWaitFor([&] { return view.iteration() > 10; }, 20000)) << view.message().toStdString();
    EXPECT_TRUE(view.isWorking());
    EXPECT_TRUE(view.subtitle().contains(QStringLiteral("iteration")));
    auto *stop = view.findChild<QToolButton *>(QStringLiteral("stop"));
    ASSERT_NE(stop, nullptr);
    EXPECT_TRUE(stop->isVisible());
    QTest::mouseClick(stop, Qt::LeftButton);
    EXPECT_FALSE(view.isWorking());
    EXPECT_EQ(view.state(), ViewState::ready);
    EXPECT_TRUE(view.subtitle().contains(QStringLiteral("stopped at iteration")));
    const int reached = view.iteration();
    QTest::qWait(80);
    EXPECT_EQ(view.iteration(), reached); // nothing of the stopped run arrives any more
    EXPECT_LT(reached, 5000);
    EXPECT_GT(view.tableData().rows, 1000);
}

TEST(Loading, AMapSaysItsSeedAndDivergence)
{
    SampleShape shape;
    shape.sequences = 8;
    Session session;
    session.addTrace(sampleTrace(shape), QStringLiteral("sample"));
    SpaceView view;
    ASSERT_TRUE(view.setOption(QStringLiteral("iterations"), QStringLiteral("60")).ok());
    ASSERT_TRUE(view.setOption(QStringLiteral("seed"), QStringLiteral("7")).ok());
    view.resize(400, 300);
    view.show();
    view.setSession(&session);
    ASSERT_TRUE(settle(view));
    EXPECT_TRUE(view.subtitle().contains(QStringLiteral("seed 7"))) << view.subtitle().toStdString();
    EXPECT_TRUE(view.subtitle().contains(QStringLiteral("KL")));
}

TEST(Loading, MapsOfFewPointsEnd)
{
    for (const int length : {2, 4, 6, 11, 40}) {
        SampleShape shape;
        shape.sequences = 1;
        shape.length = length;
        const auto trace = sampleTrace(shape);
        for (const char *object : {"hidden", "probabilities", "expression", "experts"}) {
            Session session;
            session.addTrace(trace, QStringLiteral("sample"));
            SpaceView view;
            ASSERT_TRUE(view.setOption(QStringLiteral("object"), QString::fromLatin1(object)).ok());
            view.show();
            view.setSession(&session);
            ASSERT_TRUE(settle(view)) << object << " " << length;
            EXPECT_EQ(view.state(), ViewState::ready) << object << " " << length << " " << view.message().toStdString();
        }
    }
}

TEST(Loading, TheNoteOfAModelIsInEveryPicture)
{
    auto trace = sampleTrace();
    trace->header.model.note = "fresh router: random";
    trace->finish();
    for (const char *id : {"gram", "load", "trajectory"}) {
        Shown shown = showView(QString::fromLatin1(id), trace);
        EXPECT_TRUE(shown.view->subtitle().endsWith(QStringLiteral("fresh router: random"))) << id;
    }
}

TEST(Models, MetricsModelIsAModel)
{
    Shown shown = showView(QStringLiteral("metrics"), sampleTrace(), {640, 400});
    auto *view = static_cast<MetricsView *>(shown.view.get());
    auto *proxy = static_cast<QSortFilterProxyModel *>(view->table()->model());
    const QAbstractItemModelTester tester(proxy->sourceModel(), QAbstractItemModelTester::FailureReportingMode::Fatal);
    const QAbstractItemModelTester proxyTester(proxy, QAbstractItemModelTester::FailureReportingMode::Fatal);
    const int all = proxy->rowCount();
    ASSERT_GT(all, 20);
    proxy->setFilterFixedString(QStringLiteral("gini"));
    EXPECT_GE(proxy->rowCount(), 1);
    EXPECT_LT(proxy->rowCount(), all);
    proxy->setFilterFixedString({});
    view->table()->sortByColumn(MetricsModel::valueColumn, Qt::DescendingOrder);
    double last = INFINITY;
    for (int r = 0; r < proxy->rowCount(); ++r) {
        const double v = proxy->index(r, MetricsModel::valueColumn).data(MetricsModel::sortRole).toDouble();
        if (!std::isnan(v)) {
            EXPECT_LE(v, last);
            last = v;
        }
    }
    shown.session->setLayer(3);
    shown.session->setShownDomains({1});
    EXPECT_TRUE(view->subtitle().contains(QStringLiteral("layer 7")));
    QTest::keyClick(view->table(), Qt::Key_C, Qt::ControlModifier);
    EXPECT_TRUE(QApplication::clipboard()->text().contains(QLatin1Char('\t')));
    view->copyAsLatex();
    EXPECT_TRUE(QApplication::clipboard()->text().contains(QStringLiteral("\\toprule")));
}

TEST(Models, SelectedTokensCanBeMeasured)
{
    Shown shown = showView(QStringLiteral("metrics"), sampleTrace(), {640, 400});
    ASSERT_TRUE(shown.view->setOption(QStringLiteral("tokens"), QStringLiteral("selection")).ok());
    EXPECT_EQ(shown.view->state(), ViewState::empty);
    RowSet rows(shown.session->current()->selection.size());
    rows.insertRange(0, 200);
    shown.session->select(rows, SelectMode::replace, {});
    ASSERT_TRUE(settle(*shown.view));
    EXPECT_EQ(shown.view->state(), ViewState::ready);
    EXPECT_TRUE(shown.view->subtitle().contains(QStringLiteral("200 selected tokens")));
}

} // namespace
} // namespace spectra::viewtest
