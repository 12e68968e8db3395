// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/closestname.h"
#include "engine/core/files.h"
#include "engine/core/random.h"
#include "engine/router/router.h"
#include "engine/train/trainconfig.h"
#include "engine/train/trainconfigfields.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace spectra::test {
namespace {

using Json = nlohmann::ordered_json;

const char *const kSmall = R"({"data": {"domains": {"web": "web.txt"}}})";

TrainConfig parsed(const std::string &text, const std::vector<std::string> &settings = {})
{
    auto config = TrainConfig::parse(text, "run.json", settings);
    if (!config.ok()) {
        ADD_FAILURE() << config.error().what << " | " << config.error().where << " | " << config.error().mend;
        return {};
    }
    return *config;
}

/// The error of a configuration that must not be accepted.
Error refused(const std::string &text, const std::vector<std::string> &settings = {})
{
    const auto config = TrainConfig::parse(text, "run.json", settings);
    if (config.ok()) {
        ADD_FAILURE() << "accepted: " << text.substr(0, 300);
        return {};
    }
    return config.error();
}

/// The small configuration with one key set.
std::string with(const std::string &path, const Json &value)
{
    Json json = Json::parse(kSmall);
    Json *at = &json;
    std::stringstream parts(path);
    for (std::string part; std::getline(parts, part, '.');)
        at = &(*at)[part];
    *at = value;
    return json.dump();
}

TEST(TrainConfig, MinimalFileTakesDefaults)
{
    const TrainConfig config = parsed(kSmall);
    TrainConfig expected;
    expected.domains = {{"web", {"web.txt"}, 1}};
    expected.routerJson = config.routerJson;
    EXPECT_EQ(config, expected);
    EXPECT_EQ(Json::parse(config.routerJson)["type"], "spectra");
    EXPECT_EQ(Json::parse(config.routerJson)["router_dim"], 32);
}

TEST(TrainConfig, ShortRunsKeepUnsaidIntervalsWithin)
{
    const TrainConfig config = parsed(kSmall, {"training.steps=40", "model.heads=8"});
    EXPECT_EQ(config.warmup, 4);
    EXPECT_EQ(config.evaluateEvery, 40);
    EXPECT_EQ(config.checkpointEvery, 40);
    EXPECT_EQ(config.kvHeads, 8) << "as many key heads as heads unless said";
}

TEST(TrainConfig, NamingTheRouterThatIsThereKeepsItsOptions)
{
    const std::string text = R"({"router": {"type": "spectra", "router_dim": 16}, "data": {"domains": {"web": "web.txt"}}})";
    EXPECT_EQ(Json::parse(parsed(text, {"router.type=spectra"}).routerJson)["router_dim"], 16);
    EXPECT_EQ(Json::parse(parsed(text, {"router.type=switch_top2", "router.type=spectra"}).routerJson)["router_dim"], 128) << "another came between";
}

TEST(TrainConfig, ReadsEveryForm)
{
    const TrainConfig config = parsed(R"({
        "name": "Übung 1", "router": "switch_top2",
        "model": {"hidden": 64, "heads": 4, "kv_heads": 2, "tied_head": false, "moe_layers": "every:2"},
        "data": {"domains": {"a.b": ["x.txt", "y.jsonl.zst"], "c": {"files": ["z.txt"], "weight": 2.5}, "d": {"files": "q.txt"}},
            "max_tokens": 1e6},
        "training": {"seed": 18446744073709551615, "data_seed": 7, "target_losses": [4, 3.5]},
        "optimizer": {"learning_rate": {"router": 1e-3}, "type": "muon"}})");
    EXPECT_EQ(config.name, "Übung 1");
    EXPECT_EQ(Json::parse(config.routerJson)["type"], "switch_top2");
    ASSERT_EQ(config.domains.size(), 3U);
    EXPECT_EQ(config.domains[0], (TrainConfig::Domain{"a.b", {"x.txt", "y.jsonl.zst"}, 1}));
    EXPECT_EQ(config.domains[1], (TrainConfig::Domain{"c", {"z.txt"}, 2.5}));
    EXPECT_EQ(config.domains[2], (TrainConfig::Domain{"d", {"q.txt"}, 1}));
    EXPECT_EQ(config.maxTokens, 1'000'000);
    EXPECT_EQ(config.seed, 18446744073709551615U);
    EXPECT_EQ(config.dataSeed, 7U);
    EXPECT_EQ(config.targetLosses, (std::vector<double>{4, 3.5}));
    EXPECT_EQ(config.rateRouter, 1e-3);
    EXPECT_EQ(config.rateOther, TrainConfig().rateOther);
    EXPECT_EQ(parsed(with("optimizer.learning_rate", 2e-4)).rateExperts, 2e-4);
}

TEST(TrainConfig, UnknownKeysNameTheNearest)
{
    const std::vector<std::pair<std::string, std::string>> cases = {
        {"training.step", "training.steps"},       {"training.stpes", "training.steps"},
        {"trainning", "training"},                 {"steps", "training.steps"},
        {"training.warmup", "schedule.warmup"},    {"model.topk", "model.top_k"},
        {"optimizer.learning_rate.routr", "optimizer.learning_rate.router"}, {"optimizer.lerning_rate", "optimizer.learning_rate"},
        {"data.heldout", "data.held_out"},         {"checkpoint.evry", "checkpoint.every"},
    };
    for (const auto &[wrong, right] : cases) {
        const Error error = refused(with(wrong, 1));
        EXPECT_EQ(error.kind, ErrorKind::usage);
        EXPECT_EQ(error.what, "unknown key \"" + wrong + "\"");
        EXPECT_EQ(error.where, "run.json: " + wrong);
        EXPECT_EQ(error.mend, "did you mean \"" + right + "\"?");
        const Error set = refused(kSmall, {wrong + "=1"});
        EXPECT_EQ(set.where, "--set " + wrong);
        EXPECT_EQ(set.mend, error.mend);
    }
    EXPECT_EQ(refused(R"({"data": {"domains": {"web": {"files": "a", "wieght": 1}}}})").mend, "did you mean \"weight\"?");
}

TEST(TrainConfig, EveryPlainKeyRefusesWrongTypesAndRanges)
{
    for (const ConfigField &field : trainConfigFields()) {
        if (field.special != ConfigField::Special::none)
            continue;
        const auto is = [&]<typename T>(T TrainConfig::*) { return std::holds_alternative<T TrainConfig::*>(field.member); };
        std::vector<Json> bad = {Json::array(), Json::object(), Json()};
        if (is(&TrainConfig::name)) {
            bad.insert(bad.end(), {1, true, std::string("a\nb"), std::string(5000, 'x')});
            if (!field.values.empty())
                bad.push_back("nonsense");
        } else {
            bad.push_back("x");
            bad.push_back("1");
        }
        if (is(&TrainConfig::tiedHead))
            bad.insert(bad.end(), {0, 1, "true"});
        else
            bad.push_back(true);
        if (is(&TrainConfig::steps))
            bad.insert(bad.end(), {field.low - 1, field.high + 1, 1.5, -1e300, 1e300, 9223372036854775807, 18446744073709551615U});
        if (is(&TrainConfig::seed))
            bad.insert(bad.end(), {-1, 1.0, 1e30});
        if (is(&TrainConfig::clip))
            bad.insert(bad.end(), {field.low - 1e-3, field.high * 1.001});
        if (field.lowOpen)
            bad.push_back(field.low);
        if (field.highOpen)
            bad.push_back(field.high);
        for (const Json &value : bad) {
            const Error error = refused(with(field.path(), value));
            EXPECT_EQ(error.kind, ErrorKind::usage) << field.path();
            EXPECT_EQ(error.where, "run.json: " + field.path()) << value.dump().substr(0, 80);
            EXPECT_FALSE(error.what.empty());
        }
    }
    EXPECT_EQ(refused(with("training.steps", 0)).mend, "use 1 <= x <= 1000000000");
    EXPECT_EQ(refused(with("optimizer.beta2", 1)).mend, "use 0 <= x < 1");
    EXPECT_EQ(refused(with("model.start", "upcicle")).mend, "did you mean \"upcycle\"? use one of scratch, upcycle, router_only");
}

TEST(TrainConfig, SettingsThatDoNotGoTogether)
{
    struct Case {
        std::vector<std::string> settings;
        std::string key, word;
    };
    const std::vector<Case> cases = {
        {{"model.experts=4", "model.top_k=5"}, "model.top_k", "5 of 4"},
        {{"model.top_k=0"}, "model.top_k", "0"},
        {{"model.granularity=3"}, "model.granularity", "3 does not divide 8"},
        {{"model.granularity=8", "model.intermediate=250"}, "model.granularity", "250"},
        {{"model.heads=6", "model.kv_heads=4", "model.hidden=96"}, "model.kv_heads", "6 query heads"},
        {{"model.heads=6"}, "model.heads", "128"},
        {{"model.head_dim=15"}, "model.head_dim", "15"},
        {{"model.hidden=12"}, "model.heads", "3 values"},
        {{"model.moe_layers=every:0"}, "model.moe_layers", "every"},
        {{"model.moe_layers=0,9"}, "model.moe_layers", "no layer 9"},
        {{"training.sequence_length=1024"}, "training.sequence_length", "512"},
        {{"schedule.warmup=1001"}, "schedule.warmup", "1001"},
        {{"model.start=upcycle"}, "model.checkpoint", "needs a checkpoint"},
        {{"model.start=router_only"}, "model.checkpoint", "needs a checkpoint"},
        {{"model.checkpoint=x"}, "model.checkpoint", "takes no checkpoint"},
        {{"model.start=router_only", "model.checkpoint=x", "router.type=dense"}, "router.type", "none"},
        {{"router.type=switch_top1"}, "model.top_k", "takes 1 expert"},
        {{"data.domains={}"}, "data.domains", "no text"},
        {{"data.min_characters=10", "data.max_characters=5"}, "data.min_characters", "10"},
        {{"data.text_field="}, "data.text_field", "empty"},
    };
    for (const Case &one : cases) {
        const Error error = refused(kSmall, one.settings);
        EXPECT_EQ(error.kind, ErrorKind::usage);
        EXPECT_TRUE(error.where == "run.json: " + one.key) << one.settings[0] << " -> " << error.where << ": " << error.what;
        EXPECT_NE(error.what.find(one.word), std::string::npos) << error.what;
        EXPECT_FALSE(error.mend.empty()) << one.key;
    }
    EXPECT_EQ(refused("{}").where, "run.json: data.domains");
    parsed(kSmall, {"router.type=dense", "model.top_k=0"});
    parsed(kSmall, {"model.start=router_only", "model.checkpoint=x", "model.top_k=0"});
    parsed(kSmall, {"model.start=upcycle", "model.checkpoint=x", "training.sequence_length=1024"});
}

TEST(TrainConfig, DomainsAreChecked)
{
    for (const char *bad : {"[]", R"("x")", R"({"a": []})", R"({"a": ""})", R"({"a": {"weight": 1}})",
        R"({"a": {"files": ["x"], "weight": 0}})",
                            R"({"a": {"files": ["x"], "weight": "1"}})", R"({"": "x"})", R"({"a/b": "x"})", R"({"a": ["x", "x"]})", R"({"a": [1]})", R"({"a": 1})",
                            R"({"a": null})"}) {
        const Error error = refused(std::string(R"({"data": {"domains": )") + bad + "}}");
        EXPECT_EQ(error.kind, ErrorKind::usage);
        EXPECT_EQ(error.where.rfind("run.json: data.domains", 0), 0U) << bad << ": " << error.where;
    }
    Json many = Json::object();
    for (int i = 0; i < 257; ++i)
        many["d" + std::to_string(i)] = "x";
    EXPECT_NE(refused(with("data.domains", many)).what.find("256"), std::string::npos);
}

TEST(TrainConfig, RouterOptionsComeFromTheRegistry)
{
    const Error unknown = refused(kSmall, {"router.sinkhorn_epsilom=0.1"});
    EXPECT_EQ(unknown.kind, ErrorKind::usage);
    EXPECT_NE(unknown.what.find("sinkhorn_epsilom"), std::string::npos);
    EXPECT_NE(unknown.mend.find("did you mean \"router.sinkhorn_epsilon\"?"), std::string::npos) << unknown.mend;
    const Error type = refused(with("router", Json{{"type", "swich_top2"}}));
    EXPECT_NE(type.what.find("unknown router"), std::string::npos);
    EXPECT_EQ(type.where, "run.json: router.type");
    EXPECT_EQ(type.mend.rfind("did you mean \"switch_top2\"?", 0), 0U) << type.mend;
    EXPECT_NE(refused(kSmall, {"router.sinkhorn_epsilon=-1"}).what.find("out of range"), std::string::npos);
    for (const Json &bad : {Json(1), Json::array(), Json::object(), Json{{"type", 3}}, Json{{"router_dim", 8}}})
        EXPECT_EQ(refused(with("router", bad)).where.rfind("run.json: router", 0), 0U) << bad.dump();
    // Another method drops the options of the one before and takes the settings after it.
    const TrainConfig swapped = parsed(with("router", Json{{"type", "spectra"}, {"router_dim", 8}}),
                                       {"router.type=switch_top2", "router.type=spectra", "router.router_dim=16"});
    Json expected = Json::parse(*defaultRouterOptions("spectra"));
    expected["router_dim"] = 16;
    EXPECT_EQ(Json::parse(swapped.routerJson), expected);
    const TrainConfig scope = parsed(kSmall, {"router.sinkhorn_scope=none"});
    EXPECT_EQ(Json::parse(scope.routerJson)["sinkhorn_scope"], "none");
    EXPECT_EQ(Json::parse(scope.routerJson)["router_dim"], 32) << "the default router's own setting stays";
    for (const RouterInfo &info : routerRegistry())
        parsed(kSmall, {"router.type=" + info.name, "model.top_k=" + std::to_string(info.topK > 0 ? info.topK : 2)});
}

TEST(TrainConfig, SettingsOverride)
{
    const TrainConfig config = parsed(kSmall,
        {"name=2024", "optimizer.learning_rate=0.01", "optimizer.learning_rate.router=0.02", "training.target_losses=[3,2]",
                                               "training.data_seed=5", "training.data_seed=null", "data.domains.web.weight=3", "data.domains.book=b.txt",
                                               "model.start=upcycle", "model.checkpoint=/a=b", "training.steps=500", "training.steps=600"});
    EXPECT_EQ(config.name, "2024") << "text stays text";
    EXPECT_EQ(config.rateRouter, 0.02);
    EXPECT_EQ(config.rateOther, 0.01);
    EXPECT_EQ(config.targetLosses, (std::vector<double>{3, 2}));
    EXPECT_FALSE(config.dataSeed.has_value());
    EXPECT_EQ(config.domains, (std::vector<TrainConfig::Domain>{{"web", {"web.txt"}, 3}, {"book", {"b.txt"}, 1}}));
    EXPECT_EQ(config.checkpoint, "/a=b");
    EXPECT_EQ(config.steps, 600);
    for (const char *bad : {"", "=", "=1", "steps", "training.steps", "training.steps=", "training.steps=abc", "training.steps=[1]",
        "training=1", "data.domains=1",
                            "data.domains.=x", "optimizer.learning_rate=\"x\"", "name=\xff\xfe", "training.steps={\"a\":1,\"a\":2}", "router=5", "router.=1", "..=1"}) {
        const Error error = refused(kSmall, {bad});
        EXPECT_EQ(error.kind, ErrorKind::usage) << bad;
        EXPECT_EQ(error.where.rfind("--set", 0), 0U) << bad << ": " << error.where;
    }
}

TEST(TrainConfig, TextThatIsNoConfiguration)
{
    const Error comment = refused("{\n  // no\n}");
    EXPECT_EQ(comment.kind, ErrorKind::input);
    EXPECT_EQ(comment.where, "run.json: line 2, column 3");
    const Error twice = refused("{\"training\": {\"steps\": 5, \"seed\": 1, \"steps\": 6}}");
    EXPECT_EQ(twice.what, "has a key twice");
    EXPECT_EQ(twice.where, "run.json: training.steps");
    EXPECT_EQ(refused(R"({"data": {"domains": {"web": "a", "web": "b"}}})").where, "run.json: data.domains.web");
    EXPECT_EQ(refused(R"({"router": {"type": "spectra", "type": "dense"}})").where, "run.json: router.type");
    EXPECT_NE(refused(std::string((1 << 20) + 1, ' ')).what.find("1 MiB"), std::string::npos);
    EXPECT_NE(refused(std::string(500'000, '[')).what.find("nested"), std::string::npos);
    std::string many = "{";
    for (int i = 0; i < 80'000; ++i)
        many += "\"" + std::to_string(i) + "\":1,";
    EXPECT_NE(refused(many + "\"x\":1}").what.find("1024 keys"), std::string::npos);
    for (const char *bad : {"", " ", "{", "}", "{\"a\"}", "{,}", "{\"a\":1,}", "nul", "{\"name\": \"\xff\"}",
        "{\"training\": {\"clip\": 1e999}}", "\xef\xbb\xbf", "{} {}"})
        EXPECT_EQ(refused(bad).kind, ErrorKind::input) << bad;
    for (const char *bad : {"[]", "1", "null", "\"x\""})
        EXPECT_EQ(refused(bad).kind, ErrorKind::usage) << bad;
}

TEST(TrainConfig, ReadsBackWhatItWrites)
{
    Random random(5, 1);
    const auto draw = [&](std::int64_t low,
        std::int64_t high) { return low + static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(high - low + 1))); };
    for (int round = 0; round < 300; ++round) {
        TrainConfig config = parsed(kSmall);
        for (const ConfigField &field : trainConfigFields()) {
            if (field.special != ConfigField::Special::none)
                continue;
            if (const auto *whole = std::get_if<std::int64_t TrainConfig::*>(&field.member))
                config.**whole = draw(static_cast<std::int64_t>(field.low), static_cast<std::int64_t>(field.high));
            else if (const auto *number = std::get_if<double TrainConfig::*>(&field.member))
                config.**number = field.low + (field.high - field.low) * std::max(1e-9, std::min(random.uniform(), 1 - 1e-9));
            else if (const auto *seed = std::get_if<std::uint64_t TrainConfig::*>(&field.member))
                config.**seed = random();
            else if (const auto *flag = std::get_if<bool TrainConfig::*>(&field.member))
                config.**flag = draw(0, 1) == 1;
            else if (const auto *text = std::get_if<std::string TrainConfig::*>(&field.member))
                config.**text = field.values.empty() ? "t\"ä\\" + std::to_string(round) : field.values[random.below(field.values.size())];
        }
        config.start = "upcycle";
        config.granularity = 1;
        config.moeLayers = "every:3";
        config.topK = draw(1, config.experts);
        config.warmup = draw(0, config.steps);
        config.evaluateEvery = draw(0, config.steps);
        config.checkpointEvery = draw(1, config.steps);
        config.maxCharacters = 0;
        if (round % 2 == 0)
            config.dataSeed = random();
        config.targetLosses.assign(static_cast<std::size_t>(round % 4), 1.0 / 3);
        config.rateRouter = random.uniform();
        config.rateExperts = 1e-300;
        config.rateOther = 0;
        config.domains = {{"a.weight", {"x y", "z"}, 0.1}, {"b", {"ü"}, 1e6}};
        if (round % 3 == 0)
            config.routerJson = parsed(kSmall, {"router.type=roma_like"}).routerJson;
        else
            config.romaBank = config.romaEmbeddings = "";
        const std::string text = config.toJson();
        const TrainConfig again = parsed(text);
        ASSERT_EQ(again, config) << text;
        ASSERT_EQ(again.toJson(), text);
    }
}

TEST(TrainConfig, ABankIsForTheRouterThatIsDrawnToIt)
{
    const Error other = refused(with("roma.bank", "bank"));
    EXPECT_EQ(other.kind, ErrorKind::usage);
    EXPECT_EQ(other.where, "run.json: roma.bank");
    EXPECT_NE(other.what.find("spectra"), std::string::npos);
    EXPECT_NE(other.mend.find("roma_like"), std::string::npos);
    EXPECT_EQ(refused(kSmall, {"router.type=roma_like", "roma.embeddings=e.npy"}).where, "run.json: roma.embeddings");
    const TrainConfig config = parsed(kSmall, {"router.type=roma_like", "roma.bank=bank", "roma.embeddings=e.npy", "roma.neighbours=5", "roma.sigma=0.5"});
    EXPECT_EQ(config.romaBank, "bank");
    EXPECT_EQ(config.romaEmbeddings, "e.npy");
    EXPECT_EQ(config.romaNeighbours, 5);
    EXPECT_EQ(config.romaSigma, 0.5);
    EXPECT_EQ(refused(with("roma.neighbours", 0)).mend, "use 1 <= x <= 1048576");
    EXPECT_EQ(refused(with("roma.neighbors", 3)).mend, "did you mean \"roma.neighbours\"?");
    parsed(kSmall, {"router.type=roma_like"});
}

TEST(TrainConfig, WritesEveryKeyOnceInOrder)
{
    const Json json = Json::parse(parsed(kSmall).toJson());
    std::vector<std::string> order;
    for (const auto &[key, value] : json.items())
        order.push_back(key);
    EXPECT_EQ(order,
        (std::vector<std::string>{"name", "model", "router", "tokenizer", "data", "training", "optimizer", "schedule", "evaluation",
            "checkpoint", "calibration", "roma"}));
    for (const ConfigField &field : trainConfigFields())
        EXPECT_TRUE((field.section.empty() ? json : json[field.section]).contains(field.key)) << field.path();
}

TEST(TrainConfig, ShippedConfigurationsParse)
{
    int count = 0;
    for (const auto &entry : std::filesystem::directory_iterator(std::filesystem::path(SPECTRA_SOURCE_DIR) / "resources" / "configs")) {
        if (entry.path().extension() != ".json")
            continue;
        std::ifstream stream(entry.path());
        const std::string text((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
        const auto config = TrainConfig::parse(text, entry.path().filename().string());
        ASSERT_TRUE(config.ok()) << entry.path() << ": " << config.error().where << ": " << config.error().what;
        EXPECT_FALSE(config->name.empty());
        EXPECT_EQ(parsed(config->toJson()), *config);
        ++count;
    }
    EXPECT_EQ(count, 5);
}

TEST(ClosestName, EditDistanceCountsSwapsOnce)
{
    EXPECT_EQ(editDistance("", ""), 0U);
    EXPECT_EQ(editDistance("abc", ""), 3U);
    EXPECT_EQ(editDistance("", "ab"), 2U);
    EXPECT_EQ(editDistance("kitten", "sitting"), 3U);
    EXPECT_EQ(editDistance("stpes", "steps"), 1U);
    EXPECT_EQ(editDistance("ca", "abc"), 3U) << "optimal string alignment";
    EXPECT_EQ(editDistance("flaw", "lawn"), 2U);
    EXPECT_EQ(editDistance(std::string(1000, 'a'), std::string(100'000, 'b')), 200U) << "cut, not slow";
    EXPECT_EQ(closestName("x", {}), "");
}

} // namespace
} // namespace spectra::test
