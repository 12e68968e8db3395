// SPDX-License-Identifier: GPL-3.0-or-later
// Tables against SciPy, and what they say when numbers are missing or runs differ.
#include "engine/study/tabletext.h"
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

namespace spectra::test {
namespace {

using study::Cell;
using study::StudySpec;
using study::StudyTable;
using testing::HasSubstr;
using testing::Not;

const Json &fixture()
{
    static const Json f = [] {
        std::ifstream file(std::string(SPECTRA_TEST_DIR) + "/fixtures/study/table.json");
        return Json::parse(file);
    }();
    return f;
}

Json specOfFixture()
{
    Json spec = parsed(R"({"name": "t", "base": {"model": {"hidden": 8}, "training": {"steps": 10}}, "baseline": "B",
        "tables": [{"title": "Main & more", "columns": [{"path": "held_out_loss", "title": "loss", "better": "lower", "unit": "nats"},
                                                 {"path": "metrics.load_cv.value", "title": "CV", "better": "lower"}]}]})");
    spec["axes"] = parsed(R"([{"name": "router", "values": []}])");
    for (const auto &m : fixture()["methods"])
        spec["axes"][0]["values"].push_back({{"label", m}, {"set", {{"router.type", m}}}});
    spec["seeds"] = fixture()["seeds"];
    return spec;
}

Json resultOf(const StudySpec &spec, const Cell &cell)
{
    const Json &v = fixture()["values"][cell.label(spec, {"router"})];
    return {{"held_out_loss", v["loss"][cell.seed]}, {"metrics", {{"load_cv", {{"value", v["cv"][cell.seed]}, {"chance", 0.05}}}}}};
}

class Tables : public StudyTest {
protected:
    StudyTable table(const study::Study &study, std::size_t index = 0)
    {
        auto made = study::makeTable(study, study.spec.tables[index]);
        EXPECT_TRUE(made) << (made ? "" : made.error().what);
        return made ? std::move(*made) : StudyTable{};
    }
};

TEST_F(Tables, areMadeWhereTheTextsAreNot)
{
    Json spec = specOfFixture();
    spec["base"]["data"] = {{"domains", {{"law", "$DATA/law.txt"}}}};
    const auto study = finished(spec, resultOf);
    EXPECT_EQ(study.spec.base["data"]["domains"]["law"], "$DATA/law.txt");
    EXPECT_TRUE(table(study).rows[0].cells[0].mean);
    study::SpecOptions options;
    options.folder = at("study");
    EXPECT_EQ(study::parseSpec(spec, "spec", options).error().mend, "give --data DIR") << "to be run, they must be there";
}

TEST_F(Tables, equalSciPy)
{
    const auto study = finished(specOfFixture(), resultOf);
    const StudyTable t = table(study);
    ASSERT_EQ(t.rows.size(), 4u);
    EXPECT_EQ(t.tests, 6u);
    for (const auto &row : t.rows)
        for (std::size_t c = 0; c < 2; ++c) {
            const Json &expected = fixture()["cells"][row.label][c == 0 ? "loss" : "cv"];
            const auto &cell = row.cells[c];
            ASSERT_TRUE(cell.mean);
            EXPECT_NEAR(cell.mean->mean, expected["mean"], 1e-12);
            EXPECT_NEAR(*cell.mean->half, expected["half"], 1e-9);
            EXPECT_EQ(cell.test.has_value(), row.label != "B");
            if (!cell.test)
                continue;
            EXPECT_EQ(cell.testName, "paired t");
            EXPECT_NEAR(cell.test->statistic, expected["t"], 1e-8);
            EXPECT_NEAR(cell.test->p, expected["p"], 1e-10);
            EXPECT_NEAR(*cell.adjusted, expected["p_holm"], 1e-10);
            EXPECT_NEAR(*cell.difference, expected["difference"], 1e-12);
            EXPECT_NEAR(*cell.test->half, expected["difference_half"], 1e-9);
            EXPECT_NEAR(*cell.relative, expected["relative"], 1e-12);
        }
    ASSERT_EQ(t.summary.size(), 3u);
    const char *keys[] = {"average", "over_average", "over_best"};
    for (std::size_t s = 0; s < 3; ++s)
        for (std::size_t c = 0; c < 2; ++c) {
            const Json &expected = fixture()["summary"][c == 0 ? "loss" : "cv"][keys[s]];
            EXPECT_NEAR(t.summary[s].values[c]->mean, expected[0], 1e-10) << keys[s];
            EXPECT_NEAR(*t.summary[s].values[c]->half, expected[1], 1e-8) << keys[s];
        }
    EXPECT_EQ(t.rows[0].cells[1].chance, 0.05);
    EXPECT_TRUE(t.rows[0].cells[0].best);
    EXPECT_FALSE(t.rows[1].cells[0].best);
}

TEST_F(Tables, formats)
{
    const auto study = finished(specOfFixture(), resultOf);
    const StudyTable t = table(study);
    const std::string tex = study::tableLatex(t), html = study::tableHtml(t), csv = study::tableCsv(t);
    EXPECT_THAT(tex, HasSubstr("\\textbf{"));
    EXPECT_THAT(tex, HasSubstr("Main \\& more"));
    EXPECT_THAT(tex, HasSubstr("Average of all rows"));
    EXPECT_THAT(tex, HasSubstr("Improvement of A over the best other"));
    EXPECT_THAT(html, HasSubstr("Main &amp; more"));
    EXPECT_THAT(html, HasSubstr("same data order: yes"));
    EXPECT_THAT(html, HasSubstr("chance 0.0500"));
    // Every line of the CSV has the header's number of fields.
    std::istringstream lines(csv);
    std::string line;
    std::size_t rows = 0, fields = 0;
    while (std::getline(lines, line)) {
        std::size_t commas = 0;
        bool quoted = false;
        for (const char c : line) {
            quoted = c == '"' ? !quoted : quoted;
            commas += c == ',' && !quoted;
        }
        if (rows++ == 0)
            fields = commas;
        EXPECT_EQ(commas, fields) << line;
    }
    EXPECT_EQ(rows, 1u + 4 * 2 + 3 * 2);
    const Json json = study::tableJson(t);
    EXPECT_EQ(json["rows"][0]["cells"][0]["values"].size(), 4u);
    EXPECT_EQ(json["rows"][0]["cells"][0]["test"]["p_holm"], *t.rows[0].cells[0].adjusted);
    EXPECT_EQ(json["comparability"]["same steps"], true);
}

TEST_F(Tables, aNumberThatNoRunMeasuredIsNotThere)
{
    // D failed at every seed, C at seed 2; A has no CV at all.
    const auto study = finished(specOfFixture(), [](const StudySpec &spec, const Cell &cell) -> std::optional<Json> {
        const std::string label = cell.label(spec, {"router"});
        if (label == "D" || (label == "C" && cell.seed == 2))
            return std::nullopt;
        Json result = resultOf(spec, cell);
        if (label == "A")
            result["metrics"]["load_cv"]["value"] = nullptr;
        return result;
    });
    for (const Cell &cell : study.cells)
        if (cell.id.starts_with("d_"))
            write(study::statusFile(at("study"), cell), R"({"state": "failed", "exit": 1, "error": "loss is not finite at step 7"})");
    const auto again = study::openStudy(at("study"));
    ASSERT_TRUE(again);
    const StudyTable t = table(*again);
    EXPECT_FALSE(t.rows[3].cells[0].mean);
    EXPECT_THAT(t.rows[3].cells[0].reason, HasSubstr("failed (exit 1): loss is not finite at step 7"));
    EXPECT_FALSE(t.rows[0].cells[1].mean);
    EXPECT_THAT(t.rows[0].cells[1].reason, HasSubstr("not defined"));
    EXPECT_EQ(t.rows[2].cells[0].values.size(), 3u);
    EXPECT_THAT(t.rows[2].cells[0].missing.at(0), HasSubstr("seed 2: not run"));
    EXPECT_EQ(t.rows[2].cells[0].test->freedom, 2) << "paired on the seeds that both have";
    EXPECT_EQ(t.tests, 3u) << "A's loss, C's loss and CV";
    EXPECT_FALSE(t.summary[1].values[1]) << "no improvement of what was not measured";
    EXPECT_THAT(t.summary[0].notes[0], HasSubstr("of the 3 rows"));
    EXPECT_THAT(study::tableLatex(t), HasSubstr("D & -- & --"));
    EXPECT_THAT(study::tableHtml(t), HasSubstr("loss is not finite at step 7"));
    EXPECT_THAT(study::tableCsv(t), HasSubstr("loss is not finite at step 7"));
    bool sameSeeds = true;
    for (const auto &[question, yes] : t.comparability.answers)
        if (question == "same seeds")
            sameSeeds = yes;
    EXPECT_FALSE(sameSeeds);
}

TEST_F(Tables, everyDifferenceOfTheRunsIsNamed)
{
    Json spec = specOfFixture();
    spec["axes"][0]["values"][2]["set"]["model.top_k"] = 1;
    const auto study = finished(spec, resultOf);
    // The run itself resolved another warm-up than the others: not declared by any axis.
    for (const Cell &cell : study.cells) {
        Json config = cell.config;
        config["schedule"]["warmup"] = cell.id.starts_with("d_") ? 7 : 50;
        config["model"]["top_k"] = cell.id.starts_with("c_") ? 1 : 2;
        write(study::cellFolder(at("study"), cell) / "config.json", config.dump());
    }
    const auto again = study::openStudy(at("study"));
    const auto c = table(*again).comparability;
    ASSERT_EQ(c.differences.size(), 2u);
    const auto &topK = c.differences[0].key == "model.top_k" ? c.differences[0] : c.differences[1];
    const auto &warmup = c.differences[0].key == "model.top_k" ? c.differences[1] : c.differences[0];
    EXPECT_TRUE(topK.declared);
    EXPECT_EQ(topK.question, "same expert architecture");
    EXPECT_FALSE(warmup.declared);
    EXPECT_EQ(warmup.key, "schedule.warmup");
    EXPECT_EQ(warmup.values[3], (std::pair<std::string, std::string>("D", "7")));
    const std::map<std::string, bool> answers(c.answers.begin(), c.answers.end());
    EXPECT_FALSE(answers.at("same expert architecture"));
    EXPECT_FALSE(answers.at("same hyper-parameters"));
    EXPECT_TRUE(answers.at("same base model"));
    EXPECT_TRUE(answers.at("same data order"));
    EXPECT_THAT(study::tableHtml(table(*again)), HasSubstr("schedule.warmup"));
}

TEST_F(Tables, oneSeedHasNoIntervalAndNoTest)
{
    Json spec = specOfFixture();
    spec["seeds"] = parsed("[1]");
    const StudyTable t = table(finished(spec, resultOf));
    EXPECT_FALSE(t.rows[0].cells[0].mean->half);
    EXPECT_FALSE(t.rows[0].cells[0].test);
    EXPECT_TRUE(t.rows[0].cells[0].relative) << "the change is still a measured one";
    EXPECT_THAT(study::tableLatex(t), Not(HasSubstr("\\pm$ 0")));
    EXPECT_THAT(study::tableHtml(t), HasSubstr("one seed, no interval"));
}

TEST_F(Tables, damagedResultsAreNamedNotRead)
{
    const auto study = finished(specOfFixture(), resultOf);
    write(study::cellFolder(at("study"), study.cells[0]) / "result.json", "{\"held_out_loss\": 3");
    write(study::cellFolder(at("study"), study.cells[1]) / "result.json", "[]");
    write(study::statusFile(at("study"), study.cells[2]), R"({"state": "done", "config_sha256": "of another"})");
    const auto again = study::openStudy(at("study"));
    EXPECT_THAT(again->results[0].reason, HasSubstr("not JSON"));
    EXPECT_THAT(again->results[1].reason, HasSubstr("not an object"));
    EXPECT_THAT(again->results[2].reason, HasSubstr("another configuration"));
    EXPECT_EQ(table(*again).rows[0].cells[0].values.size(), 1u);
}

TEST_F(Tables, aBaselineThatIsNoRowIsNamed)
{
    Json spec = specOfFixture();
    spec["tables"][0]["baseline"] = "Bb";
    const auto study = finished(spec, resultOf);
    const auto made = study::makeTable(study, study.spec.tables[0]);
    ASSERT_FALSE(made.ok());
    EXPECT_EQ(made.error().kind, ErrorKind::usage);
    EXPECT_THAT(made.error().mend, HasSubstr("\"B\""));
}

TEST(Numbers, asManyDigitsAsTheIntervalGives)
{
    MeanInterval m;
    m.mean = 3.95312;
    EXPECT_EQ(study::numberText(m, -1).value, "3.953");
    EXPECT_EQ(study::numberText(m, -1).half, "");
    m.half = 0.0123;
    EXPECT_EQ(study::numberText(m, -1).value, "3.953");
    EXPECT_EQ(study::numberText(m, -1).half, "0.012");
    m.half = 12.3;
    EXPECT_EQ(study::numberText(m, -1).value, "4");
    EXPECT_EQ(study::numberText(m, 1).half, "12.3");
    m.half = 0;
    EXPECT_EQ(study::numberText(m, -1).value, "3.953");
}

} // namespace
} // namespace spectra::test
