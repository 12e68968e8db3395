// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/random.h"
#include "engine/tasks/flips.h"
#include "engine/tasks/scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace spectra {
namespace {

TEST(Wilson, EqualsSciPy)
{
    // scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    const auto near = [](double right, std::int64_t n, double low, double high) {
        const Interval i = wilsonInterval(right, n);
        EXPECT_NEAR(i.low, low, 1e-9) << right << "/" << n;
        EXPECT_NEAR(i.high, high, 1e-9) << right << "/" << n;
    };
    near(5, 10, 0.23659309051256394, 0.7634069094874361);
    near(0, 10, 0.0, 0.27753279986288935);
    near(10, 10, 0.7224672001371107, 1.0);
    near(37, 120, 0.23272736988916295, 0.3958299772380067);
    EXPECT_TRUE(std::isnan(wilsonInterval(0, 0).low));
}

TEST(Wilson, CoversTheTruthAboutNineteenTimesOfTwenty)
{
    Random random(7);
    for (const double p : {0.05, 0.3, 0.5, 0.9}) {
        int covered = 0;
        for (int trial = 0; trial < 2000; ++trial) {
            int right = 0;
            for (int i = 0; i < 60; ++i)
                right += random.uniform() < p ? 1 : 0;
            const Interval interval = wilsonInterval(right, 60);
            covered += interval.low <= p && p <= interval.high ? 1 : 0;
        }
        EXPECT_NEAR(covered / 2000.0, 0.95, 0.025) << p;
    }
}

TEST(PassAtK, IsTheChanceOfADrawWithoutReplacement)
{
    // Every subset of k of n programs, counted.
    for (int n = 1; n <= 10; ++n)
        for (int c = 0; c <= n; ++c)
            for (int k = 1; k <= n; ++k) {
                int sets = 0, good = 0;
                for (unsigned mask = 0; mask < (1u << n); ++mask) {
                    if (__builtin_popcount(mask) != k)
                        continue;
                    ++sets;
                    good += (mask & ((1u << c) - 1)) != 0 ? 1 : 0; // the first c programs pass
                }
                EXPECT_NEAR(passAtK(n, c, k), static_cast<double>(good) / sets, 1e-12) << n << " " << c << " " << k;
            }
    EXPECT_NEAR(passAtK(200, 3, 100), 0.8768844221105527, 1e-12); // 1 − C(197,100)/C(200,100)
}

std::vector<Measure> measures(const std::vector<std::pair<double, double>> &values)
{
    std::vector<Measure> list;
    for (const auto &[value, weight] : values)
        list.push_back({"m", value, weight});
    return list;
}

TEST(Metrics, AggregateByTheirDefinition)
{
    const auto units = measures({{10, 4}, {20, 6}});
    EXPECT_DOUBLE_EQ(scoreMetric({"m", Aggregate::mean, true, {}}, units, 0).value, 3);
    EXPECT_DOUBLE_EQ(scoreMetric({"m", Aggregate::perplexity, false, {}}, units, 0).value, std::exp(3.0));
    EXPECT_DOUBLE_EQ(scoreMetric({"m", Aggregate::bits, false, {}}, units, 0).value, 3 / std::log(2.0));
    const MetricValue p = scoreMetric({"m", Aggregate::proportion, true, {}}, measures({{1, 1}, {0, 1}, {1, 1}, {1, 1}}), 0);
    EXPECT_DOUBLE_EQ(p.value, 0.75);
    EXPECT_EQ(p.interval, "wilson");
    EXPECT_DOUBLE_EQ(p.low, wilsonInterval(3, 4).low);
    // Parts of a whole are no counts.
    EXPECT_EQ(scoreMetric({"m", Aggregate::proportion, true, {}}, measures({{0.5, 1}, {0, 1}}), 0).interval, "bootstrap");
}

TEST(Metrics, BootstrapIsSeededAndNearTheNormalInterval)
{
    Random random(3);
    std::vector<Measure> units;
    double sum = 0, squares = 0;
    for (int i = 0; i < 400; ++i) {
        const double x = random.normal() + 2;
        units.push_back({"m", x, 1});
        sum += x;
        squares += x * x;
    }
    const double mean = sum / 400, error = std::sqrt((squares / 400 - mean * mean) / 400);
    const TaskMetric metric{"m", Aggregate::mean, true, {}};
    const MetricValue a = scoreMetric(metric, units, 5), b = scoreMetric(metric, units, 5), c = scoreMetric(metric, units, 6);
    EXPECT_EQ(a.low, b.low);
    EXPECT_NE(a.low, c.low);
    EXPECT_NEAR(a.low, mean - 1.96 * error, 0.25 * error);
    EXPECT_NEAR(a.high, mean + 1.96 * error, 0.25 * error);
    EXPECT_TRUE(std::isnan(scoreMetric(metric, std::span(units).first(1), 5).low)) << "one unit says nothing of its spread";
}

TEST(Flips, AreFoundWithTheirRouting)
{
    const std::string before = R"({"task":"choice","id":"a","right":1,"answer":"x","routing":[[4,0],[2,2]]}
{"task":"choice","id":"b","right":0,"answer":"y","routing":[[1,3],[2,2]]}
{"task":"choice","id":"c","right":1,"answer":"z","routing":[[4,0],[2,2]]}
{"task":"choice","id":"gone","right":1,"answer":"z"}
)";
    const auto earlier = readEarlierRun(before, "old.jsonl", "choice");
    ASSERT_TRUE(earlier.ok());
    const std::vector<ComparedItem> now = {{"a", 0, "w", RoutingSignature{{{0, 4}, {1, 3}}}},
                                           {"b", 1, "v", RoutingSignature{{{1, 3}, {2, 2}}}},
                                           {"c", 1, "z", RoutingSignature{{{3, 1}, {2, 2}}}},
                                           {"new", 1, "z", {}}};
    const Comparison comparison = compareRuns(now, *earlier);
    EXPECT_EQ(comparison.compared, 3);
    EXPECT_EQ(comparison.onlyHere, 1);
    EXPECT_EQ(comparison.onlyThere, 1);
    EXPECT_EQ(comparison.lost, 1);
    EXPECT_EQ(comparison.gained, 1);
    ASSERT_EQ(comparison.flips.size(), 2u);
    EXPECT_EQ(comparison.flips[0].id, "a");
    EXPECT_EQ(comparison.flips[0].answerBefore, "x");
    ASSERT_TRUE(comparison.flips[0].routing);
    EXPECT_DOUBLE_EQ(comparison.flips[0].routing->layers[0], 1);
    EXPECT_DOUBLE_EQ(comparison.flips[0].routing->layers[1], 0.25);
    EXPECT_EQ(comparison.flips[0].routing->worstLayer, 0);
    EXPECT_DOUBLE_EQ(*comparison.routingOfFlips, (0.625 + 0) / 2);
    EXPECT_DOUBLE_EQ(*comparison.routingOfOthers, 0.125);
    EXPECT_DOUBLE_EQ(comparison.mcnemarP, 1);
}

TEST(Flips, McNemarIsTheExactTest)
{
    // scipy.stats.binomtest(1, 9).pvalue = 0.0390625
    std::string lines;
    std::vector<ComparedItem> now;
    for (int i = 0; i < 9; ++i) {
        lines += "{\"task\":\"t\",\"id\":\"" + std::to_string(i) + "\",\"right\":" + (i == 0 ? "0" : "1") + "}\n";
        now.push_back({std::to_string(i), i == 0 ? 1.0 : 0.0, "", {}});
    }
    EXPECT_NEAR(compareRuns(now, *readEarlierRun(lines, "old", "t")).mcnemarP, 0.0390625, 1e-12);
}

TEST(Flips, AForeignFileIsRefused)
{
    const auto bad = [](const std::string &text) {
        const auto run = readEarlierRun(text, "old.jsonl", "choice");
        EXPECT_FALSE(run.ok()) << text;
        if (!run.ok()) {
            EXPECT_EQ(run.error().kind, ErrorKind::input) << text;
            EXPECT_NE(run.error().where.find("old.jsonl"), std::string::npos) << run.error().where;
        }
    };
    bad("");
    bad("{\"task\":\"piqa\",\"id\":\"a\",\"right\":1}");
    bad("{\"id\":\"a\"}");
    bad("{\"task\":\"choice\",\"right\":1}");
    bad("{\"task\":\"choice\",\"id\":\"a\",\"right\":\"yes\"}");
    bad("{\"task\":\"choice\",\"id\":\"a\",\"right\":1,\"routing\":7}");
    bad("{\"task\":\"choice\",\"id\":\"a\",\"right\":1,\"routing\":[[1,-1]]}");
    bad("{\"task\":\"choice\",\"id\":\"a\",\"right\":1}\n{\"task\":\"choice\",\"id\":\"a\",\"right\":1}");
    // Other numbers of experts are no error: there is just nothing to say.
    EXPECT_FALSE(routingDifference({{{1, 2}}}, {{{1, 2, 3}}}));
    EXPECT_FALSE(routingDifference({{{1, 2}}}, {{{1, 2}, {1, 2}}}));
    EXPECT_FALSE(routingDifference({{{0, 0}}}, {{{1, 2}}}));
}

} // namespace
} // namespace spectra
