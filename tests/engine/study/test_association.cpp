// SPDX-License-Identifier: GPL-3.0-or-later
// Routing figures against loss and task scores: rank correlation and regression as SciPy 1.17.1 gives them, over configurations.
#include "engine/study/outputs.h"
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

#include <cmath>

namespace spectra::test {
namespace {

using study::Cell;
using study::StudySpec;
using testing::HasSubstr;

const std::vector<double> kCv = {0.21, 0.35, 0.35, 0.12, 0.80, 0.05, 0.44};
const std::vector<double> kLoss = {3.91, 3.90, 4.02, 3.95, 4.30, 3.85, 3.99};

TEST(Correlation, equalsSciPy)
{
    // spearmanr, permutation_test of all pairings, linregress.
    EXPECT_NEAR(*spearman(kCv, kLoss), 0.7567874686642697, 1e-14);
    EXPECT_NEAR(*spearmanP(kCv, kLoss), 0.05714285714285714, 1e-14);
    const auto line = regress(kCv, kLoss);
    EXPECT_NEAR(line->slope, 0.5441652535840908, 1e-13);
    EXPECT_NEAR(line->intercept, 3.8082195159549874, 1e-13);
    EXPECT_NEAR(line->r2, 0.8272624225460128, 1e-12);
    EXPECT_NEAR(*line->half, 0.28585711298541816, 1e-12);
    const std::vector<double> x = {0, 0.008, 0.033, 0.074, 0.132, 0.207, 0.298, 0.405, 0.529, 0.669, 0.826, 1}, y = {3, 1, 4, 1.5, 5, 9, 2, 6, 5.3, 5.8, 9.7, 9.3};
    EXPECT_NEAR(*spearman(x, y), 0.7832167832167832, 1e-14);
    const double p = *spearmanP(x, y, 20000, 3);
    EXPECT_GT(p, 0.001);
    EXPECT_LT(p, 0.007) << "0.0026 by the t approximation";
    EXPECT_EQ(p, *spearmanP(x, y, 20000, 3));
}

TEST(Correlation, saysNothingWhereThereIsNothing)
{
    const std::vector<double> flat = {2, 2, 2}, three = {1, 2, 3}, two = {1, 2};
    EXPECT_FALSE(spearman(flat, three));
    EXPECT_FALSE(spearmanP(three, flat));
    EXPECT_FALSE(spearman(two, three));
    EXPECT_EQ(*spearman(two, two), 1);
    EXPECT_FALSE(spearmanP(two, two)) << "two points are always in order";
    EXPECT_EQ(*spearmanP(three, three), 2.0 / 6);
    EXPECT_FALSE(regress(flat, three));
    EXPECT_FALSE(regress(two, two)->half);
    EXPECT_EQ(regress(three, flat)->r2, 0);
    EXPECT_EQ(ranks(std::vector<double>{5, 1, 5, 7}), (std::vector<double>{2.5, 1, 2.5, 4}));
}

class Associations : public StudyTest {
protected:
    static Json spec()
    {
        Json spec = parsed(R"({"name": "a", "base": {}, "seeds": [0, 1], "axes": [{"name": "router", "values": []}],
            "tasks": [{"task": "piqa", "data": "/nowhere.jsonl"}],
            "tables": [{"title": "t", "columns": ["held_out_loss", "metrics.load_cv.value", {"path": "metrics.gini.value", "title": "Gini"}]},
                       {"title": "u", "columns": ["metrics.load_cv.value", "tasks.piqa.metrics.acc.value"]}]})");
        for (std::size_t i = 0; i < kCv.size(); ++i)
            spec["axes"][0]["values"].push_back({{"label", fmt(i)}, {"set", {{"router.type", fmt(i)}}}});
        return spec;
    }
    static std::string fmt(std::size_t i) { return "r" + std::to_string(i); }
};

TEST_F(Associations, areOverConfigurationsNotOverSeeds)
{
    const auto study = finished(spec(), [](const StudySpec &, const Cell &cell) -> std::optional<Json> {
        const double off = cell.seed == 0 ? -0.01 : 0.01; // gone in the mean
        return Json{{"held_out_loss", kLoss[cell.point[0]] + off}, {"metrics", {{"load_cv", {{"value", kCv[cell.point[0]] - off}}}, {"gini", {{"value", cell.point[0] < 2 ? Json(0.1) : Json(nullptr)}}}}}};
    });
    const auto all = study::associations(study);
    ASSERT_EQ(all.size(), 4u) << "two routing figures, each once, against loss and task";
    EXPECT_EQ(all[0].routing.path, "metrics.load_cv.value");
    EXPECT_EQ(all[0].configurations, 7u);
    EXPECT_NEAR(*all[0].rho, 0.7567874686642697, 1e-12);
    EXPECT_NEAR(*all[0].p, 0.05714285714285714, 1e-12);
    EXPECT_EQ(*all[0].adjusted, *all[0].p) << "the only pair that could be tested";
    EXPECT_NEAR(all[0].line->slope, 0.5441652535840908, 1e-9);
    EXPECT_EQ(all[1].outcome.path, "tasks.piqa.metrics.acc.value");
    EXPECT_FALSE(all[1].rho);
    EXPECT_EQ(all[1].reason, "0 configurations measured both");
    EXPECT_EQ(all[2].reason, "2 configurations measured both");
    const auto outputs = study::makeOutputs(study, {});
    ASSERT_TRUE(outputs);
    ASSERT_TRUE(study::writeOutputs(study, *outputs, at("study")));
    EXPECT_THAT(read(at("study/tables/associations.csv")), HasSubstr("\nmetrics.load_cv.value,metrics.load_cv.value,held_out_loss,held_out_loss,7,0.756"));
    EXPECT_THAT(read(at("study/tables/associations.html")), HasSubstr("<td class=n>+0.76</td><td class=n>0.0571</td>"));
    EXPECT_EQ(Json::parse(read(at("study/table.json")))["associations"][1]["rho"], nullptr);
}

TEST_F(Associations, twoConfigurationsHaveNone)
{
    Json two = spec();
    while (two["axes"][0]["values"].size() > 2)
        two["axes"][0]["values"].erase(2);
    const auto study = finished(two, [](const StudySpec &, const Cell &) { return Json{{"held_out_loss", 3}}; });
    EXPECT_TRUE(study::associations(study).empty());
}

} // namespace
} // namespace spectra::test
