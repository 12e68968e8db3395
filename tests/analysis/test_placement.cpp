// SPDX-License-Identifier: GPL-3.0-or-later
// The GRACE placement planner: spectral clusters against scikit-learn's and an exhaustive search (tests/fixtures/analysis/
// make_placement.py), sizes, copies and forecasts by hand on small layers, and what must hold for any layer.
#include "analysis/placement/grace.h"
#include "analysis/placement/spectral.h"
#include "engine/core/random.h"
#include "engine/core/routingrecord.h"
#include "tests/analysis/metricfixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

namespace spectra {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const nlohmann::json &fixture()
{
    static const nlohmann::json all = test::readFixture("placement.json");
    return all;
}

/// The same partition whatever the groups are called.
std::vector<int> renamed(const std::vector<int> &label)
{
    std::map<int, int> name;
    std::vector<int> out;
    for (const int l : label)
        out.push_back(name.emplace(l, static_cast<int>(name.size())).first->second);
    return out;
}

/// Choices of a skewed layer without structure.
std::vector<std::uint16_t> someChoices(std::uint64_t seed, std::int64_t tokens, int slots, int experts)
{
    Random random(seed);
    std::vector<std::uint16_t> chosen;
    for (std::int64_t t = 0; t < tokens; ++t) {
        std::set<std::uint16_t> set;
        while (static_cast<int>(set.size()) < slots)
            set.insert(static_cast<std::uint16_t>(static_cast<double>(experts) * random.uniform() * random.uniform()));
        chosen.insert(chosen.end(), set.begin(), set.end());
    }
    return chosen;
}

TEST(SpectralGroups, FindWhatScikitLearnFinds)
{
    for (const auto &g : fixture()["graphs"]) {
        SCOPED_TRACE(g["n"].dump());
        const auto affinity = g["affinity"].get<std::vector<double>>();
        const std::vector<int> found = spectralGroups(affinity, g["n"], g["groups"], 3);
        EXPECT_EQ(found, renamed(g["sklearn"].get<std::vector<int>>()));
        EXPECT_EQ(found, renamed(g["planted"].get<std::vector<int>>()));
        EXPECT_EQ(found, spectralGroups(affinity, g["n"], g["groups"], 3)) << "the same for one seed";
    }
}

TEST(SpectralGroups, NoGroupIsEmptyWhateverTheGraph)
{
    const auto sizes = [](const std::vector<int> &label) { return std::set<int>(label.begin(), label.end()).size(); };
    EXPECT_EQ(sizes(spectralGroups(std::vector<double>(25, 0.0), 5, 3, 1)), 3u) << "no edges";
    EXPECT_EQ(sizes(spectralGroups(std::vector<double>(36, 1.0), 6, 4, 1)), 4u) << "all alike";
    EXPECT_EQ(spectralGroups(std::vector<double>(9, 1.0), 3, 3, 1), (std::vector<int>{0, 1, 2}));
    EXPECT_EQ(spectralGroups(std::vector<double>(9, 1.0), 3, 1, 1), (std::vector<int>{0, 0, 0}));
    std::vector<double> lonely(16, 0.0); // 0-1 and 2-3 apart
    lonely[1] = lonely[4] = lonely[11] = lonely[14] = 1;
    EXPECT_EQ(spectralGroups(lonely, 4, 2, 1), (std::vector<int>{0, 0, 1, 1}));
}

TEST(Placement, ProfileCountsPairsAndLoads)
{
    const auto chosen = fixture()["chosen"].get<std::vector<std::uint16_t>>();
    const auto p = profileRouting(chosen, fixture()["slots"], fixture()["experts"]);
    ASSERT_TRUE(p.ok());
    EXPECT_EQ(p->affinity, fixture()["affinity"].get<std::vector<double>>());
    EXPECT_EQ(p->load, fixture()["load"].get<std::vector<double>>());
    const auto holes = profileRouting(std::vector<std::uint16_t>{0, kNoExpert, kNoExpert, kNoExpert, 1, 0}, 2, 2);
    ASSERT_TRUE(holes.ok());
    EXPECT_THAT(holes->load, ElementsAre(2, 1));
    EXPECT_THAT(holes->affinity, ElementsAre(0, 1, 1, 0));
    const auto wrong = profileRouting(std::vector<std::uint16_t>{0, 1, 2, 0}, 2, 2);
    ASSERT_FALSE(wrong.ok());
    EXPECT_EQ(wrong.error().kind, ErrorKind::input);
    EXPECT_THAT(wrong.error().where, HasSubstr("token 1"));
}

TEST(Placement, NodesAreTheLeastNormalisedCut)
{
    const auto chosen = fixture()["chosen"].get<std::vector<std::uint16_t>>();
    PlacementOptions o;
    o.nodes = 2;
    o.gpusPerNode = 2;
    const auto plan = planPlacement(chosen, fixture()["slots"], fixture()["experts"], o);
    ASSERT_TRUE(plan.ok()) << plan.error().what;
    ExpertGroups nodes = plan->nodes;
    std::sort(nodes.begin(), nodes.end());
    EXPECT_EQ(nodes, fixture()["least_cut"].get<ExpertGroups>()) << "of all 2047 ways to cut";
    EXPECT_LT(plan->grouped.leavesNode, plan->contiguous.leavesNode + 1e-12);
    EXPECT_LT(plan->grouped.nodesReached, plan->contiguous.nodesReached) << "pairs stay together";
    EXPECT_LT(plan->grouped.gpusReached, plan->contiguous.gpusReached);
    EXPECT_LT(plan->replicated.imbalance, plan->grouped.imbalance);
}

TEST(Placement, EveryPlanHoldsWhatItMust)
{
    int plans = 0;
    for (std::uint64_t seed = 0; seed < 24; ++seed)
        for (const auto &[nodes, gpus, experts] : std::vector<std::array<int, 3>>{{1, 1, 4}, {1, 4, 16}, {2, 2, 9}, {4, 1, 8}, {3, 2, 6}, {2, 4, 32}}) {
            SCOPED_TRACE(std::to_string(seed) + ": " + std::to_string(nodes) + "x" + std::to_string(gpus) + " of " + std::to_string(experts));
            const int slots = 2 + static_cast<int>(seed % 2);
            const auto chosen = someChoices(seed, 300, slots, experts);
            PlacementOptions o;
            o.nodes = nodes;
            o.gpusPerNode = gpus;
            o.ratio = seed % 3 == 0 ? -1 : 0.1 * static_cast<double>(seed % 7);
            o.seed = seed;
            const auto plan = planPlacement(chosen, slots, experts, o);
            ASSERT_TRUE(plan.ok()) << plan.error().what;
            ASSERT_EQ(plan->gpus.size(), static_cast<std::size_t>(nodes * gpus));
            std::vector<int> all;
            for (int n = 0; n < nodes; ++n) {
                const auto &members = plan->nodes[static_cast<std::size_t>(n)];
                const GroupBounds bounds = groupBounds(static_cast<std::int64_t>(members.size()), gpus, plan->ratio);
                std::vector<int> here;
                for (int g = 0; g < gpus; ++g) {
                    const auto &group = plan->gpus[static_cast<std::size_t>(n * gpus + g)];
                    EXPECT_GE(static_cast<std::int64_t>(group.size()), bounds.low);
                    EXPECT_LE(static_cast<std::int64_t>(group.size()), bounds.high);
                    here.insert(here.end(), group.begin(), group.end());
                }
                std::sort(here.begin(), here.end());
                EXPECT_EQ(here, members);
                all.insert(all.end(), here.begin(), here.end());
            }
            std::sort(all.begin(), all.end());
            std::vector<int> each(static_cast<std::size_t>(experts));
            std::iota(each.begin(), each.end(), 0);
            EXPECT_EQ(all, each) << "every expert once";
            const double assignments = 300.0 * slots;
            for (const PlacementForecast *f : {&plan->contiguous, &plan->grouped, &plan->replicated}) {
                EXPECT_DOUBLE_EQ(std::accumulate(f->load.begin(), f->load.end(), 0.0), assignments);
                EXPECT_GE(f->imbalance, 1 - 1e-12);
                EXPECT_LE(f->leavesNode, f->leavesGpu);
                EXPECT_LE(f->gpusReached, f->leavesGpu * slots + 1e-12);
                EXPECT_LE(f->nodesReached, f->gpusReached + 1e-12);
            }
            EXPECT_NEAR(std::accumulate(plan->predicted.begin(), plan->predicted.end(), 0.0), assignments, 1e-9) << "copies move load, they make none";
            EXPECT_LE(plan->replicated.leavesGpu, plan->grouped.leavesGpu + 1e-12) << "a copy can only bring an expert nearer";
            EXPECT_EQ(plan->copied.empty(), nodes * gpus == 1);
            for (const int e : plan->copied)
                EXPECT_TRUE(std::count(plan->gpus[static_cast<std::size_t>(plan->heaviest)].begin(), plan->gpus[static_cast<std::size_t>(plan->heaviest)].end(), e));
            EXPECT_FALSE(std::count(plan->copiesOn.begin(), plan->copiesOn.end(), plan->heaviest));
            ++plans;
        }
    EXPECT_EQ(plans, 24 * 6);
}

TEST(Placement, GroupsAreBroughtIntoBoundsByAffinity)
{
    // 0,1,2,3 hang together, 3 least; 4 and 5 are a group that 3 has some affinity to, 6 is alone.
    std::vector<double> a(49, 0.0);
    const auto set = [&](int i, int j, double value) { a[static_cast<std::size_t>(i * 7 + j)] = a[static_cast<std::size_t>(j * 7 + i)] = value; };
    set(0, 1, 9);
    set(0, 2, 9);
    set(1, 2, 9);
    set(0, 3, 1);
    set(3, 4, 2);
    set(4, 5, 5);
    const ExpertGroups cut = boundedGroups(a, 7, {{0, 1, 2, 3}, {4, 5}, {6}}, {2, 1, 3});
    EXPECT_EQ(cut, (ExpertGroups{{0, 1, 2}, {3, 4, 5}, {6}}));
    EXPECT_NEAR(insideAffinity(a, 7, cut), 34.0 / 35, 1e-12);
    // The smallest gets the weakest of the largest.
    EXPECT_EQ(boundedGroups(a, 7, {{0, 1, 2, 3}, {4, 5}, {6}}, {2, 2, 4}), (ExpertGroups{{0, 1, 2}, {4, 5}, {3, 6}}));
    EXPECT_EQ(groupBounds(16, 4, 0.15).low, 3);
    EXPECT_EQ(groupBounds(64, 4, 0.15).high, 18); // 16 + round(2.4)
    EXPECT_EQ(groupBounds(5, 4, 0.0).low, 1);
    EXPECT_EQ(groupBounds(5, 4, 0.0).high, 2);
}

TEST(Placement, TheKneeIsWhereGainGivesWay)
{
    std::vector<RatioPoint> curve;
    for (int i = 0; i <= 10; ++i)
        curve.push_back({0.1 * i, static_cast<double>(i), i < 3 ? 0.3 * i : 0.9 + 0.01 * (i - 3)});
    EXPECT_EQ(kneeOf(curve), 3u);
    for (RatioPoint &p : curve)
        p.inside = 1;
    EXPECT_EQ(kneeOf(curve), 0u) << "nothing to gain";
    EXPECT_EQ(kneeOf({}), 0u);
}

/// Four experts on two GPUs, so loaded that the split is known: GPU 0 has 0 and 1.
TEST(Placement, CopiesAndForecastByHand)
{
    std::vector<std::uint16_t> chosen;
    for (int i = 0; i < 8; ++i)
        chosen.insert(chosen.end(), {0, 1});
    for (int i = 0; i < 2; ++i)
        chosen.insert(chosen.end(), {2, 3});
    PlacementOptions o;
    o.nodes = 2;
    o.ratio = 0;
    const auto plan = planPlacement(chosen, 2, 4, o);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->gpus, (ExpertGroups{{0, 1}, {2, 3}}));
    EXPECT_THAT(plan->grouped.load, ElementsAre(16, 4));
    EXPECT_DOUBLE_EQ(plan->grouped.imbalance, 1.6);
    // Tokens alternate between the GPUs: half of everybody's assignments leave, in one message of two.
    EXPECT_DOUBLE_EQ(plan->grouped.leavesGpu, 0.5);
    EXPECT_DOUBLE_EQ(plan->grouped.leavesNode, 0.5);
    EXPECT_DOUBLE_EQ(plan->grouped.gpusReached, 0.5);
    // ρ = 1.6, one copy; the load to move is 16·1/2 = 8: expert 0 alone reaches it.
    EXPECT_EQ(plan->heaviest, 0);
    EXPECT_THAT(plan->copied, ElementsAre(0));
    EXPECT_THAT(plan->copiesOn, ElementsAre(1));
    EXPECT_THAT(plan->predicted, ElementsAre(12, 8));
    // Tokens 1, 3, 5, 7 find expert 0 at home now.
    EXPECT_THAT(plan->replicated.load, ElementsAre(12, 8));
    EXPECT_DOUBLE_EQ(plan->replicated.leavesGpu, 6.0 / 20);
    o.replicate = false;
    const auto bare = planPlacement(chosen, 2, 4, o);
    ASSERT_TRUE(bare.ok());
    EXPECT_TRUE(bare->copied.empty());
    EXPECT_EQ(bare->replicated.load, bare->grouped.load);
}

/// Copies on GPUs of the same tier are used in proportion to 1/W'.
TEST(Placement, AmongCopiesTheLessLoadedIsTakenMoreOften)
{
    // One node, four GPUs, one expert each; expert 0 has 60 of 100 assignments: ρ = 2.4, two copies on the two least loaded.
    std::vector<std::uint16_t> chosen;
    for (int i = 0; i < 100; ++i)
        chosen.push_back(static_cast<std::uint16_t>(i % 5 < 3 ? 0 : i % 20 == 3 || i % 20 == 4 ? 3 : i % 2 == 0 ? 1 : 2));
    PlacementOptions o;
    o.gpusPerNode = 4;
    o.ratio = 0;
    const auto plan = planPlacement(chosen, 1, 4, o);
    ASSERT_TRUE(plan.ok());
    EXPECT_EQ(plan->copiesOn.size(), 2u);
    ASSERT_THAT(plan->copied, ElementsAre(0));
    for (const int g : plan->copiesOn)
        EXPECT_NE(g, plan->heaviest);
    const double most = *std::max_element(plan->replicated.load.begin(), plan->replicated.load.end());
    EXPECT_LT(most, 40) << "of 60 before";
    EXPECT_LT(plan->replicated.imbalance, plan->grouped.imbalance);
}

TEST(Placement, RefusesClustersThatCannotBe)
{
    const std::vector<std::uint16_t> chosen{0, 1, 2, 3};
    const auto refused = [&](PlacementOptions o, std::int64_t experts = 4) {
        const auto plan = planPlacement(chosen, 2, experts, o);
        EXPECT_FALSE(plan.ok());
        return plan.ok() ? ErrorKind::bug : plan.error().kind;
    };
    EXPECT_EQ(refused({.nodes = 0}), ErrorKind::usage);
    EXPECT_EQ(refused({.nodes = 1, .gpusPerNode = 0}), ErrorKind::usage);
    EXPECT_EQ(refused({.nodes = 3, .gpusPerNode = 2}), ErrorKind::usage);
    EXPECT_EQ(refused({.ratio = 1.5}), ErrorKind::usage);
    EXPECT_EQ(refused({.ratio = NAN}), ErrorKind::usage);
    EXPECT_EQ(refused({}, 3), ErrorKind::input);
    EXPECT_EQ(refused({}, 5000), ErrorKind::usage);
    std::stop_source stop;
    stop.request_stop();
    EXPECT_FALSE(planPlacement(chosen, 2, 4, {}, stop.get_token()).ok());
    const auto idle = planPlacement({}, 2, 4, {.nodes = 2});
    ASSERT_TRUE(idle.ok()) << "no token, no preference";
    EXPECT_EQ(idle->replicated.imbalance, 0);
}

} // namespace
} // namespace spectra
