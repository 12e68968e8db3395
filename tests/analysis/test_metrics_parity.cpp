// SPDX-License-Identifier: GPL-3.0-or-later
// Every metric against what NumPy, SciPy and scikit-learn computed on the same routing
// (fixtures/analysis/make_metrics.py).
#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/gram.h"
#include "analysis/metrics/partition.h"
#include "analysis/statistics/assignment.h"
#include "analysis/statistics/clustering.h"
#include "analysis/statistics/resampling.h"
#include "tests/analysis/metricfixture.h"

#include <gtest/gtest.h>

#include <cmath>

using namespace spectra;
using test::fixtureTrace;
using test::readFixture;

namespace {

class MetricParity : public testing::Test {
protected:
    static const nlohmann::json &fixture()
    {
        static const nlohmann::json f = readFixture("metrics.json");
        return f;
    }
    static void compare(const std::string &place, const std::optional<double> &got, const nlohmann::json &expected,
                        double tolerance)
    {
        if (expected.is_null()) {
            EXPECT_FALSE(got.has_value()) << place << " should be absent";
            return;
        }
        ASSERT_TRUE(got.has_value()) << place << " is absent";
        EXPECT_NEAR(*got, expected.get<double>(), tolerance * std::max(1.0, std::abs(expected.get<double>()))) << place;
    }
};

TEST_F(MetricParity, LayersDomainsAndSequences)
{
    const ArrayTrace trace = fixtureTrace(fixture());
    MetricOptions options;
    options.bySequence = true;
    options.blockTokens = 37; // borders inside sequences and segments
    const auto report = evaluateMetrics(trace, options);
    ASSERT_TRUE(report.ok()) << report.error().what;
    int compared = 0;
    for (const auto &[key, unused] : fixture()["layer"][0].items()) {
        const bool chance = key.ends_with(".chance");
        const std::string name = chance ? key.substr(0, key.size() - 7) : key;
        const MetricResult *m = report->find(name);
        ASSERT_NE(m, nullptr) << name;
        const double tolerance = key == "topk_overlap.chance" ? 6e-3 : 2e-6;
        const auto pick = [&](const MetricPoint &p) { return chance ? p.chance : p.value; };
        double sum = 0;
        for (std::size_t l = 0; l < 3; ++l) {
            if (!fixture()["layer"][l].contains(key))
                continue;
            compare(key + " layer " + std::to_string(l), pick(m->byLayer[l]), fixture()["layer"][l][key], tolerance);
            sum += fixture()["layer"][l][key].get<double>() / 3;
            ++compared;
        }
        if (key == "silhouette")
            continue;
        compare(key + " overall", pick(m->overall), sum, tolerance);
        for (std::size_t d = 0; d < 3; ++d) {
            const auto &expected = fixture()["domain"][fixture()["domains"][d].get<std::string>()];
            if (!expected[0].contains(key))
                continue;
            double mean = 0;
            int used = 0;
            for (std::size_t l = 0; l < 3; ++l)
                if (!expected[l][key].is_null()) {
                    mean += expected[l][key].get<double>();
                    ++used;
                }
            compare(key + " domain " + std::to_string(d), pick(m->byDomain[d]),
                    used > 0 ? nlohmann::json(mean / used) : nlohmann::json(), tolerance == 2e-6 ? 2e-6 : 2e-2);
            ++compared;
        }
        if (!chance && m->bySequence[2].value && fixture()["sequence_2"][0].contains(key)) {
            double mean = 0;
            for (std::size_t l = 0; l < 3; ++l)
                mean += fixture()["sequence_2"][l][key].get<double>() / 3;
            compare(key + " sequence 2", m->bySequence[2].value, mean, 2e-6);
            ++compared;
        }
    }
    EXPECT_GT(compared, 190);
}

TEST_F(MetricParity, Selection)
{
    const ArrayTrace trace = fixtureTrace(fixture());
    MetricOptions options;
    auto rows = std::make_shared<RowSet>(static_cast<std::size_t>(trace.header.tokens));
    for (std::int64_t t = 0; t < trace.header.tokens; ++t)
        if (t % 3 != 0)
            rows->insert(static_cast<std::size_t>(t));
    options.selection = rows;
    const auto report = evaluateMetrics(trace, options);
    ASSERT_TRUE(report.ok());
    for (const auto &[key, unused] : fixture()["selection"][0].items())
        if (!key.ends_with(".chance"))
            for (std::size_t l = 0; l < 3; ++l)
                if (fixture()["selection"][l].contains(key))
                    compare(key, report->find(key)->byLayer[l].value, fixture()["selection"][l][key], 2e-6);
}

TEST_F(MetricParity, AcrossLayers)
{
    const ArrayTrace trace = fixtureTrace(fixture());
    MetricOptions options;
    options.keys = {"layer_consistency", "layer_consistency_matched", "path_entropy", "path_count"};
    const auto report = evaluateMetrics(trace, options);
    ASSERT_TRUE(report.ok());
    for (const std::string key : {"layer_consistency", "layer_consistency_matched"}) {
        const MetricResult *m = report->find(key);
        EXPECT_FALSE(m->byLayer[0].value.has_value());
        for (std::size_t l = 1; l < 3; ++l)
            compare(key, m->byLayer[l].value, fixture()["cross"][l - 1][key], 1e-12);
    }
    compare("path_count", report->find("path_count")->overall.value, fixture()["path_count"], 0);
    compare("path_entropy", report->find("path_entropy")->overall.value, fixture()["path_entropy"], 1e-12);
    EXPECT_TRUE(findMetric("layer_consistency")->labelDependent);
}

TEST_F(MetricParity, Assignment)
{
    for (const auto &c : fixture()["assignment"]) {
        const std::int64_t rows = c["rows"], columns = c["columns"];
        const auto cost = c["cost"].get<std::vector<double>>();
        const std::vector<int> match = assignMinimum(cost, rows, columns);
        double total = 0;
        std::vector<int> seen(static_cast<std::size_t>(columns), 0);
        for (std::int64_t r = 0; r < rows; ++r)
            if (const int m = match[static_cast<std::size_t>(r)]; m >= 0) {
                total += cost[static_cast<std::size_t>(r * columns + m)];
                EXPECT_EQ(seen[static_cast<std::size_t>(m)]++, 0);
            }
        EXPECT_NEAR(total, c["total"].get<double>(), 1e-9) << rows << "x" << columns;
        EXPECT_EQ(std::count_if(match.begin(), match.end(), [](int m) { return m >= 0; }), std::min(rows, columns));
    }
}

TEST_F(MetricParity, AverageLinkage)
{
    const auto &f = fixture()["linkage"];
    const Dendrogram d = averageLinkage(f["distance"].get<std::vector<double>>(), f["n"]);
    ASSERT_EQ(d.merges.size(), f["merges"].size());
    for (std::size_t i = 0; i < d.merges.size(); ++i) {
        EXPECT_EQ(d.merges[i].first, f["merges"][i][0].get<double>());
        EXPECT_EQ(d.merges[i].second, f["merges"][i][1].get<double>());
        EXPECT_NEAR(d.merges[i].height, f["merges"][i][2].get<double>(), 1e-12);
        EXPECT_EQ(d.merges[i].size, f["merges"][i][3].get<double>());
    }
    EXPECT_EQ(d.order, f["order"].get<std::vector<int>>());
    EXPECT_TRUE(averageLinkage({}, 0).order.empty());
    EXPECT_EQ(averageLinkage(std::vector<double>{0.0}, 1).order, std::vector<int>{0});
}

TEST_F(MetricParity, Gram)
{
    const auto &f = fixture()["gram"];
    const auto v = f["vectors"].get<std::vector<float>>();
    const auto figures = gramFigures(gramMatrix({v.data(), 6, 9}), 6);
    ASSERT_TRUE(figures);
    EXPECT_NEAR(figures->orthogonality, f["orthogonality"].get<double>(), 1e-9);
    EXPECT_NEAR(*figures->offDiagonalMeanAbs, f["offdiag"].get<double>(), 1e-9);
    EXPECT_NEAR(*figures->similarityMean, f["mean"].get<double>(), 1e-9);
    EXPECT_NEAR(*figures->similarityStd, f["std"].get<double>(), 1e-9);
    EXPECT_NEAR(*figures->condition / f["condition"].get<double>(), 1, 1e-7);
    EXPECT_NEAR(*figures->logDet, f["logdet"].get<double>(), 1e-8);
    // The levels that the metrics page derives.
    EXPECT_NEAR(gramOrthogonalityChance(8, 128), 0.941, 1e-3);
    EXPECT_NEAR(gramOrthogonalityChance(8, 32), 0.883, 1e-3);
    EXPECT_NEAR(gramOrthogonalityChance(8, 1), 0.339, 5e-4);
    const std::vector<float> alike(8 * 16, 0.5f);
    EXPECT_NEAR(gramFigures(gramMatrix({alike.data(), 8, 16}), 8)->orthogonality, 0.339, 5e-4);
    EXPECT_FALSE(gramFigures(gramMatrix({alike.data(), 8, 16}), 8)->condition.has_value());
    EXPECT_NEAR(absCosineChance(2), 2 / M_PI, 1e-12);
}

TEST_F(MetricParity, Partitions)
{
    for (const auto &p : fixture()["partitions"]) {
        const auto a = p["a"].get<std::vector<int>>(), b = p["b"].get<std::vector<int>>();
        const auto agreement = partitionAgreement(Contingency::of(a, b));
        ASSERT_TRUE(agreement);
        EXPECT_NEAR(agreement->nmi, p["nmi"].get<double>(), 1e-10);
        EXPECT_NEAR(agreement->ami, p["ami"].get<double>(), 1e-9);
    }
    EXPECT_FALSE(partitionAgreement(Contingency(3, 2)));
}

TEST_F(MetricParity, Percentiles)
{
    const auto &f = fixture()["percentile"];
    const auto interval = percentileInterval(f["values"].get<std::vector<double>>(), 0.95);
    ASSERT_TRUE(interval);
    EXPECT_NEAR(interval->first, f["low"].get<double>(), 1e-12);
    EXPECT_NEAR(interval->second, f["high"].get<double>(), 1e-12);
}

} // namespace
