// SPDX-License-Identifier: GPL-3.0-or-later
// Ids and texts that Hugging Face tokenizers and SentencePiece computed (tests/fixtures/tokenizer/make_fixtures.py).
#include "tests/engine/tokenizer/support.h"

namespace spectra::testing {
namespace {

constexpr const char *fixtures[] = {"gpt2", "roberta", "llama3", "qwen2", "mixed", "llama2", "llama2new", "smollm2small"};

std::string told(const Tokenizer &t, const std::vector<std::int32_t> &list)
{
    std::string out;
    for (const std::int32_t id : list)
        out += std::to_string(id) + "(" + t.piece(id) + ") ";
    return out;
}

/// Every id of every string, and the texts of random ids.
void compare(const Tokenizer &t, const nlohmann::json &golden)
{
    const auto &texts = strings();
    ASSERT_GE(texts.size(), 2000u);
    ASSERT_EQ(golden["plain"].size(), texts.size());
    int wrong = 0;
    for (std::size_t i = 0; i < texts.size() && wrong < 8; ++i) {
        const auto expected = golden["plain"][i].get<std::vector<std::int32_t>>();
        const auto got = ids(t, texts[i]);
        if (got != expected) {
            ++wrong;
            ADD_FAILURE() << "string " << i << " " << nlohmann::json(texts[i]) << "\n got " << told(t, got) << "\n not " << told(t, expected);
        }
    }
    for (const auto &[key, value] : golden["parsed"].items()) {
        const auto expected = value.get<std::vector<std::int32_t>>();
        const auto got = ids(t, texts[std::stoul(key)], {true, true});
        if (got != expected && wrong++ < 8)
            ADD_FAILURE() << "parsed " << nlohmann::json(texts[std::stoul(key)]) << "\n got " << told(t, got) << "\n not " << told(t, expected);
    }
    for (const auto &entry : golden["decoded"]) {
        const auto list = entry["ids"].get<std::vector<std::int32_t>>();
        EXPECT_EQ(t.decode(list), entry["text"].get<std::string>()) << told(t, list);
        EXPECT_EQ(t.decode(list, true), entry["skipped"].get<std::string>()) << told(t, list);
    }
}

class Parity : public ::testing::TestWithParam<const char *> {};

TEST_P(Parity, equalsHuggingFaceTokenizers)
{
    compare(*load(GetParam()), readJson(std::string(GetParam()) + ".ids.json"));
}

TEST_P(Parity, holdsAfterWritingAndReadingAgain)
{
    const auto first = load(GetParam());
    const std::string json = first->toJson();
    auto second = Tokenizer::fromJson(json, "written");
    ASSERT_TRUE(second.ok()) << shown(second.error());
    EXPECT_EQ((*second)->toJson(), json);
    EXPECT_EQ((*second)->sha256(), first->sha256());
    compare(**second, readJson(std::string(GetParam()) + ".ids.json"));
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, Parity, ::testing::ValuesIn(fixtures), [](const auto &one) { return std::string(one.param); });

GgufVocabulary spmVocabulary(const nlohmann::json &json)
{
    GgufVocabulary v;
    v.model = "llama";
    v.tokens = json["tokens"].get<std::vector<std::string>>();
    v.scores = json["scores"].get<std::vector<float>>();
    v.types = json["types"].get<std::vector<std::int32_t>>();
    v.unknown = 0;
    v.bos = 1;
    v.eos = 2;
    return v;
}

TEST(GgufLlama, equalsSentencePiece)
{
    const auto json = readJson("spm.json");
    auto loaded = Tokenizer::fromGguf(spmVocabulary(json), "spm");
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    const Tokenizer &t = **loaded;
    int compared = 0;
    for (std::size_t i = 0; i < strings().size(); ++i) {
        if (json["ids"][i].is_null())
            continue;
        const auto expected = json["ids"][i].get<std::vector<std::int32_t>>();
        const auto got = ids(t, strings()[i]);
        ASSERT_EQ(got, expected) << nlohmann::json(strings()[i]) << "\n got " << told(t, got) << "\n not " << told(t, expected);
        ++compared;
    }
    EXPECT_GE(compared, 1900);
    EXPECT_TRUE(t.addsBos());
    EXPECT_EQ(ids(t, "a", {true, false}).front(), 1);
}

TEST(GgufLlama, equalsTheSameModelAsTokenizerJson)
{
    auto loaded = Tokenizer::fromGguf(spmVocabulary(readJson("spm.json")), "spm");
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    compare(**loaded, readJson("llama2.ids.json"));
    auto again = Tokenizer::fromJson((*loaded)->toJson(), "written", (*loaded)->toConfigJson());
    ASSERT_TRUE(again.ok()) << shown(again.error());
    compare(**again, readJson("llama2.ids.json"));
    EXPECT_EQ((*again)->eos(), 2);
    EXPECT_EQ((*again)->bos(), 1);
    EXPECT_EQ((*again)->sha256(), (*loaded)->sha256());
}

TEST(SmolLm2, fullModelEqualsHuggingFaceTokenizers)
{
    const auto path = cacheFolder() / "models" / "smollm2-135m.gguf";
    ASSERT_TRUE(std::filesystem::exists(path)) << path << " is missing: packaging/run fetches it";
    const GgufVocabulary vocabulary = readGgufVocabulary(path);
    auto loaded = Tokenizer::fromGguf(vocabulary, path.string());
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    const Tokenizer &t = **loaded;
    EXPECT_EQ(t.size(), 49152);
    compare(t, readJson("smollm2.ids.json"));
    EXPECT_FALSE(t.addsBos());
    EXPECT_EQ(t.eos(), 2);
    EXPECT_EQ(t.endIds(), (std::vector<std::int32_t>{0, 2}));
    EXPECT_NE(t.chatTemplate().find("<|im_start|>"), std::string::npos);
    auto again = Tokenizer::fromJson(t.toJson(), "written", t.toConfigJson());
    ASSERT_TRUE(again.ok()) << shown(again.error());
    compare(**again, readJson("smollm2.ids.json"));
    EXPECT_EQ((*again)->sha256(), t.sha256());
    EXPECT_EQ((*again)->chatTemplate(), t.chatTemplate());
    EXPECT_EQ((*again)->endIds(), t.endIds());
}

GgufVocabulary gpt2Vocabulary(const nlohmann::json &json, const std::string &pre)
{
    GgufVocabulary v;
    v.model = "gpt2";
    v.pre = pre;
    for (const auto &[piece, id] : json["model"]["vocab"].items()) {
        if (v.tokens.size() <= id.get<std::size_t>())
            v.tokens.resize(id.get<std::size_t>() + 1);
        v.tokens[id.get<std::size_t>()] = piece;
    }
    v.types.assign(v.tokens.size(), 1);
    for (const auto &added : json["added_tokens"])
        v.types[added["id"].get<std::size_t>()] = 3;
    for (const auto &merge : json["model"]["merges"])
        v.merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    v.bos = json["added_tokens"][0]["id"].get<std::int64_t>();
    return v;
}

/// A GGUF of each pre-tokenizer name gives what the tokenizer.json with the model's own pattern gives.
TEST(GgufGpt2, namesStandForTheModelsPatterns)
{
    for (const auto &[file, pre] : {std::pair{"gpt2", "gpt-2"}, {"llama3", "llama-bpe"}, {"smollm2small", "smollm"}}) {
        const auto json = readJson(std::string(file) + ".json");
        const auto golden = readJson(std::string(file) + ".ids.json");
        auto loaded = Tokenizer::fromGguf(gpt2Vocabulary(json, pre), file);
        ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
        compare(**loaded, golden);
    }
}

TEST(GgufGpt2, otherNamesSplitAsTheModelsPatternsDo)
{
    const auto json = readJson("gpt2.json");
    const auto plain = readJson("gpt2.ids.json")["plain"];
    const auto golden = readJson("prenames.json");
    ASSERT_GE(golden.size(), 5u);
    for (const auto &[pre, differing] : golden.items()) {
        ASSERT_GE(differing.size(), 100u) << pre;
        auto loaded = Tokenizer::fromGguf(gpt2Vocabulary(json, pre), pre);
        ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
        int wrong = 0;
        for (std::size_t i = 0; i < strings().size() && wrong < 4; ++i) {
            const auto it = differing.find(std::to_string(i));
            const auto expected = (it == differing.end() ? plain[i] : *it).get<std::vector<std::int32_t>>();
            const auto got = ids(**loaded, strings()[i]);
            if (got != expected) {
                ++wrong;
                ADD_FAILURE() << pre << " " << nlohmann::json(strings()[i]) << "\n got " << told(**loaded, got) << "\n not " << told(**loaded, expected);
            }
        }
    }
}

} // namespace
} // namespace spectra::testing
