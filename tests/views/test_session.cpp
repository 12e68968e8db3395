// SPDX-License-Identifier: GPL-3.0-or-later
#include "sampletrace.h"
#include "support.h"

#include "views/session.h"

#include <QSignalSpy>

namespace spectra::viewtest {
namespace {

RowSet rowsOf(const Session &s, std::initializer_list<std::size_t> rows)
{
    RowSet set(s.current()->selection.size());
    for (const std::size_t r : rows)
        set.insert(r);
    return set;
}

struct SessionTest : ::testing::Test {
    void SetUp() override
    {
        session.setSynchronous(true);
        session.addTrace(sampleTrace(), QStringLiteral("sample"));
    }
    std::vector<std::int64_t> selected() const { return session.current()->selection.rows(); }
    Session session;
};

TEST_F(SessionTest, ModesCombineSetsAndSaySo)
{
    QSignalSpy spy(&session, &Session::rowsChanged);
    session.select(rowsOf(session, {1, 2, 3}), SelectMode::replace, QStringLiteral("a"));
    session.select(rowsOf(session, {3, 4}), SelectMode::add, QStringLiteral("b"));
    EXPECT_EQ(selected(), (std::vector<std::int64_t>{1, 2, 3, 4}));
    session.select(rowsOf(session, {1}), SelectMode::remove, QStringLiteral("c"));
    session.select(rowsOf(session, {2, 3, 9}), SelectMode::intersect, QStringLiteral("d"));
    EXPECT_EQ(selected(), (std::vector<std::int64_t>{2, 3}));
    EXPECT_EQ(spy.count(), 4);
    session.select(rowsOf(session, {2, 3}), SelectMode::replace, QStringLiteral("same")); // no change, no signal, no step
    EXPECT_EQ(spy.count(), 4);
    EXPECT_EQ(session.undoText(), QStringLiteral("d"));
}

TEST_F(SessionTest, UndoAndRedoWalkTheSteps)
{
    session.select(rowsOf(session, {1}), SelectMode::replace, QStringLiteral("one"));
    session.select(rowsOf(session, {2}), SelectMode::add, QStringLiteral("two"));
    session.undo();
    EXPECT_EQ(selected(), (std::vector<std::int64_t>{1}));
    EXPECT_EQ(session.redoText(), QStringLiteral("two"));
    session.redo();
    EXPECT_EQ(selected(), (std::vector<std::int64_t>{1, 2}));
    session.undo();
    session.undo();
    EXPECT_TRUE(selected().empty());
    EXPECT_FALSE(session.canUndo());
    session.select(rowsOf(session, {7}), SelectMode::replace, QStringLiteral("new"));
    EXPECT_FALSE(session.canRedo());
}

TEST_F(SessionTest, InvertStaysInsideTheFilter)
{
    RowSet filter(session.current()->filter.size());
    filter.insertRange(0, 10);
    session.setFilter(filter, QStringLiteral("filter"));
    session.select(rowsOf(session, {0, 1}), SelectMode::replace, {});
    session.invertSelection();
    EXPECT_EQ(session.current()->selection.count(), 8u);
    EXPECT_FALSE(session.current()->selection.contains(0));
    EXPECT_FALSE(session.current()->selection.contains(11));
}

TEST_F(SessionTest, HighlightAndFocusRefuseRowsOutside)
{
    QSignalSpy spy(&session, &Session::rowsChanged);
    session.highlight(5);
    session.highlight(5);
    EXPECT_EQ(spy.count(), 1);
    EXPECT_EQ(session.highlightedToken(), 5);
    session.highlight(-3);
    EXPECT_FALSE(session.highlightedToken().has_value());
    session.focusToken(1'000'000);
    EXPECT_FALSE(session.focusedToken().has_value());
}

TEST_F(SessionTest, AnExpertBelongsToItsLayer)
{
    session.setSelectedExperts({3, 1, 3, 99, -1});
    EXPECT_EQ(session.selectedExperts(), (std::vector<int>{1, 3}));
    session.selectExpert(5, SelectMode::add);
    session.selectExpert(1, SelectMode::remove);
    EXPECT_EQ(session.selectedExperts(), (std::vector<int>{3, 5}));
    session.setLayer(2);
    EXPECT_TRUE(session.selectedExperts().empty());
    EXPECT_EQ(session.decoderLayer(), 5);
}

TEST_F(SessionTest, SwitchingTracesKeepsTheDecoderLayer)
{
    SampleShape other;
    other.layers = 2;
    const quint64 second = session.addTrace(sampleTrace(other), QStringLiteral("sample"));
    EXPECT_EQ(session.trace(second)->name, QStringLiteral("sample (2)"));
    session.setLayer(1); // decoder layer 3
    session.setCurrent(second);
    EXPECT_EQ(session.decoderLayer(), 3);
    session.setCurrent(session.traces().front()->id);
    session.setLayer(3); // decoder layer 7, which the other does not have
    session.setCurrent(second);
    EXPECT_EQ(session.layer(), 0);
    session.removeTrace(second);
    EXPECT_NE(session.current(), nullptr);
    session.removeTrace(session.current()->id);
    EXPECT_EQ(session.current(), nullptr);
    EXPECT_EQ(session.decoderLayer(), -1);
}

TEST_F(SessionTest, AGrownTraceKeepsItsSets)
{
    const quint64 id = session.current()->id;
    session.select(rowsOf(session, {3}), SelectMode::replace, {});
    SampleShape longer;
    longer.sequences = 30;
    session.updateTrace(id, sampleTrace(longer));
    EXPECT_EQ(session.current()->selection.size(), 30u * 40u);
    EXPECT_EQ(selected(), (std::vector<std::int64_t>{3}));
    EXPECT_EQ(session.current()->filter.count(), 30u * 40u); // nothing was filtered: new tokens take part
}

TEST_F(SessionTest, StateComesBack)
{
    session.setLayer(1);
    session.select(rowsOf(session, {1, 2, 3, 8}), SelectMode::replace, {});
    session.saveGroup(QStringLiteral("mine"));
    session.setSelectedExperts({2});
    session.setShownDomains({1, 2});
    session.focusToken(44);
    const QJsonObject state = session.saveState();
    Session other;
    other.setSynchronous(true);
    other.addTrace(sampleTrace(), QStringLiteral("again"));
    other.restoreState(state);
    EXPECT_EQ(other.layer(), 1);
    EXPECT_EQ(other.current()->selection, session.current()->selection);
    EXPECT_EQ(other.selectedExperts(), session.selectedExperts());
    EXPECT_EQ(other.shownDomains(), session.shownDomains());
    EXPECT_EQ(other.focusedToken(), 44);
    ASSERT_EQ(other.groups().size(), 1u);
    other.clearSelection();
    other.selectGroup(QStringLiteral("mine"), SelectMode::replace);
    EXPECT_EQ(other.current()->selection.count(), 4u);
    other.restoreState({{QStringLiteral("experts"), QStringLiteral("nonsense")}, {QStringLiteral("traces"), 7}}); // ignored
}

TEST_F(SessionTest, DomainsOfSequences)
{
    EXPECT_EQ(session.domainOf(0), 0);
    EXPECT_EQ(session.domainOf(3), 3);
    EXPECT_EQ(session.domainOf(-1), -1);
    EXPECT_EQ(session.domainOf(9999), -1);
    session.setShownDomains({0, 1, 2, 3}); // all is the same as no choice
    EXPECT_TRUE(session.shownDomains().empty());
}

TEST(Modifiers, MeanTheSameEverywhere)
{
    EXPECT_EQ(selectModeOf(Qt::NoModifier), SelectMode::replace);
    EXPECT_EQ(selectModeOf(Qt::ShiftModifier), SelectMode::add);
    EXPECT_EQ(selectModeOf(Qt::ControlModifier), SelectMode::remove);
    EXPECT_EQ(selectModeOf(Qt::ControlModifier | Qt::ShiftModifier), SelectMode::intersect);
}

} // namespace
} // namespace spectra::viewtest
