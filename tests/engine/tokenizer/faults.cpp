// SPDX-License-Identifier: GPL-3.0-or-later
// Hostile and broken tokenizers: an Error of kind input that names the place, never a crash.
#include "tests/engine/tokenizer/support.h"

#include <limits>
#include <random>

namespace spectra::testing {
namespace {

using nlohmann::json;

json good()
{
    return {{"version", "1.0"},
            {"added_tokens", json::array({{{"id", 4}, {"content", "<s>"}, {"special", true}}})},
            {"normalizer", nullptr},
            {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
            {"post_processor", nullptr},
            {"decoder", {{"type", "ByteLevel"}}},
            {"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}, {"c", 3}}}, {"merges", json::array({json::array({"a", "b"})})}}}};
}

void expectRefused(const std::string &text, const std::string &what, const std::string &place)
{
    auto loaded = Tokenizer::fromJson(text, "some.json");
    ASSERT_FALSE(loaded.ok()) << text.substr(0, 300);
    EXPECT_EQ(loaded.error().kind, ErrorKind::input);
    EXPECT_NE(loaded.error().what.find(what), std::string::npos) << shown(loaded.error());
    EXPECT_EQ(loaded.error().where.substr(0, 9), "some.json");
    EXPECT_NE(loaded.error().where.find(place), std::string::npos) << shown(loaded.error());
}

TEST(Faults, theGoodOneIsGood)
{
    auto loaded = Tokenizer::fromJson(good().dump(), "some.json");
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    EXPECT_EQ(ids(**loaded, "abcab"), (std::vector<std::int32_t>{2, 3, 2}));
}

TEST(Faults, everyTruncationIsRefused)
{
    const std::string text = good().dump();
    for (std::size_t length = 0; length < text.size(); ++length)
        expectRefused(text.substr(0, length), "JSON", "byte");
}

TEST(Faults, depth)
{
    expectRefused(std::string(100'000, '['), "nested deeper", "byte 64");
    expectRefused(std::string(100'000, '[') + std::string(100'000, ']'), "nested deeper", "byte 64");
    std::string objects;
    for (int i = 0; i < 100'000; ++i)
        objects += "{\"a\":";
    expectRefused(objects, "nested deeper", "byte");
    json j = good();
    json nested = {{"type", "NFC"}};
    for (int i = 0; i < 20; ++i)
        nested = {{"type", "Sequence"}, {"normalizers", json::array({nested})}};
    j["normalizer"] = nested;
    expectRefused(j.dump(), "8 levels", "normalizer");
}

TEST(Faults, valuesOfTheWrongKind)
{
    expectRefused("[]", "object", "");
    expectRefused("{}", "no model", "");
    const json wrong[] = {nullptr, true, 7, -1, 1.5, "text", json::array(), json::array({1}), json::object(), {{"type", 5}}, {{"type", "No"}}};
    for (const char *key : {"added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"}) {
        for (const json &value : wrong) {
            json j = good();
            j[key] = value;
            auto loaded = Tokenizer::fromJson(j.dump(), "some.json"); // some are fine (null); none may crash
            if (!loaded) {
                EXPECT_EQ(loaded.error().kind, ErrorKind::input);
                EXPECT_NE(loaded.error().where.find(key), std::string::npos) << key << value << shown(loaded.error());
            }
        }
    }
    for (const char *key : {"type", "vocab", "merges", "unk_token", "byte_fallback", "dropout", "ignore_merges", "continuing_subword_prefix"}) {
        for (const json &value : wrong) {
            json j = good();
            j["model"][key] = value;
            auto loaded = Tokenizer::fromJson(j.dump(), "some.json");
            if (!loaded)
                EXPECT_EQ(loaded.error().kind, ErrorKind::input);
            else
                (void)ids(**loaded, "abc");
        }
    }
}

TEST(Faults, unsupportedElementsAreNamed)
{
    const auto with = [](const char *key, json value) {
        json j = good();
        j[key] = std::move(value);
        return j.dump();
    };
    expectRefused(with("normalizer", {{"type", "BertNormalizer"}}), "BertNormalizer", "normalizer");
    expectRefused(with("normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", ""}}), "Precompiled", "normalizer");
    expectRefused(with("pre_tokenizer", {{"type", "UnicodeScripts"}}), "UnicodeScripts", "pre_tokenizer");
    expectRefused(with("post_processor", {{"type", "RobertaProcessing"}}), "RobertaProcessing", "post_processor");
    expectRefused(with("decoder", {{"type", "WordPiece"}}), "WordPiece", "decoder");
    expectRefused(with("model", {{"type", "Unigram"}, {"vocab", json::array()}}), "Unigram", "model");
    expectRefused(with("pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {{{"type", "ByteLevel"}}, {{"type", "Digits"}}}}}), "after ByteLevel", "pre_tokenizer");
    expectRefused(with("post_processor", {{"type", "TemplateProcessing"}, {"single", json::array({{{"SpecialToken", {{"id", "<x>"}}}}})}, {"special_tokens", json::object()}}), "<x>", "post_processor");
    expectRefused(with("post_processor", {{"type", "TemplateProcessing"}, {"single", json::array({{{"SpecialToken", {{"id", "<x>"}}}}, {{"Sequence", {{"id", "A"}}}}})}, {"special_tokens", {{"<x>", {{"ids", {99}}}}}}}), "not in the vocabulary", "post_processor");
}

TEST(Faults, ids)
{
    const auto with = [](json id) {
        json j = good();
        j["model"]["vocab"]["c"] = std::move(id);
        return j.dump();
    };
    expectRefused(with(-1), "negative", "vocab[\"c\"]");
    expectRefused(with(1.5), "whole number", "vocab[\"c\"]");
    expectRefused(with("3"), "whole number", "vocab[\"c\"]");
    expectRefused(with(std::uint64_t(1) << 40), "out of range", "vocab[\"c\"]");
    expectRefused(with(std::numeric_limits<std::uint64_t>::max()), "out of range", "vocab[\"c\"]");
    expectRefused(with(1'000'000), "huge gaps", "vocab");
    expectRefused(with(2'000'000'000), "out of range", "vocab");
    expectRefused(with(1), "twice", "vocab");
    json j = good();
    j["added_tokens"][0]["id"] = 2;
    expectRefused(j.dump(), "twice", "added_tokens");
    j["added_tokens"][0] = {{"id", 9}, {"content", "ab"}};
    expectRefused(j.dump(), "another id", "added_tokens");
    j["added_tokens"][0] = {{"id", -3}, {"content", "x"}};
    expectRefused(j.dump(), "negative", "added_tokens: [0]");
    j["added_tokens"][0] = {{"id", 9}, {"content", std::string(5000, 'x')}};
    expectRefused(j.dump(), "longer", "added_tokens");
    j["model"]["vocab"] = json::object();
    j["model"]["merges"] = json::array();
    j["added_tokens"] = json::array();
    expectRefused(j.dump(), "empty", "vocab");
}

TEST(Faults, merges)
{
    const auto with = [](json merges) {
        json j = good();
        j["model"]["merges"] = std::move(merges);
        return j.dump();
    };
    expectRefused(with(json::parse(R"(["a"])")), "two pieces", "merges[0]");
    expectRefused(with(json::parse(R"(["a b", "a b c"])")), "two pieces", "merges[1]");
    expectRefused(with(json::parse(R"([["a", "b", "c"]])")), "list of two", "merges[0]");
    expectRefused(with(json::parse(R"([7])")), "list of two", "merges[0]");
    expectRefused(with(json::parse(R"([["a", ""]])")), "empty side", "merges[0]");
    expectRefused(with(json::parse(R"([["a", "x"]])")), "\"x\"", "merges[0]");
    expectRefused(with(json::parse(R"([["b", "a"]])")), "\"ba\"", "merges[0]");
    // In a circle: ab needs a merge that comes later, and that one needs ab.
    json j = good();
    j["model"]["vocab"] = {{"a", 0}, {"b", 1}, {"ab", 2}, {"aba", 3}, {"ba", 5}, {"abab", 6}};
    j["model"]["merges"] = json::parse(R"([["ab", "ab"], ["ab", "a"], ["a", "ba"], ["b", "a"], ["a", "b"], ["a", "b"]])");
    auto loaded = Tokenizer::fromJson(j.dump(), "some.json");
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    EXPECT_EQ(ids(**loaded, std::string(1000, 'a')).size(), 1000u);
    EXPECT_FALSE(ids(**loaded, "abababab").empty());
}

TEST(Faults, patterns)
{
    const auto with = [](const std::string &pattern) {
        json j = good();
        j["pre_tokenizer"] = {{"type", "Sequence"},
                              {"pretokenizers", {{{"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", "Isolated"}},
                                                 {{"type", "ByteLevel"}, {"use_regex", false}}}}};
        return j.dump();
    };
    for (const char *pattern : {"", "(", "[a", "a{2,1}", "\\p{Nonsense}", "*", "(?<n>a", "\\", "[z-a]", "(?P<x>a)", "a\\Kb", "(*ACCEPT)", "(?R)", "\\u12"})
        expectRefused(with(pattern), "pattern", "pre_tokenizer");
    expectRefused(with("[\\p{L}&&[^\\p{Han}]]+"), "&&", "pre_tokenizer");
    expectRefused(with("[a[bc]]"), "class inside", "pre_tokenizer");
    expectRefused(with("\\h+"), "\\h", "pre_tokenizer");
    expectRefused(with("\\p{N}{1,3}+"), "{n,m}", "pre_tokenizer");
    expectRefused(with(std::string(100'000, 'a')), "64 KiB", "pre_tokenizer");
    expectRefused(with(std::string(5'000, '(') + std::string(5'000, ')')), "compile", "pre_tokenizer");
}

TEST(Faults, aPatternThatNeverEndsIsAnErrorOfTheText)
{
    json j = good();
    j["pre_tokenizer"] = {{"type", "Sequence"},
                          {"pretokenizers", {{{"type", "Split"}, {"pattern", {{"Regex", "(a|aa)+(a|aa)+(a|aa)+$c"}}}, {"behavior", "Isolated"}},
                                             {{"type", "ByteLevel"}, {"use_regex", false}}}}};
    auto loaded = Tokenizer::fromJson(j.dump(), "some.json");
    ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
    auto encoded = (*loaded)->encode(std::string(300, 'a') + "bc");
    ASSERT_FALSE(encoded.ok());
    EXPECT_EQ(encoded.error().kind, ErrorKind::input);
    EXPECT_NE(encoded.error().what.find("pattern"), std::string::npos);
}

TEST(Faults, missingAndEmptyFiles)
{
    auto loaded = Tokenizer::fromJsonFile(fixture("no-such.json"));
    ASSERT_FALSE(loaded.ok());
    EXPECT_EQ(loaded.error().kind, ErrorKind::input);
    EXPECT_NE(loaded.error().where.find("no-such.json"), std::string::npos);
}

TEST(Faults, randomDamage)
{
    const std::string text = good().dump();
    std::mt19937 random(9);
    for (int i = 0; i < 20'000; ++i) {
        std::string damaged = text;
        for (std::size_t n = 1 + random() % 3; n > 0; --n)
            damaged[random() % damaged.size()] = char(random() % 256);
        if (auto loaded = Tokenizer::fromJson(damaged, "some.json"))
            (void)(*loaded)->encode("abcab <s> \xFF");
        else
            ASSERT_EQ(loaded.error().kind, ErrorKind::input);
    }
}

TEST(Faults, ggufVocabularies)
{
    GgufVocabulary v;
    v.model = "gpt2";
    v.pre = "gpt-2";
    v.tokens = {"a", "b", "ab", "<s>"};
    v.types = {1, 1, 1, 3};
    v.merges = {"a b"};
    ASSERT_TRUE(Tokenizer::fromGguf(v, "some.gguf").ok());
    const auto refused = [](const GgufVocabulary &bad, const std::string &what) {
        auto loaded = Tokenizer::fromGguf(bad, "some.gguf");
        ASSERT_FALSE(loaded.ok()) << what;
        EXPECT_EQ(loaded.error().kind, ErrorKind::input);
        EXPECT_EQ(loaded.error().where.substr(0, 9), "some.gguf");
        EXPECT_NE((loaded.error().what + loaded.error().where).find(what), std::string::npos) << shown(loaded.error());
    };
    const auto change = [&](auto f) {
        GgufVocabulary bad = v;
        f(bad);
        return bad;
    };
    refused(change([](auto &b) { b.model = "rwkv"; }), "rwkv");
    refused(change([](auto &b) { b.pre = "jais"; }), "jais");
    refused(change([](auto &b) { b.tokens.clear(); }), "no tokens");
    refused(change([](auto &b) { b.types.pop_back(); }), "token_type");
    refused(change([](auto &b) { b.merges.clear(); }), "no merges");
    refused(change([](auto &b) { b.merges = {"ab"}; }), "merges[0]");
    refused(change([](auto &b) { b.merges = {"a z"}; }), "merges[0]");
    refused(change([](auto &b) { b.tokens[1] = "a"; }), "twice");
    refused(change([](auto &b) { b.tokens[1] = "\xFF"; }), "UTF-8");
    refused(change([](auto &b) { b.eos = 77; }), "77");
    refused(change([](auto &b) { b.chatTemplate = "\xFF"; }), "chat template");
    refused(change([](auto &b) { b.model = "llama"; }), "scores");
    refused(change([](auto &b) {
                b.model = "llama";
                b.scores = {0, 0, 0, std::numeric_limits<float>::quiet_NaN()};
                b.types = {1, 1, 1, 1};
            }),
            "not a number");
    for (const std::string &name : Tokenizer::ggufPreNames()) {
        auto loaded = Tokenizer::fromGguf(change([&](auto &b) { b.pre = name; }), "some.gguf");
        EXPECT_TRUE(loaded.ok()) << name << ": " << shown(loaded.error());
    }
}

} // namespace
} // namespace spectra::testing
