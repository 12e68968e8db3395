// SPDX-License-Identifier: GPL-3.0-or-later
// What tables, figures and the claims board must not pass over: routing that looks ahead, models without experts, runs that are
// missing or only begun, figures of several sources.
#include "engine/study/effects.h"
#include "engine/study/outputs.h"
#include "engine/study/tabletext.h"
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

#include <cmath>

namespace spectra::test {
namespace {

using study::Cell;
using study::StudySpec;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Routers A, B (looks ahead) and Dense; B's loss is lowest.
Json marksSpec()
{
    return parsed(R"({"name": "m", "base": {"training": {"steps": 10}, "evaluation": {"tokens": 64}}, "seeds": [0, 1, 2], "baseline": "A",
        "axes": [{"name": "router", "title": "Router", "values": [{"label": "A", "set": {"router.type": "switch_top2"}}, {"label": "B", "set": {"router.type": "expert_choice"}}, {"label": "Dense", "set": {"router.type": "dense"}}]}],
        "tables": [{"title": "a <b> | c", "columns": [{"path": "held_out_loss", "title": "loss", "better": "lower"}]},
                   {"title": "Experts only", "rows": ["router"], "where": {"router": "A"}, "baseline": "A", "columns": ["held_out_loss"]}]})");
}

Json resultOfMarks(const StudySpec &, const Cell &cell)
{
    const double loss[] = {3.0, 2.5, 3.5};
    return {{"held_out_loss", loss[cell.point[0]] + 0.01 * static_cast<double>(cell.seed * (1 + cell.point[0]))}, {"causal", cell.point[0] != 1}, {"metrics", {{"load_cv", {{"value", 0.1 + 0.1 * static_cast<double>(cell.point[0])}}}}}};
}

class Marks : public StudyTest {
protected:
    /// `steps` training lines of loss 1 + seed, and an evaluation at each tenth of 1,000.
    void log(const Cell &cell, int steps)
    {
        std::string text;
        for (int step = 1; step <= steps; ++step) {
            text += Json{{"step", step}, {"loss", 1.0 + static_cast<double>(cell.seed)}}.dump() + "\n";
            if (step % 100 == 0)
                text += Json{{"evaluation", step}, {"stage", "training"}, {"held_out_loss", 2.0}, {"metrics", {{"load_cv", {{"value", 0.2}}}, {"sequential_consistency", {{"value", 0.3}}}}}}.dump() + "\n";
        }
        write(study::cellFolder(at("study"), cell) / "log.jsonl", text);
    }
};

TEST_F(Marks, aStudyThatNamesNoFiguresHasTheUsualOnes)
{
    const auto study = finished(marksSpec(), resultOfMarks);
    for (const Cell &cell : study.cells)
        log(cell, 1000);
    const auto outputs = study::makeOutputs(study, {});
    ASSERT_TRUE(outputs) << outputs.error().what;
    ASSERT_EQ(outputs->figures.size(), 5u);
    const double last[] = {2, 2, 0.2, 30}; // mean over seeds 0, 1, 2 of the loss; per cent of the consistency
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_EQ(outputs->figures[i].kind, "curves");
        ASSERT_EQ(outputs->figures[i].series.size(), 3u) << outputs->figures[i].title;
        EXPECT_NEAR(outputs->figures[i].series[0].y.back(), last[i], 1e-12) << outputs->figures[i].title;
    }
    const auto &plane = outputs->figures[4];
    EXPECT_EQ(plane.kind, "plane");
    ASSERT_EQ(plane.series.size(), 3u);
    EXPECT_NEAR(plane.series[0].x[0], 0.1, 1e-12);
    EXPECT_NEAR(plane.series[0].y[0], 3.01, 1e-12);
    EXPECT_TRUE(plane.series[0].front);
    EXPECT_FALSE(plane.series[2].front);
    Json none = marksSpec();
    none["figures"] = Json::array();
    EXPECT_TRUE(study::makeOutputs(finished(none, resultOfMarks), {})->figures.empty()) << "an empty list is an answer";
}

TEST_F(Marks, aSeedThatEndedEarlyLiesOnThePointsOfTheOthers)
{
    const auto study = finished(marksSpec(), [](const StudySpec &spec, const Cell &cell) -> std::optional<Json> {
        return cell.id == "a_s2" ? std::nullopt : std::optional(resultOfMarks(spec, cell));
    });
    for (const Cell &cell : study.cells)
        log(cell, cell.id == "a_s2" ? 700 : 1000);
    const auto figure = study::makeFigure(*study::openStudy(at("study")), study::defaultFigures(study.spec)[0]);
    ASSERT_EQ(figure.series.size(), 3u);
    EXPECT_EQ(figure.series[0].x, figure.series[1].x);
    for (std::size_t i = 0; i < figure.series[0].x.size(); ++i)
        EXPECT_NEAR(figure.series[0].y[i], figure.series[0].x[i] < 699 ? 2.0 : 1.5, figure.series[0].x[i] < 702 && figure.series[0].x[i] > 696 ? 1 : 1e-12) << figure.series[0].x[i];
    ASSERT_EQ(figure.notes.size(), 1u);
    EXPECT_THAT(figure.notes[0], HasSubstr("A, seed 2: as far as it came (not run)"));
}

TEST_F(Marks, rowsThatLookAheadSaySoEverywhere)
{
    const auto study = finished(marksSpec(), resultOfMarks);
    const auto table = study::makeTable(study, study.spec.tables[0]);
    ASSERT_TRUE(table);
    EXPECT_THAT(study::tableLatex(*table), AllOf(HasSubstr("\nB$^\\dagger$ & "), Not(HasSubstr("A$^\\dagger$")), HasSubstr("$^\\dagger$ Not causal")));
    EXPECT_THAT(study::tableHtml(*table), AllOf(HasSubstr("<td>B †</td>"), HasSubstr("<td>A <small>")));
    EXPECT_EQ(study::tableJson(*table)["rows"][1]["causal"], false);
    EXPECT_EQ(study::tableJson(*table)["rows"][0]["causal"], true);
    EXPECT_THAT(study::tableCsv(*table), AllOf(HasSubstr(",reason,causal\n"), HasSubstr(",yes,,no\n"), HasSubstr(",no,,yes\n")));
    const auto figures = study::defaultFigures(study.spec);
    const auto plane = study::makeFigure(study, figures[4]);
    EXPECT_EQ(plane.series[0].label, "A");
    EXPECT_EQ(plane.series[1].label, "B (not causal)");
    for (const Cell &cell : study.cells)
        log(cell, 5);
    EXPECT_EQ(study::makeFigure(study, figures[0]).series[1].label, "B (not causal)");
    const auto claims = study::parseClaims(parsed(R"({"claims": [{"kind": "target", "method": "B", "metric": "load_cv", "value": "<0.1", "source": "s"}]})"), "x");
    const auto board = study::claimsBoard(study, *claims);
    EXPECT_THAT(board[0].reasons, testing::Contains(HasSubstr("not causal")));
}

TEST_F(Marks, aDenseModelHasOtherExperts)
{
    Json spec = marksSpec();
    const auto study = finished(spec, resultOfMarks);
    const auto answer = [&](const study::StudyTable &table, const char *question) {
        for (const auto &[asked, yes] : table.comparability.answers)
            if (asked == question)
                return yes;
        ADD_FAILURE() << question;
        return false;
    };
    const auto all = study::makeTable(study, study.spec.tables[0]), alone = study::makeTable(study, study.spec.tables[1]);
    ASSERT_TRUE(all && alone);
    EXPECT_FALSE(answer(*all, "same expert architecture"));
    ASSERT_EQ(all->comparability.differences.size(), 1u);
    EXPECT_EQ(all->comparability.differences[0].key, "router.type");
    EXPECT_TRUE(all->comparability.differences[0].declared);
    EXPECT_TRUE(answer(*alone, "same expert architecture"));
    EXPECT_TRUE(answer(*all, "same evaluation"));
    // Other held-out text is named too.
    for (const Cell &cell : study.cells) {
        Json config = cell.config;
        if (cell.point[0] == 1)
            config["evaluation"]["tokens"] = 32;
        write(study::cellFolder(at("study"), cell) / "config.json", config.dump());
    }
    const auto again = study::makeTable(*study::openStudy(at("study")), study.spec.tables[0]);
    EXPECT_FALSE(answer(*again, "same evaluation"));
    EXPECT_TRUE(answer(*again, "same hyper-parameters"));
}

TEST_F(Marks, changesStandBesideTheMeans)
{
    const auto study = finished(marksSpec(), resultOfMarks);
    const auto table = study::makeTable(study, study.spec.tables[0]);
    ASSERT_TRUE(table);
    const std::string tex = study::tableLatex(*table), html = study::tableHtml(*table);
    EXPECT_NEAR(*table->rows[1].cells[0].difference, -0.49, 1e-12);
    EXPECT_THAT(tex, HasSubstr("$\\Delta=-0.490$, $-16.3$\\,\\%"));
    EXPECT_THAT(html, HasSubstr("Δ -0.490, -16.3 %"));
    EXPECT_THAT(tex, AllOf(HasSubstr("% a \\textless{}b\\textgreater{} \\textbar{} c"), HasSubstr("(n \\textless{} 2)"), Not(HasSubstr("n < 2")))) << "the usual encoding of fonts has other glyphs there";
}

TEST_F(Marks, effectsAreHeldAgainstTheWholeDesign)
{
    Json spec = parsed(R"({"name": "f", "base": {"router": {"type": "spectra"}}, "seeds": [0, 1, 2]})");
    for (const char *name : {"A", "B"})
        spec["factorial"]["factors"].push_back({{"name", name}, {"on", {{std::string("router.") + name, 1}}}, {"off", {{std::string("router.") + name, 0}}}});
    spec["factorial"]["columns"] = parsed(R"(["y"])");
    // All on: 4; each part adds 1, both together 1 more; a little noise between seeds.
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) {
        const double a = cell.point[0] == 0 ? 1 : 0, b = cell.point[1] == 0 ? 1 : 0, noise[] = {-0.02, 0.01, 0.01};
        return Json{{"y", 1 + a + b + a * b * (1 + noise[cell.seed]) + 0.03 * a * noise[cell.seed]}};
    });
    const auto all = study::factorialEffects(study);
    ASSERT_TRUE(all);
    const auto &one = all->front();
    ASSERT_EQ(one.effects.size(), 3u);
    EXPECT_NEAR(one.effects[0].value->mean, 1.5, 1e-12);
    EXPECT_NEAR(*one.effects[0].relative, 1.5 / 4, 1e-12);
    ASSERT_TRUE(one.together && one.together->adjusted);
    EXPECT_NEAR(*one.together->relative, 1.0 / 4, 1e-12);
    std::vector<double> p;
    for (const auto &e : one.effects)
        p.push_back(e.test->p);
    p.push_back(one.together->test->p);
    const auto adjusted = holm(p);
    EXPECT_EQ(*one.together->adjusted, adjusted[3]) << "one family of four tests";
    EXPECT_EQ(*one.effects[0].adjusted, adjusted[0]);
    EXPECT_THAT(study::effectsLatex(*all), HasSubstr("$+37.5$\\,\\%"));
    EXPECT_THAT(study::effectsCsv(*all), HasSubstr(",0.37"));
    EXPECT_THAT(study::effectsHtml(*all), HasSubstr("+25.0 %"));
}

TEST_F(Marks, everyFigureOfAClaimIsShown)
{
    const auto claims = study::parseClaims(parsed(R"({"claims": [
        {"kind": "estimate", "method": "A", "metric": "load_cv", "value": "0.8-1.2", "source": "table 5"},
        {"kind": "estimate", "method": "A", "metric": "load_cv", "value": "0.8-1.2", "source": "table"},
        {"kind": "estimate", "method": "A", "metric": "load_cv", "value": 1.2, "source": "table 5"},
        {"kind": "published", "method": "A", "metric": "MMLU", "value": 25, "unit": "%", "source": "paper"}]})"), "x");
    ASSERT_TRUE(claims);
    const auto study = finished(marksSpec(), [](const StudySpec &spec, const Cell &cell) {
        Json result = resultOfMarks(spec, cell);
        result["tasks"]["mmlu"]["metrics"]["acc"]["value"] = 0.25 + 0.01 * static_cast<double>(cell.seed);
        return result;
    });
    const auto board = study::claimsBoard(study, *claims);
    EXPECT_THAT(study::claimsCsv(board), HasSubstr(",0.8-1.2; 1.2,")) << "1.2 is no part of the range";
    EXPECT_THAT(study::claimsCsv(board), HasSubstr(",table 5; table\n"));
    EXPECT_EQ(board[0].verdicts.size(), 2u) << "one figure of two sources has one verdict";
    ASSERT_TRUE(board[1].measured) << "a study's task scores are held against claims too";
    EXPECT_NEAR(board[1].measured->mean, 26, 1e-12);
    EXPECT_FALSE(board[1].comparable);
}

TEST_F(Marks, aLawSaysWhichRunsItLacks)
{
    Json spec = parsed(R"({"name": "s", "base": {}, "seeds": [0, 1], "axes": [{"name": "E", "title": "experts", "values": []}],
        "scaling": {"title": "experts", "x": "config.model.experts", "y": "held_out_loss"}})");
    for (const int e : {2, 4, 8, 16})
        spec["axes"][0]["values"].push_back({{"label", std::to_string(e)}, {"set", {{"model.experts", e}}}});
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) -> std::optional<Json> {
        const double e = cell.config["model"]["experts"].get<double>();
        return e == 16 && cell.seed == 1 ? std::nullopt : std::optional(Json{{"held_out_loss", 2 / e + 3}});
    });
    EXPECT_THAT(study::scalingFigure(study, study.spec.scaling[0]).notes.at(0), HasSubstr("1 of 8 runs are not in it (e-16_s1: not run)"));
    EXPECT_EQ(study::scalingJson(study, study.spec.scaling[0])["laws"][0]["missing"].size(), 1u);
}

} // namespace
} // namespace spectra::test
