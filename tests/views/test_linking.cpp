// SPDX-License-Identifier: GPL-3.0-or-later
// Every view follows the one session, and what is done in one is seen in all.
#include "sampletrace.h"
#include "support.h"

#include "views/spaceview.h"
#include "views/tokentextview.h"
#include "views/tracecolumns.h"
#include "views/trajectoryview.h"
#include "views/viewfactory.h"

#include <QMenu>
#include <QSignalSpy>
#include <QWheelEvent>

namespace spectra::viewtest {
namespace {

/// All views on one session, each in its own window.
struct Linked : ::testing::Test {
    void SetUp() override
    {
        trace = sampleTrace();
        session.addTrace(trace, QStringLiteral("sample"));
        for (const ViewKind &kind : viewKinds()) {
            std::unique_ptr<View> view(createView(kind.id));
            if (kind.id == QLatin1String("space")) {
                ASSERT_TRUE(view->setOption(QStringLiteral("method"), QStringLiteral("pca")).ok());
            }
            view->resize(480, 320);
            view->show();
            view->setSession(&session);
            views.push_back(std::move(view));
        }
        ASSERT_TRUE(quiet());
    }
    bool quiet()
    {
        for (const auto &v : views)
            if (!settle(*v))
                return false;
        QTest::qWait(1);
        return true;
    }
    View *view(const char *id)
    {
        for (const auto &v : views)
            if (v->viewId() == QLatin1String(id))
                return v.get();
        return nullptr;
    }
    QImage picture(View *v) { return v->canvas()->grab().toImage(); }
    std::vector<QImage> pictures()
    {
        std::vector<QImage> all;
        for (const auto &v : views)
            all.push_back(picture(v.get()));
        return all;
    }
    std::shared_ptr<ArrayTrace> trace;
    Session session;
    std::vector<std::unique_ptr<View>> views;
};

/// Which views must look different after a change: the matrix of linking.
TEST_F(Linked, EveryViewFollowsWhatItShows)
{
    struct Change {
        const char *name;
        std::function<void()> make;
        std::set<std::string> repainted;
    };
    RowSet rows(session.current()->selection.size());
    rows.insertRange(2, 30);
    const Change changes[] = {
        {"layer", [&] { session.setLayer(2); }, {"gram", "load", "space", "trajectory", "metrics"}},
        {"selection", [&] { session.select(rows, SelectMode::replace, QStringLiteral("x")); }, {"load", "space", "trajectory"}},
        {"highlight", [&] { session.highlight(9); }, {"space", "trajectory", "details"}},
        {"focus", [&] { session.focusToken(11); session.highlight(std::nullopt); }, {"space", "trajectory", "details"}},
        {"experts", [&] { session.setSelectedExperts({3}); }, {"gram", "load", "trajectory", "details"}},
        {"domains", [&] { session.setShownDomains({1}); }, {"load", "space", "trajectory", "metrics"}},
    };
    for (const Change &change : changes) {
        const auto before = pictures();
        change.make();
        ASSERT_TRUE(quiet()) << change.name;
        const auto after = pictures();
        for (std::size_t i = 0; i < views.size(); ++i)
            if (change.repainted.contains(views[i]->viewId().toStdString())) {
                EXPECT_NE(before[i], after[i]) << views[i]->viewId().toStdString() << " did not follow " << change.name;
            }
    }
}

TEST_F(Linked, HoverInTheTrajectoryHighlightsTheTokenEverywhere)
{
    auto *trajectory = static_cast<TrajectoryView *>(view("trajectory"));
    const QImage before = picture(view("details"));
    hover(trajectory->canvas(), trajectory->positionOf(7, 1));
    EXPECT_EQ(session.highlightedToken(), 7);
    EXPECT_NE(before, picture(view("details")));
    QEvent leave(QEvent::Leave);
    QApplication::sendEvent(trajectory->canvas(), &leave);
    EXPECT_FALSE(session.highlightedToken().has_value());
}

TEST_F(Linked, ClickFocusesTokenAndLayer)
{
    auto *trajectory = static_cast<TrajectoryView *>(view("trajectory"));
    QTest::mouseClick(trajectory->canvas(), Qt::LeftButton, Qt::NoModifier, trajectory->positionOf(12, 3).toPoint());
    EXPECT_EQ(session.focusedToken(), 12);
    EXPECT_EQ(session.layer(), 3);
}

TEST_F(Linked, DragSelectsARangeAndModifiersCombine)
{
    auto *trajectory = static_cast<TrajectoryView *>(view("trajectory"));
    QWidget *c = trajectory->canvas();
    drag(c, {trajectory->positionOf(4, 0), trajectory->positionOf(6, 0), trajectory->positionOf(8, 0)});
    EXPECT_EQ(session.current()->selection.rows(), (std::vector<std::int64_t>{4, 5, 6, 7, 8}));
    drag(c, {trajectory->positionOf(20, 0), trajectory->positionOf(21, 0)}, Qt::ShiftModifier);
    EXPECT_EQ(session.current()->selection.count(), 7u);
    drag(c, {trajectory->positionOf(7, 0), trajectory->positionOf(20, 0)}, Qt::ControlModifier);
    EXPECT_EQ(session.current()->selection.rows(), (std::vector<std::int64_t>{4, 5, 6, 21}));
    drag(c, {trajectory->positionOf(5, 0), trajectory->positionOf(21, 0)}, Qt::ControlModifier | Qt::ShiftModifier);
    EXPECT_EQ(session.current()->selection.rows(), (std::vector<std::int64_t>{5, 6, 21}));
}

TEST_F(Linked, TrajectoryByKeyboard)
{
    QWidget *c = view("trajectory")->canvas();
    session.focusToken(5);
    QTest::keyClick(c, Qt::Key_Right);
    QTest::keyClick(c, Qt::Key_Right, Qt::ShiftModifier);
    EXPECT_EQ(session.focusedToken(), 7);
    EXPECT_EQ(session.current()->selection.rows(), (std::vector<std::int64_t>{6, 7}));
    QTest::keyClick(c, Qt::Key_Down);
    EXPECT_EQ(session.layer(), 1);
    QTest::keyClick(c, Qt::Key_Escape);
    EXPECT_TRUE(session.current()->selection.empty());
    EXPECT_FALSE(session.focusedToken().has_value());
}

TEST_F(Linked, WheelZoomsAroundTheMouse)
{
    auto *trajectory = static_cast<TrajectoryView *>(view("trajectory"));
    const auto before = trajectory->window();
    const QPointF at = trajectory->positionOf(10, 1);
    QWheelEvent wheel(at, trajectory->canvas()->mapToGlobal(at), {}, {0, 480}, Qt::NoButton, Qt::NoModifier, Qt::NoScrollPhase, false);
    QApplication::sendEvent(trajectory->canvas(), &wheel);
    const auto after = trajectory->window();
    EXPECT_LT(after.second - after.first, (before.second - before.first) * 0.6);
    EXPECT_NEAR(trajectory->positionOf(10, 1).x(), at.x(), 1.5);
    EXPECT_EQ(trajectory->option(QStringLiteral("range")), QStringLiteral("free"));
}

TEST_F(Linked, GramAndLoadSelectExpertsByMouseAndKeyboard)
{
    QWidget *load = view("load")->canvas();
    QTest::keyClick(load, Qt::Key_Right);
    QTest::keyClick(load, Qt::Key_Right);
    EXPECT_EQ(session.highlightedExpert(), 1);
    QTest::keyClick(load, Qt::Key_Space);
    EXPECT_EQ(session.selectedExperts(), (std::vector<int>{1}));
    QWidget *gram = view("gram")->canvas();
    QTest::keyClick(gram, Qt::Key_Down);
    QTest::keyClick(gram, Qt::Key_Down);
    QTest::keyClick(gram, Qt::Key_Down);
    QTest::keyClick(gram, Qt::Key_Return, Qt::ShiftModifier);
    EXPECT_EQ(session.selectedExperts(), (std::vector<int>{1, 2}));
    QTest::keyClick(gram, Qt::Key_Escape);
    EXPECT_TRUE(session.selectedExperts().empty());
    // The bar under the mouse: somewhere in the plot there is one.
    QTest::mouseClick(load, Qt::LeftButton, Qt::NoModifier, QPoint(load->width() / 2, load->height() - 30));
    EXPECT_EQ(session.selectedExperts().size(), 1u);
}

TEST_F(Linked, DoubleClickOnABarSelectsItsTokens)
{
    QWidget *load = view("load")->canvas();
    const QPoint at(load->width() / 2, load->height() - 26);
    QTest::mouseClick(load, Qt::LeftButton, Qt::NoModifier, at);
    QTest::mouseDClick(load, Qt::LeftButton, Qt::NoModifier, at);
    ASSERT_TRUE(quiet());
    ASSERT_EQ(session.selectedExperts().size(), 1u);
    const auto expert = static_cast<std::uint16_t>(session.selectedExperts().front());
    const auto &chosen = trace->columns.at({Column::experts, session.layer()}).u16;
    ASSERT_GT(session.current()->selection.count(), 0u);
    session.current()->selection.forEach([&](std::size_t row) {
        EXPECT_TRUE(chosen[row * 2] == expert || chosen[row * 2 + 1] == expert) << row;
        EXPECT_EQ(trace->all.mask[row], 1);
    });
}

TEST_F(Linked, HiddenViewsReadNothingUntilShown)
{
    view("gram")->hide();
    const QString before = view("gram")->subtitle();
    session.setLayer(3);
    ASSERT_TRUE(quiet());
    EXPECT_EQ(view("gram")->subtitle(), before);
    view("gram")->show();
    ASSERT_TRUE(quiet());
    EXPECT_NE(view("gram")->subtitle(), before);
}

TEST_F(Linked, NoTraceSaysWhatToDo)
{
    session.removeTrace(session.current()->id);
    for (const auto &v : views) {
        EXPECT_EQ(v->state(), ViewState::empty) << v->viewId().toStdString();
        EXPECT_FALSE(v->message().isEmpty());
    }
}

TEST_F(Linked, WidgetsAreNamedForEveryone)
{
    for (const auto &v : views) {
        EXPECT_FALSE(v->accessibleName().isEmpty());
        for (const QWidget *w : v->findChildren<QWidget *>())
            if (w->focusPolicy() != Qt::NoFocus && w->isVisibleTo(v.get()) && !w->objectName().startsWith(QLatin1String("qt_"))) {
                EXPECT_FALSE(w->accessibleName().isEmpty()) << v->viewId().toStdString() << ": " << w->metaObject()->className() << " " << w->objectName().toStdString();
            }
        const std::unique_ptr<QMenu> menu(v->createContextMenu(nullptr));
        EXPECT_GT(menu->actions().size(), 3);
    }
}

TEST_F(Linked, StateComesBack)
{
    for (const auto &v : views)
        for (const ViewOption &o : v->options())
            if (o.key != QLatin1String("tokens") && !o.choices.empty()) {
                for (const ViewOption::Choice &c : o.choices)
                    if (c.enabled && c.value != o.value) {
                        const QString key = o.key, value = c.value;
                        ASSERT_TRUE(v->setOption(key, value).ok());
                        break;
                    }
            }
    ASSERT_TRUE(quiet());
    for (const auto &v : views) {
        const QJsonObject state = v->saveState();
        const std::unique_ptr<View> other(createView(v->viewId()));
        other->restoreState(state);
        EXPECT_EQ(other->saveState()[QStringLiteral("options")], state[QStringLiteral("options")]) << v->viewId().toStdString();
        other->restoreState({{QStringLiteral("options"), QJsonObject{{QStringLiteral("object"), QStringLiteral("no such")}, {QStringLiteral("x"), 3}}}});
        EXPECT_EQ(other->saveState()[QStringLiteral("options")], state[QStringLiteral("options")]);
        const auto refused = v->setOption(QStringLiteral("no such key"), QStringLiteral("1"));
        ASSERT_FALSE(refused.ok());
        EXPECT_EQ(refused.error().kind, ErrorKind::usage);
    }
}

// ---- selection tools on the map

struct Tools : ::testing::Test {
    void SetUp() override
    {
        trace = sampleTrace();
        session.addTrace(trace, QStringLiteral("sample"));
        view = std::make_unique<SpaceView>();
        ASSERT_TRUE(view->setOption(QStringLiteral("method"), QStringLiteral("pca")).ok());
        view->resize(480, 360);
        view->show();
        view->setSession(&session);
        ASSERT_TRUE(settle(*view));
        ASSERT_GT(view->points(), 900);
    }
    /// Tokens whose points lie strictly inside (2 px off the edge is left out of the judgement).
    void expectExactly(const std::function<double(const QPointF &)> &depth)
    {
        const RowSet &selection = session.current()->selection;
        std::size_t in = 0;
        for (std::int64_t n = 0; n < static_cast<std::int64_t>(selection.size()); ++n) {
            const QPointF p = view->positionOf(n);
            if (p.x() < 0)
                continue;
            const double d = depth(p);
            in += d > 2;
            if (d > 2) {
                EXPECT_TRUE(selection.contains(static_cast<std::size_t>(n))) << n;
            }
            if (d < -2) {
                EXPECT_FALSE(selection.contains(static_cast<std::size_t>(n))) << n;
            }
        }
        EXPECT_GT(in, 3u);
    }
    static double inRect(const QRectF &r, const QPointF &p) { return std::min({p.x() - r.left(), r.right() - p.x(), p.y() - r.top(), r.bottom() - p.y()}); }
    std::shared_ptr<ArrayTrace> trace;
    Session session;
    std::unique_ptr<SpaceView> view;
};

TEST_F(Tools, Rectangle)
{
    QTest::keyClick(view->canvas(), Qt::Key_R);
    const QRectF r(120, 60, 200, 150);
    drag(view->canvas(), {r.topLeft(), r.center(), r.bottomRight()});
    expectExactly([&](const QPointF &p) { return inRect(r, p); });
    const auto first = session.current()->selection;
    // Ctrl removes a part of it, Shift brings it back, both keep the common part.
    const QRectF part(120, 60, 90, 150);
    drag(view->canvas(), {part.topLeft(), part.center(), part.bottomRight()}, Qt::ControlModifier);
    EXPECT_LT(session.current()->selection.count(), first.count());
    drag(view->canvas(), {part.topLeft(), part.center(), part.bottomRight()}, Qt::ShiftModifier);
    EXPECT_EQ(session.current()->selection, first);
    drag(view->canvas(), {part.topLeft(), part.center(), part.bottomRight()}, Qt::ControlModifier | Qt::ShiftModifier);
    expectExactly([&](const QPointF &p) { return inRect(part, p); });
    EXPECT_EQ(session.undoText(), QStringLiteral("Select by rectangle"));
}

TEST_F(Tools, Lasso)
{
    QTest::keyClick(view->canvas(), Qt::Key_L);
    std::vector<QPointF> path;
    const QPointF c(240, 150);
    for (int i = 0; i <= 40; ++i)
        path.emplace_back(c.x() + 110 * std::cos(i * 2 * M_PI / 40), c.y() + 80 * std::sin(i * 2 * M_PI / 40));
    drag(view->canvas(), path);
    expectExactly([&](const QPointF &p) {
        const double dx = (p.x() - c.x()) / 110, dy = (p.y() - c.y()) / 80;
        return (1 - std::sqrt(dx * dx + dy * dy)) * 80;
    });
}

TEST_F(Tools, Polygon)
{
    QTest::keyClick(view->canvas(), Qt::Key_P);
    QWidget *c = view->canvas();
    for (const QPoint &at : {QPoint(100, 60), QPoint(330, 60), QPoint(330, 240), QPoint(5, 5)})
        QTest::mouseClick(c, Qt::LeftButton, Qt::NoModifier, at);
    QTest::keyClick(c, Qt::Key_Backspace); // the last corner was a mistake
    QTest::mouseClick(c, Qt::LeftButton, Qt::NoModifier, QPoint(100, 240));
    QTest::keyClick(c, Qt::Key_Return);
    expectExactly([&](const QPointF &p) { return inRect(QRectF(100, 60, 230, 180), p); });
}

TEST_F(Tools, Brush)
{
    QTest::keyClick(view->canvas(), Qt::Key_B);
    const QPointF a(100, 150), b(360, 150);
    drag(view->canvas(), {a, QPointF(230, 150), b});
    expectExactly([&](const QPointF &p) {
        const double x = std::clamp(p.x(), a.x(), b.x());
        return 14 - std::hypot(p.x() - x, p.y() - a.y());
    });
}

TEST_F(Tools, ClickFocusesAndEscapeClears)
{
    const std::int64_t token = 77;
    QTest::mouseClick(view->canvas(), Qt::LeftButton, Qt::NoModifier, view->positionOf(token).toPoint());
    ASSERT_TRUE(session.focusedToken().has_value());
    const QPointF at = view->positionOf(*session.focusedToken());
    EXPECT_LT(QLineF(at, view->positionOf(token)).length(), 10); // it, or one that lies over it
    QTest::mouseClick(view->canvas(), Qt::LeftButton, Qt::ShiftModifier, view->positionOf(token).toPoint());
    EXPECT_EQ(session.current()->selection.count(), 1u);
    QTest::keyClick(view->canvas(), Qt::Key_Escape);
    EXPECT_TRUE(session.current()->selection.empty());
}

TEST_F(Tools, PanAndZoomMoveThePointsAlong)
{
    const QPointF before = view->positionOf(50);
    QWidget *c = view->canvas();
    QTest::mousePress(c, Qt::MiddleButton, Qt::NoModifier, QPoint(200, 100));
    QMouseEvent move(QEvent::MouseMove, QPointF(230, 120), c->mapToGlobal(QPointF(230, 120)), Qt::NoButton, Qt::MiddleButton, Qt::NoModifier);
    QApplication::sendEvent(c, &move);
    QTest::mouseRelease(c, Qt::MiddleButton, Qt::NoModifier, QPoint(230, 120));
    const QPointF moved = view->positionOf(50);
    EXPECT_NEAR(moved.x() - before.x(), 30, 0.01);
    EXPECT_NEAR(moved.y() - before.y(), 20, 0.01);
    QWheelEvent wheel(moved, c->mapToGlobal(moved), {}, {0, 240}, Qt::NoButton, Qt::NoModifier, Qt::NoScrollPhase, false);
    QApplication::sendEvent(c, &wheel);
    EXPECT_NEAR(view->positionOf(50).x(), moved.x(), 0.01);
    const QJsonObject state = view->saveState();
    QTest::keyClick(c, Qt::Key_0);
    EXPECT_NEAR(view->positionOf(50).x(), before.x(), 0.01);
    view->restoreState(state);
    EXPECT_NEAR(view->positionOf(50).x(), moved.x(), 0.01);
}

TEST_F(Tools, HoverHighlightsTheNearestPoint)
{
    hover(view->canvas(), view->positionOf(123));
    ASSERT_TRUE(session.highlightedToken().has_value());
    EXPECT_LT(QLineF(view->positionOf(*session.highlightedToken()), view->positionOf(123)).length(), 2);
}

TEST_F(Tools, SelectionOfAMillionRowsIsASetOperation)
{
    // The mask's cost does not grow with the corners of a lasso: the same points whether by 4 or by 4,000 corners.
    ScatterRaster raster;
    auto xy = std::make_shared<std::vector<float>>();
    for (int i = 0; i < 200; ++i)
        for (int k = 0; k < 200; ++k) {
            xy->push_back(static_cast<float>(i) / 200);
            xy->push_back(static_cast<float>(k) / 200);
        }
    raster.setPoints(xy);
    const ScatterCamera camera = ScatterCamera::fit(raster.bounds(), {400, 400});
    QPainterPath coarse, fine;
    coarse.addRect(100, 100, 120, 90);
    QPolygonF edge;
    for (int i = 0; i < 1000; ++i)
        edge << QPointF(100 + 0.12 * i, 100);
    for (int i = 0; i < 1000; ++i)
        edge << QPointF(220, 100 + 0.09 * i);
    for (int i = 0; i < 1000; ++i)
        edge << QPointF(220 - 0.12 * i, 190);
    for (int i = 0; i < 1000; ++i)
        edge << QPointF(100, 190 - 0.09 * i);
    fine.addPolygon(edge);
    fine.closeSubpath();
    const auto a = raster.inside(camera, coarse), b = raster.inside(camera, fine);
    EXPECT_GT(a.size(), 1000u);
    EXPECT_EQ(a, b);
}

// ---- text of tokens

TEST(TokenText, FollowsAndDrivesTheSession)
{
    const auto trace = sampleTrace();
    Session session;
    session.setSynchronous(true);
    session.addTrace(trace, QStringLiteral("sample"));
    TokenTextView text;
    text.resize(300, 200);
    text.setSession(&session);
    text.show();
    TokenRecord record;
    record.firstToken = 0;
    for (int i = 0; i < 30; ++i) {
        record.id.push_back(trace->all.id[static_cast<std::size_t>(i)]);
        record.text.push_back(trace->all.text[static_cast<std::size_t>(i)]);
        record.phase.push_back(0);
    }
    text.append(record);
    text.append(record); // told twice: shown once
    ASSERT_EQ(text.tokens().size(), 30u);
    const QImage plain = text.viewport()->grab().toImage();
    RoutingRecord routing;
    routing.layer = 0;
    routing.tokens = 30;
    routing.slots = 2;
    const auto &experts = trace->columns.at({Column::experts, 0}).u16;
    routing.expertIds = {experts.data(), 60};
    text.setRouting(routing);
    EXPECT_NE(plain, text.viewport()->grab().toImage()); // colours came
    QSignalSpy clicked(&text, &TokenTextView::tokenClicked);
    hover(text.viewport(), text.tokenRect(4).center());
    EXPECT_EQ(session.highlightedToken(), 4);
    QTest::mouseClick(text.viewport(), Qt::LeftButton, Qt::NoModifier, text.tokenRect(6).center());
    EXPECT_EQ(session.focusedToken(), 6);
    EXPECT_EQ(clicked.count(), 1);
    QTest::keyClick(&text, Qt::Key_Right);
    EXPECT_EQ(session.focusedToken(), 7);
    drag(text.viewport(), {text.tokenRect(2).center(), text.tokenRect(3).center(), text.tokenRect(5).center()});
    EXPECT_EQ(session.current()->selection.rows(), (std::vector<std::int64_t>{2, 3, 4, 5}));
    for (int i = 0; i < 30; ++i) {
        if (!text.tokenRect(i).isNull() && text.viewport()->rect().contains(text.tokenRect(i).center())) {
            EXPECT_EQ(text.tokenAt(text.tokenRect(i).center()), i);
        }
    }
}

TEST(TokenText, KeepsTheEndInViewWhileTokensCome)
{
    TokenTextView text;
    text.resize(160, 80);
    text.show();
    for (int i = 0; i < 200; ++i)
        text.append(std::vector<ShownToken>{{QStringLiteral(" word%1").arg(i), i, true, {}, {}}});
    EXPECT_TRUE(text.viewport()->rect().intersects(text.tokenRect(199)));
    text.append(std::vector<ShownToken>{{QStringLiteral("a\nb\t%1").arg(QString(400, QLatin1Char('x'))), 200, true, {}, {}}, {QString(), 201, true, {}, {}}});
    EXPECT_EQ(text.tokens().size(), 202u);
    text.grab();
}

} // namespace
} // namespace spectra::viewtest
