// SPDX-License-Identifier: GPL-3.0-or-later
// Factorial effects against least squares; curves, planes, drift and scaling laws from the runs' files.
#include "engine/study/effects.h"
#include "engine/study/figures.h"
#include "engine/study/outputs.h"
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

#include <cmath>

namespace spectra::test {
namespace {

using study::Cell;
using study::StudySpec;
using testing::Each;
using testing::HasSubstr;
using testing::Truly;

class Outputs : public StudyTest {};

Json designSpec()
{
    Json spec = parsed(R"({"name": "f", "base": {"router": {"type": "spectra"}}, "seeds": [0, 1, 2, 3]})");
    for (const char *name : {"A", "B", "C"})
        spec["factorial"]["factors"].push_back({{"name", name}, {"on", {{std::string("router.") + name, 1}}}, {"off", {{std::string("router.") + name, 0}}}});
    spec["factorial"]["columns"] = parsed(R"([{"path": "y", "title": "outcome"}])");
    spec["factorial"]["order"] = 3;
    return spec;
}

TEST_F(Outputs, effectsEqualLeastSquares)
{
    std::ifstream file(std::string(SPECTRA_TEST_DIR) + "/fixtures/study/effects.json");
    const Json fixture = Json::parse(file);
    const auto value = [&](const Cell &cell) {
        for (std::size_t p = 0; p < fixture["points"].size(); ++p) {
            bool same = true;
            for (std::size_t f = 0; f < 3; ++f)
                same = same && (fixture["points"][p][f] == 1) == (cell.point[f] == 0);
            if (same)
                return fixture["y"][std::to_string(cell.seed)][p].get<double>();
        }
        return std::nan("");
    };
    const auto study = finished(designSpec(), [&](const StudySpec &, const Cell &cell) { return Json{{"y", value(cell)}}; });
    const auto all = study::factorialEffects(study);
    ASSERT_TRUE(all);
    ASSERT_EQ(all->size(), 1u);
    const auto &one = all->front();
    EXPECT_EQ(one.seeds, 4u);
    ASSERT_EQ(one.effects.size(), fixture["effects"].size());
    for (std::size_t i = 0; i < one.effects.size(); ++i) {
        const Json &expected = fixture["effects"][i];
        EXPECT_EQ(one.effects[i].name, expected["name"]);
        EXPECT_NEAR(one.effects[i].value->mean, expected["mean"], 1e-12);
        EXPECT_NEAR(*one.effects[i].value->half, expected["half"], 1e-9);
        EXPECT_NEAR(one.effects[i].test->p, expected["p"], 1e-9);
        EXPECT_TRUE(one.effects[i].aliases.empty());
    }
    ASSERT_TRUE(one.together);
    EXPECT_NEAR(one.together->value->mean, fixture["together"]["mean"], 1e-12);
    EXPECT_NEAR(one.together->test->p, fixture["together"]["p"], 1e-9);
    EXPECT_THAT(study::effectsHtml(*all), HasSubstr("A × B"));
    EXPECT_THAT(study::effectsLatex(*all), HasSubstr("A $\\times$ B"));
}

TEST_F(Outputs, aFractionNamesWhatItCannotTellApart)
{
    Json spec = designSpec();
    spec["factorial"]["generators"] = parsed(R"(["C = A B"])");
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) { return Json{{"y", cell.point[0] == 0 ? 2 : 1}}; });
    const auto all = study::factorialEffects(study);
    ASSERT_TRUE(all);
    const auto &one = all->front();
    ASSERT_EQ(one.effects.size(), 3u) << "the three-factor word is the mean itself";
    EXPECT_EQ(one.effects[0].name, "A");
    EXPECT_EQ(one.effects[0].aliases, std::vector<std::string>{"B × C"});
    EXPECT_EQ(one.effects[0].value->mean, 1);
    EXPECT_EQ(one.effects[2].aliases, std::vector<std::string>{"A × B"});
    EXPECT_FALSE(one.together);
}

TEST_F(Outputs, aDesignWithAHoleHasNoEffects)
{
    const auto study = finished(designSpec(), [](const StudySpec &, const Cell &cell) -> std::optional<Json> {
        if (cell.point[0] == 1 && cell.point[1] == 0 && cell.point[2] == 1)
            return std::nullopt;
        return Json{{"y", 1}};
    });
    const auto all = study::factorialEffects(study);
    ASSERT_TRUE(all);
    EXPECT_THAT(all->front().reason, HasSubstr("every run of the design"));
    for (const auto &e : all->front().effects)
        EXPECT_FALSE(e.value);
}

Json curveSpec()
{
    return parsed(R"({"name": "c", "base": {}, "seeds": [0, 1, 2], "axes": [{"name": "router", "title": "Router", "values": [{"label": "A", "set": {"router.type": "a"}}, {"label": "B", "set": {"router.type": "b"}}]}],
        "figures": [{"kind": "curves", "title": "loss", "y": "loss"}, {"kind": "curves", "title": "cv", "y": {"path": "metrics.load_cv.value", "scale": 100}},
                    {"kind": "drift", "title": "drift", "y": "metrics.load_cv.value"},
                    {"kind": "plane", "title": "plane", "x": {"path": "cv", "better": "lower"}, "y": {"path": "held_out_loss", "better": "lower"}}]})");
}

TEST_F(Outputs, curvesAreMeansOverSeeds)
{
    const auto study = finished(curveSpec(), [](const StudySpec &, const Cell &cell) -> std::optional<Json> {
        if (cell.id == "b_s2")
            return std::nullopt;
        return Json{{"held_out_loss", cell.point[0] == 0 ? 3.0 : 3.5}, {"cv", cell.point[0] == 0 ? 0.3 : 0.1}};
    });
    for (const Cell &cell : study.cells) {
        if (cell.id == "b_s2")
            continue;
        std::string log;
        for (int step = 1; step <= 1000; ++step) {
            log += Json{{"step", step}, {"loss", 5.0 + static_cast<double>(cell.seed)}, {"tokens", 10}}.dump() + "\n";
            if (step % 100 == 0)
                log += Json{{"evaluation", step}, {"stage", "training"}, {"metrics", {{"load_cv", {{"value", 0.2 + 1e-4 * step}}}}}}.dump() + "\n";
        }
        log += Json{{"evaluation", 1000}, {"stage", "calibrated"}, {"metrics", {{"load_cv", {{"value", 0.01}}}}}}.dump() + "\n";
        log += "{\"step\": 1001, \"lo"; // torn by a kill
        write(study::cellFolder(at("study"), cell) / "log.jsonl", log);
    }
    const auto again = study::openStudy(at("study"));
    const auto loss = study::makeFigure(*again, again->spec.figures[0]);
    ASSERT_EQ(loss.series.size(), 2u);
    EXPECT_EQ(loss.series[0].label, "A");
    EXPECT_EQ(loss.series[0].x.size(), 400u) << "long runs in bins";
    EXPECT_NEAR(loss.series[0].y[0], 6, 1e-12);
    EXPECT_NEAR(loss.series[0].high[0] - loss.series[0].y[0], 4.302652729911275 / std::sqrt(3.0), 1e-9) << "t at 2 degrees of freedom";
    ASSERT_EQ(loss.notes.size(), 1u);
    EXPECT_THAT(loss.notes[0], HasSubstr("B, seed 2: not run"));
    const auto cv = study::makeFigure(*again, again->spec.figures[1]);
    EXPECT_EQ(cv.series[0].x.size(), 10u);
    EXPECT_NEAR(cv.series[0].y.back(), 30, 1e-9) << "the calibrated model is no point of the curve";
    const auto drift = study::drifts(*again, again->spec.figures[2]);
    EXPECT_NEAR(drift[0].slope->mean, 0.1, 1e-9) << "per 1,000 steps";
    const auto picture = study::makeFigure(*again, again->spec.figures[2]);
    EXPECT_TRUE(picture.series[0].points);
    EXPECT_EQ(picture.series[0].x.front(), 500) << "the last half";
    EXPECT_EQ(picture.series[1].x.size(), 2u);
    EXPECT_THAT(study::figureCsv(cv), HasSubstr("A,100,21"));
}

TEST_F(Outputs, thePlaneMarksItsFront)
{
    Json spec = curveSpec();
    spec["axes"][0]["values"].push_back({{"label", "C"}, {"set", {{"router.type", "c"}}}});
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) {
        const double cv[] = {0.3, 0.1, 0.35}, loss[] = {3.0, 3.5, 3.2};
        return Json{{"held_out_loss", loss[cell.point[0]] + 0.01 * static_cast<double>(cell.seed)}, {"cv", cv[cell.point[0]]}};
    });
    const auto plane = study::makeFigure(study, study.spec.figures[3]);
    ASSERT_EQ(plane.series.size(), 3u);
    EXPECT_TRUE(plane.series[0].front);
    EXPECT_TRUE(plane.series[1].front);
    EXPECT_FALSE(plane.series[2].front) << "A is better in both";
    EXPECT_NEAR(plane.series[0].y[0], 3.01, 1e-12);
    EXPECT_LT(plane.series[0].low[0], 3.01);
}

TEST_F(Outputs, lawsAndLinesAlongAnAxis)
{
    Json spec = parsed(R"({"name": "s", "base": {}, "seeds": [0, 1, 2], "axes": [{"name": "E", "title": "experts", "values": []}, {"name": "router", "values": [{"label": "A", "set": {"router.type": "a"}}, {"label": "B", "set": {"router.type": "b"}}]}],
        "figures": [{"kind": "lines", "title": "l", "x": "E", "y": "held_out_loss", "log_x": true}],
        "scaling": {"title": "experts", "x": "config.model.experts", "y": "held_out_loss", "by": "router"}})");
    for (const int e : {2, 4, 8, 16, 32})
        spec["axes"][0]["values"].push_back({{"label", std::to_string(e)}, {"set", {{"model.experts", e}}}});
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) -> std::optional<Json> {
        const double e = cell.config["model"]["experts"].get<double>();
        if (cell.point[1] == 1 && e > 4)
            return std::nullopt;
        return Json{{"held_out_loss", 2 * std::pow(e, -0.5) + 3 + 0.001 * static_cast<double>(cell.seed)}};
    });
    const auto laws = study::scalingLaws(study, study.spec.scaling[0]);
    ASSERT_EQ(laws.size(), 2u);
    ASSERT_TRUE(laws[0].fit);
    EXPECT_NEAR(laws[0].fit->law.b, 0.5, 1e-3);
    EXPECT_NEAR(laws[0].fit->law.a, 2, 1e-2);
    EXPECT_NEAR(laws[0].fit->law.c, 3.001, 1e-2);
    ASSERT_TRUE(laws[0].fit->c);
    EXPECT_LT(laws[0].fit->c->first, 3.0011);
    EXPECT_FALSE(laws[1].fit) << "two sizes have no law with an offset";
    EXPECT_FALSE(laws[1].reason.empty());
    const auto figure = study::scalingFigure(study, study.spec.scaling[0]);
    EXPECT_THAT(figure.notes[0], HasSubstr("b = 0.500"));
    const auto lines = study::makeFigure(study, study.spec.figures[0]);
    ASSERT_EQ(lines.series.size(), 2u);
    EXPECT_EQ(lines.series[0].x, (std::vector<double>{2, 4, 8, 16, 32}));
    EXPECT_EQ(lines.xTitle, "experts");
    EXPECT_EQ(lines.series[1].x.size(), 2u);
    EXPECT_EQ(lines.notes.size(), 3u);
}

Json claimsFile()
{
    return parsed(R"({"about": "x", "claims": [
        {"kind": "target", "method": "SPECTRA", "metric": "load_cv", "value": "<0.1", "unit": "", "source": "drafts"},
        {"kind": "estimate", "method": "SPECTRA", "metric": "load_cv", "value": "0.05-0.1", "unit": "", "source": "table 2"},
        {"kind": "published", "method": "SPECTRA", "metric": "load_cv", "value": 0.3, "unit": "", "source": "authors"},
        {"kind": "target", "method": "SPECTRA", "metric": "sequential_consistency", "value": ">45", "unit": "%", "source": "drafts"},
        {"kind": "estimate", "method": "Switch top-2", "metric": "collapse", "value": "partial", "unit": "", "source": "drafts"},
        {"kind": "published", "method": "GLaM", "metric": "MMLU", "value": 50, "unit": "%", "source": "paper"}]})");
}

TEST_F(Outputs, theClaimsBoardKeepsTheThreeKindsApart)
{
    const auto claims = study::parseClaims(claimsFile(), "reference.json");
    ASSERT_TRUE(claims) << claims.error().what;
    Json spec = parsed(R"({"name": "b", "base": {}, "claims": {"SPECTRA": "ours"}, "axes": [{"name": "router", "values": [{"label": "ours", "set": {"router.type": "spectra"}}, {"label": "switch TOP-2", "set": {"router.type": "switch_top2"}}]}]})");
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) {
        const double d = 0.001 * static_cast<double>(cell.seed);
        return Json{{"metrics", {{"load_cv", {{"value", 0.08 + d}}}, {"sequential_consistency", {{"value", 0.30 + d}, {"chance", 0.13}}}, {"collapse_rate", {{"value", 0.0}}}}}};
    });
    const auto board = study::claimsBoard(study, *claims);
    ASSERT_EQ(board.size(), 4u);
    EXPECT_EQ(board[0].targets.size(), 1u);
    EXPECT_EQ(board[0].estimates.size(), 1u);
    EXPECT_EQ(board[0].published.size(), 1u);
    EXPECT_EQ(board[0].row, "ours");
    EXPECT_NEAR(board[0].measured->mean, 0.081, 1e-12);
    EXPECT_TRUE(board[0].comparable);
    EXPECT_THAT(board[0].verdicts[0], HasSubstr("target <0.1: met (significant"));
    EXPECT_THAT(board[0].verdicts[1], HasSubstr("inside"));
    EXPECT_THAT(board[0].verdicts[2], HasSubstr("lower by 0.219"));
    EXPECT_NEAR(board[1].measured->mean, 30.1, 1e-9) << "per cent as the claim";
    EXPECT_NEAR(*board[1].chance, 13, 1e-9);
    EXPECT_LT(board[1].againstChance->p, 0.01);
    EXPECT_THAT(board[1].verdicts[0], HasSubstr("missed"));
    EXPECT_TRUE(board[2].measured);
    EXPECT_FALSE(board[2].comparable) << "a word";
    EXPECT_FALSE(board[3].measured);
    EXPECT_THAT(board[3].reasons[0], HasSubstr("no such method"));
    const std::string html = study::claimsHtml(board), csv = study::claimsCsv(board);
    EXPECT_THAT(html, HasSubstr("<th class=n>Target</th><th class=n>Estimate</th><th class=n>Published</th><th class=n>Measured</th>"));
    EXPECT_THAT(html, HasSubstr("&lt;0.1"));
    EXPECT_THAT(csv, HasSubstr("SPECTRA,load_cv,,<0.1,0.05-0.1,0.3,0.081"));
    EXPECT_EQ(study::claimsJson(board)[3]["measured"], nullptr);
}

TEST(Claims, numbersOfTheirTexts)
{
    const auto one = [](const char *value) {
        Json json = claimsFile();
        json["claims"] = Json::array({json["claims"][0]});
        json["claims"][0]["value"] = parsed(value);
        const auto claims = study::parseClaims(json, "x");
        return claims ? claims->front() : study::Claim{};
    };
    EXPECT_EQ(one(R"("8-20")").low, 8);
    EXPECT_EQ(one(R"("8-20")").high, 20);
    EXPECT_EQ(one(R"(">=2.7")").low, 2.7);
    EXPECT_FALSE(one(R"(">=2.7")").high);
    EXPECT_EQ(one(R"("<0.05-0.1")").high, 0.1);
    EXPECT_FALSE(one(R"("<0.05-0.1")").low);
    EXPECT_EQ(one("1e-06").low, 1e-6);
    EXPECT_EQ(one("1e-06").high, 1e-6);
    EXPECT_FALSE(one(R"("partial")").low);
}

TEST(Claims, damagedFilesAreRefused)
{
    const auto fails = [](const std::function<void(Json &)> &damage) {
        Json json = claimsFile();
        damage(json);
        const auto claims = study::parseClaims(json, "reference.json");
        EXPECT_FALSE(claims.ok());
        return claims.ok() ? Error{} : claims.error();
    };
    EXPECT_THAT(fails([](Json &j) { j["claims"][1]["kind"] = "measured"; }).where, HasSubstr("claims[1]"));
    EXPECT_THAT(fails([](Json &j) { j["claims"][1].erase("source"); }).what, HasSubstr("source"));
    EXPECT_THAT(fails([](Json &j) { j["claims"][1]["valeu"] = 1; }).mend, HasSubstr("\"value\""));
    EXPECT_THAT(fails([](Json &j) { j["claims"][0]["value"] = nullptr; }).what, HasSubstr("neither"));
    EXPECT_EQ(fails([](Json &j) { j = Json::array(); }).kind, ErrorKind::input);
}

TEST_F(Outputs, everythingIsWritten)
{
    Json spec = curveSpec();
    spec["tables"] = parsed(R"([{"title": "Loss & more", "baseline": "B", "columns": ["held_out_loss"]}])");
    const auto study = finished(spec, [](const StudySpec &, const Cell &cell) { return Json{{"held_out_loss", 3.0 + 0.1 * static_cast<double>(cell.seed)}, {"cv", 0.1}}; });
    const auto claims = study::parseClaims(claimsFile(), "x");
    const auto outputs = study::makeOutputs(study, *claims);
    ASSERT_TRUE(outputs);
    ASSERT_TRUE(study::writeOutputs(study, *outputs, at("study")));
    ASSERT_TRUE(study::writeOutputs(study, *outputs, at("study"))) << "and replaced";
    for (const char *name : {"table.csv", "table.tex", "table.json", "tables/01-loss-more.csv", "tables/01-loss-more.html", "tables/claims.csv", "figures/04-plane.csv"})
        EXPECT_TRUE(fs::exists(at("study") / name)) << name;
    EXPECT_EQ(Json::parse(read(at("study/table.json")))["tables"][0]["baseline"], "B");
    const auto full = study::writeOutputs(study, *outputs, "/dev/full/x");
    EXPECT_EQ(full.error().kind, ErrorKind::work);
}

} // namespace
} // namespace spectra::test
