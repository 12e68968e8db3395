// SPDX-License-Identifier: GPL-3.0-or-later
// A study's file is read strictly, and its runs are what it says.
#include "tests/engine/study/studyfolder.h"

#include <gmock/gmock.h>

#include <set>

namespace spectra::test {
namespace {

using study::Cell;
using study::StudySpec;
using testing::HasSubstr;

Json minimal()
{
    return parsed(R"({"name": "s", "base": {"model": {"hidden": 128}, "router": {"type": "spectra", "sinkhorn_epsilon": 0.2}},
        "axes": [{"name": "router", "values": [{"label": "SPECTRA", "set": {"router.type": "spectra"}},
                                               {"label": "Switch top-1", "set": {"router.router_aux_loss_coef": 0.01, "router.type": "switch_top1", "model.top_k": 1}}]}],
        "seeds": [0, 7]})");
}

Error errorOf(const Json &json, const study::SpecOptions &options = {})
{
    auto spec = study::parseSpec(json, "spec.json", options);
    if (!spec)
        return spec.error();
    auto cells = study::makeCells(*spec);
    EXPECT_FALSE(cells.ok()) << json.dump();
    return cells ? Error{} : cells.error();
}

TEST(Spec, runsOfAGrid)
{
    const auto spec = study::parseSpec(minimal(), "spec.json", {});
    ASSERT_TRUE(spec) << spec.error().what;
    const auto cells = study::makeCells(*spec);
    ASSERT_TRUE(cells);
    ASSERT_EQ(cells->size(), 4u);
    EXPECT_EQ((*cells)[0].id, "spectra_s0");
    EXPECT_EQ((*cells)[3].id, "switch-top-1_s7");
    EXPECT_EQ((*cells)[0].config["router"]["sinkhorn_epsilon"], 0.2) << "the same router keeps the base's options";
    EXPECT_EQ((*cells)[2].config["router"], parsed(R"({"type": "switch_top1", "router_aux_loss_coef": 0.01})")) << "another router starts anew, whatever the order";
    EXPECT_EQ((*cells)[2].config["model"]["top_k"], 1);
    for (const Cell &cell : *cells) {
        EXPECT_EQ(cell.config["training"]["seed"], cell.seed);
        EXPECT_EQ(cell.config["training"]["data_seed"], cell.seed) << "one data order per seed";
        EXPECT_EQ(Json::parse(cell.text), cell.config);
    }
    EXPECT_EQ((*cells)[0].label(*spec, {"router"}), "SPECTRA");
}

TEST(Spec, theHashIsOfWhatIsTrained)
{
    const auto hashes = [](const Json &json) {
        std::vector<std::string> all;
        const auto spec = study::parseSpec(json, "spec.json", {});
        const auto cells = study::makeCells(*spec);
        for (const Cell &c : *cells)
            all.push_back(c.sha256);
        return all;
    };
    const auto before = hashes(minimal());
    EXPECT_EQ(std::set<std::string>(before.begin(), before.end()).size(), before.size());
    Json renamed = minimal();
    renamed["name"] = "other";
    EXPECT_EQ(hashes(renamed), before);
    Json reordered = minimal();
    reordered["base"] = parsed(R"({"router": {"sinkhorn_epsilon": 0.2, "type": "spectra"}, "model": {"hidden": 128}})");
    EXPECT_EQ(hashes(reordered), before) << "the order of keys means nothing";
    Json changed = minimal();
    changed["base"]["model"]["hidden"] = 129;
    EXPECT_NE(hashes(changed)[0], before[0]);
}

TEST(Spec, errorsNameThePlaceAndTheNearestKey)
{
    Json json = minimal();
    json["tabels"] = Json::array();
    EXPECT_THAT(errorOf(json).mend, HasSubstr("did you mean \"tables\""));
    json = minimal();
    json["axes"][0]["values"][1]["lable"] = "x";
    EXPECT_THAT(errorOf(json).where, HasSubstr("axes[0]: values[1]"));
    EXPECT_THAT(errorOf(json).mend, HasSubstr("\"label\""));
    json = minimal();
    json["axes"][0]["values"][1]["label"] = "SPECTRA";
    EXPECT_THAT(errorOf(json).what, HasSubstr("stands twice"));
    json = minimal();
    json["axes"][0]["values"][0]["set"]["training.seed"] = 3;
    EXPECT_THAT(errorOf(json).what, HasSubstr("the sweep's own"));
    json = minimal();
    json["axes"].push_back(parsed(R"({"name": "k", "values": [{"label": "1", "set": {"model.top_k": 1}}]})"));
    EXPECT_THAT(errorOf(json).what, HasSubstr("both set model.top_k"));
    json = minimal();
    json["axes"].push_back(parsed(R"({"name": "k", "values": [{"label": "1", "set": {"router": {"type": "dense"}}}]})"));
    EXPECT_THAT(errorOf(json).what, HasSubstr("both set")) << "a whole router and its options";
    json = minimal();
    json["seeds"] = parsed("[0, 0]");
    EXPECT_THAT(errorOf(json).what, HasSubstr("stands twice"));
    json["seeds"] = parsed("[-1]");
    EXPECT_THAT(errorOf(json).where, HasSubstr("seeds"));
    json = minimal();
    json["tables"] = parsed(R"([{"title": "t", "rows": "rooter", "columns": ["held_out_loss"]}])");
    EXPECT_THAT(errorOf(json).mend, HasSubstr("\"router\""));
    json["tables"] = parsed(R"([{"title": "t", "columns": [{"path": "held_out_loss", "better": "less"}]}])");
    EXPECT_THAT(errorOf(json).mend, HasSubstr("lower, higher, none"));
    json = minimal();
    json["name"] = "../x";
    EXPECT_THAT(errorOf(json).what, HasSubstr("plain name"));
    for (const char *bad : {"[]", "3", "{}", R"({"name": "s", "base": 3})", R"({"name": "s", "base": {}, "axes": []})", R"({"name": "s", "base": {}, "axes": {"a": 1}})"})
        EXPECT_EQ(errorOf(parsed(bad)).kind, ErrorKind::usage) << bad;
    json = minimal();
    json.erase("axes");
    EXPECT_THAT(errorOf(json).what, HasSubstr("nothing that varies"));
}

TEST(Spec, tasksAreReadStrictly)
{
    const auto with = [](const char *list) {
        Json json = minimal();
        json["tasks"] = parsed(list);
        return json;
    };
    study::SpecOptions options;
    options.folder = "/specs";
    options.data = "/texts";
    const auto spec = study::parseSpec(with(R"([{"task": "ppl", "data": "$DATA/a.txt", "title": "Law"}, {"task": "choice", "name": "mine", "data": "q.jsonl", "shots": 0, "limit": 20}])"),
                                       "spec.json", options);
    ASSERT_TRUE(spec) << spec.error().what;
    ASSERT_EQ(spec->tasks.size(), 2u);
    EXPECT_EQ(spec->tasks[0].name, "ppl");
    EXPECT_EQ(spec->tasks[0].data, "/texts/a.txt");
    EXPECT_EQ(spec->tasks[0].shots, -1) << "the task's own number";
    EXPECT_EQ(spec->tasks[1].data, "/specs/q.jsonl");
    EXPECT_EQ(spec->tasks[1].limit, 20);
    const auto again = study::parseSpec(spec->source, "study.json", {});
    ASSERT_TRUE(again) << "without the folder of the data";
    EXPECT_EQ(again->tasks[0].data, "/texts/a.txt");
    EXPECT_THAT(errorOf(with(R"([{"task": "ppl"}])")).what, HasSubstr("\"data\""));
    EXPECT_THAT(errorOf(with(R"([{"task": "ppl", "data": "$DATA/a"}])")).mend, HasSubstr("--data"));
    EXPECT_THAT(errorOf(with(R"([{"task": "ppl", "data": "a", "shot": 3}])")).mend, HasSubstr("\"shots\""));
    EXPECT_THAT(errorOf(with(R"([{"task": "ppl", "data": "a", "shots": -1}])")).where, HasSubstr("tasks[0]: shots"));
    EXPECT_THAT(errorOf(with(R"([{"task": "ppl", "data": "a"}, {"task": "ppl", "data": "b"}])")).mend, HasSubstr("\"name\""));
    for (const char *name : {"", "../x", "a.b", "a b"})
        EXPECT_THAT(errorOf(with((R"([{"task": "ppl", "data": "a", "name": ")" + std::string(name) + R"("}])").c_str())).what, HasSubstr("plain name")) << name;
    EXPECT_EQ(errorOf(with("[3]")).kind, ErrorKind::usage);
    EXPECT_EQ(errorOf(with("{}")).kind, ErrorKind::usage);
}

TEST(Spec, anAxisThatIsNeitherRowNorFixedIsNamed)
{
    Json json = minimal();
    json["axes"].push_back(parsed(R"({"name": "T", "values": [{"label": "3", "set": {"router.sinkhorn_iterations": 3}}, {"label": "8", "set": {"router.sinkhorn_iterations": 8}}]})"));
    json["axes"][0]["values"].erase(1);
    json["tables"] = parsed(R"([{"title": "t", "rows": "router", "columns": ["held_out_loss"]}])");
    EXPECT_THAT(errorOf(json).what, HasSubstr("\"T\" is left open"));
    json["tables"][0]["where"] = parsed(R"({"T": "9"})");
    EXPECT_THAT(errorOf(json).what, HasSubstr("has no value"));
    json["tables"][0]["where"] = parsed(R"({"T": "8"})");
    EXPECT_TRUE(study::parseSpec(json, "spec.json", {}));
}

class SpecFiles : public StudyTest {};

TEST_F(SpecFiles, dataAndBaseAreFound)
{
    write(at("specs/base.json"), R"({"data": {"domains": {"law": "$DATA/law.txt", "own": ["own.txt"], "third": {"files": ["/x/y.txt"], "weight": 2}}}, "model": {"checkpoint": "smollm2-135m"}})");
    Json json = minimal();
    json["base"] = "base.json";
    write(at("specs/s.json"), json.dump());
    study::SpecOptions options;
    const auto without = study::readSpec(at("specs/s.json"), options);
    ASSERT_FALSE(without.ok());
    EXPECT_THAT(without.error().mend, HasSubstr("--data"));
    options.data = "/texts/here";
    options.settings = {"training.steps=5", "model.start=upcycle"};
    const auto spec = study::readSpec(at("specs/s.json"), options);
    ASSERT_TRUE(spec) << spec.error().what;
    const Json &domains = spec->base["data"]["domains"];
    EXPECT_EQ(domains["law"], "/texts/here/law.txt");
    EXPECT_EQ(domains["own"][0], at("specs/own.txt").string());
    EXPECT_EQ(domains["third"]["files"][0], "/x/y.txt");
    EXPECT_EQ(spec->base["model"]["checkpoint"], "smollm2-135m") << "a name stays a name";
    EXPECT_EQ(spec->base["training"]["steps"], 5);
    EXPECT_EQ(spec->base["model"]["start"], "upcycle");
    // What is kept in the study's folder reads back to the same runs anywhere.
    const auto again = study::parseSpec(spec->source, "study.json", {});
    ASSERT_TRUE(again) << again.error().what;
    EXPECT_EQ(study::makeCells(*again)->front().sha256, study::makeCells(*spec)->front().sha256);
}

TEST_F(SpecFiles, hostileFilesAreRefused)
{
    write(at("deep.json"), std::string(100000, '['));
    write(at("cut.json"), "{\"name\": \"s\",\n\"base\": ");
    write(at("utf8.json"), "{\"name\": \"\xff\xfe\"}");
    for (const char *name : {"deep.json", "cut.json", "utf8.json", "missing.json"}) {
        const auto spec = study::readSpec(at(name), {});
        ASSERT_FALSE(spec.ok()) << name;
        EXPECT_EQ(spec.error().kind, ErrorKind::input) << name;
    }
    EXPECT_THAT(study::readSpec(at("cut.json"), {}).error().where, HasSubstr("line 2"));
}

Json factorial(const char *generators)
{
    Json json = parsed(R"({"name": "f", "base": {"router": {"type": "spectra"}}, "seeds": [0]})");
    for (const char *name : {"A", "B", "C", "D"})
        json["factorial"]["factors"].push_back({{"name", name}, {"on", {{std::string("router.") + name, true}}}, {"off", {{std::string("router.") + name, false}}}});
    json["factorial"]["generators"] = parsed(generators);
    return json;
}

TEST(Spec, fullAndFractionalDesigns)
{
    const auto full = study::makeCells(*study::parseSpec(factorial("[]"), "f", {}));
    ASSERT_TRUE(full);
    EXPECT_EQ(full->size(), 16u);
    EXPECT_EQ(full->front().id, "a_b_c_d_s0");
    EXPECT_EQ(full->back().id, "no-a_no-b_no-c_no-d_s0");
    const auto half = study::makeCells(*study::parseSpec(factorial(R"(["D = A B C"])"), "f", {}));
    ASSERT_TRUE(half);
    ASSERT_EQ(half->size(), 8u);
    for (const Cell &c : *half) {
        const auto sign = [&](const char *name) { return c.config["router"][name].get<bool>() ? 1 : -1; };
        EXPECT_EQ(sign("D"), sign("A") * sign("B") * sign("C"));
    }
    EXPECT_THAT(errorOf(factorial(R"(["D = A X"])")).what, HasSubstr("no factor \"X\""));
    EXPECT_THAT(errorOf(factorial(R"(["D"])")).what, HasSubstr("not a generator"));
    EXPECT_THAT(errorOf(factorial(R"(["D = A D"])")).what, HasSubstr("not a generator"));
}

TEST(Paths, namesWithDotsAreFound)
{
    const Json json = parsed(R"({"metrics": {"gram.expert_input": {"value": 0.9, "by_layer": [1, 2.5]}, "gram": {"value": 3}}, "x": null, "s": "t"})");
    EXPECT_EQ(study::numberAt(json, "metrics.gram.expert_input.value"), 0.9);
    EXPECT_EQ(study::numberAt(json, "metrics.gram.value"), 3);
    EXPECT_EQ(study::numberAt(json, "metrics.gram.expert_input.by_layer.1"), 2.5);
    for (const char *path : {"metrics.gram.expert_input.by_layer.2", "metrics.gram.expert_input.by_layer.-1", "x", "s", "", "metrics", ".", "metrics..value", "y.z"})
        EXPECT_FALSE(study::numberAt(json, path)) << path;
}

} // namespace
} // namespace spectra::test
