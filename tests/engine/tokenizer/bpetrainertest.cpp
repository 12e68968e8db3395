// SPDX-License-Identifier: GPL-3.0-or-later
// The trainer against what Hugging Face tokenizers makes of the same text (tests/fixtures/tokenizer/make_bpe_training.py).
#include "engine/tokenizer/bpetrainer.h"
#include "tests/engine/tokenizer/support.h"

#include <algorithm>

namespace spectra::testing {
namespace {

std::string trainingText()
{
    auto text = readTextFile(fixture("bpe_training.txt"));
    if (!text)
        throw std::runtime_error(text.error().what + ": " + text.error().where);
    return *text;
}

BpeTrainOptions optionsOf(const nlohmann::json &golden)
{
    return {golden["vocabulary"].get<std::int64_t>(), golden["special"].get<std::vector<std::string>>(), golden["frequency"].get<std::int64_t>()};
}

std::vector<std::string> piecesOf(const Tokenizer &t)
{
    std::vector<std::string> pieces;
    for (std::int32_t id = 0; id < t.size(); ++id)
        pieces.push_back(t.piece(id));
    return pieces;
}

std::vector<std::string> mergesOf(const std::string &json)
{
    std::vector<std::string> merges;
    const auto root = nlohmann::json::parse(json);
    for (const auto &merge : root["model"]["merges"])
        merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    return merges;
}

TEST(BpeTrainer, equalsHuggingFace)
{
    const auto cases = readJson("bpe_training.json");
    ASSERT_EQ(cases.size(), 3u);
    const std::string text = trainingText();
    for (const auto &[name, golden] : cases.items()) {
        BpeTrainer trainer(optionsOf(golden));
        trainer.add(text);
        auto json = trainer.train({}, {});
        ASSERT_TRUE(json.ok()) << name << ": " << shown(json.error());
        auto loaded = Tokenizer::fromJson(*json, "trained", trainer.configJson());
        ASSERT_TRUE(loaded.ok()) << shown(loaded.error());
        EXPECT_EQ((*loaded)->size(), golden["vocabulary"].get<std::int64_t>());
        EXPECT_EQ(piecesOf(**loaded), golden["pieces"].get<std::vector<std::string>>()) << name;
        EXPECT_EQ(mergesOf(*json), golden["merges"].get<std::vector<std::string>>()) << name;
        EXPECT_EQ((*loaded)->eos(), 0);
        if (!golden.contains("ids"))
            continue;
        for (std::size_t i = 0; i < golden["ids"].size(); ++i)
            ASSERT_EQ(ids(**loaded, strings()[i], {false, true}), golden["ids"][i].get<std::vector<std::int32_t>>()) << nlohmann::json(strings()[i]);
    }
}

/// Pieces that end at line ends, in any order, count the same words; so does a second call.
TEST(BpeTrainer, orderOfPiecesDoesNotMatter)
{
    const std::string text = trainingText();
    std::vector<std::string> lines;
    for (std::size_t at = 0; at < text.size();) {
        std::size_t end = text.find('\n', at);
        while (end != std::string::npos && end + 1 < text.size() && std::string_view(" \t\r\n").find(text[end + 1]) != std::string::npos)
            end = text.find('\n', end + 1); // white space runs stay whole
        end = end == std::string::npos ? text.size() : end + 1;
        if (end < text.size() && end - at < 100 && !lines.empty())
            lines.back() += text.substr(at, end - at);
        else
            lines.push_back(text.substr(at, end - at));
        at = end;
    }
    ASSERT_GT(lines.size(), 50u);
    const BpeTrainOptions options{1000, {"<|endoftext|>"}, 2};
    BpeTrainer forwards(options), backwards(options);
    for (const std::string &line : lines)
        forwards.add(line);
    std::reverse(lines.begin(), lines.end());
    for (const std::string &line : lines)
        backwards.add(line);
    auto first = forwards.train({}, {});
    auto second = backwards.train({}, {});
    auto again = forwards.train({}, {});
    ASSERT_TRUE(first.ok() && second.ok() && again.ok());
    EXPECT_EQ(*first, *second);
    EXPECT_EQ(*first, *again);
}

/// Worked by hand: "low low low lower" has pairs l-o 4, o-w 4, w-e 1, e-r 1, space-l 3.
TEST(BpeTrainer, tiesGoToTheLowerPair)
{
    BpeTrainer trainer({256 + 1 + 3, {"<|endoftext|>"}, 1});
    trainer.add("low low low lower");
    auto json = trainer.train({}, {});
    ASSERT_TRUE(json.ok()) << shown(json.error());
    // l-o and o-w are four each, l < o; then lo-w is four; then Ġ-low is three.
    EXPECT_EQ(mergesOf(*json), (std::vector<std::string>{"l o", "lo w", "Ġ low"}));
}

TEST(BpeTrainer, bytesThatAreNotUtf8AreWords)
{
    BpeTrainer trainer({256 + 1 + 1, {"<|endoftext|>"}, 2});
    trainer.add("\xFF\xFE\xFF\xFE");
    trainer.add("a\xFF\xFE");
    auto json = trainer.train({}, {});
    ASSERT_TRUE(json.ok()) << shown(json.error());
    auto loaded = Tokenizer::fromJson(*json, "trained");
    ASSERT_TRUE(loaded.ok());
    EXPECT_EQ((*loaded)->tokenBytes(257), "\xFF\xFE");
    EXPECT_EQ(ids(**loaded, "\xFF\xFE").size(), 1u);
}

TEST(BpeTrainer, tooLittleTextIsSaid)
{
    BpeTrainer trainer({300, {"<|endoftext|>"}, 2});
    trainer.add("ab ab");
    const auto json = trainer.train({}, {});
    ASSERT_FALSE(json.ok());
    EXPECT_EQ(json.error().kind, ErrorKind::input);
    EXPECT_NE(json.error().what.find("it gives 258"), std::string::npos) << json.error().what;
    EXPECT_NE(json.error().mend.find("at most 258"), std::string::npos) << json.error().mend;
}

TEST(BpeTrainer, wrongOptionsAreUsageErrors)
{
    const std::vector<BpeTrainOptions> wrong = {{256, {"<|endoftext|>"}, 2}, {-1, {"<|endoftext|>"}, 2}, {std::int64_t(1) << 40, {"<|endoftext|>"}, 2},
                                                {400, {""}, 2},              {400, {"<s>", "<s>"}, 2},   {400, {"a"}, 2},
                                                {400, {"Ġ"}, 2},             {400, {"\xFF"}, 2}};
    for (const BpeTrainOptions &options : wrong) {
        BpeTrainer trainer(options);
        trainer.add("text");
        const auto json = trainer.train({}, {});
        ASSERT_FALSE(json.ok()) << options.vocabulary;
        EXPECT_EQ(json.error().kind, ErrorKind::usage);
    }
}

TEST(BpeTrainer, stops)
{
    BpeTrainer trainer({300, {"<|endoftext|>"}, 2});
    trainer.add(trainingText());
    std::stop_source source;
    source.request_stop();
    const auto json = trainer.train({}, source.get_token());
    ASSERT_FALSE(json.ok());
    EXPECT_EQ(json.error().kind, ErrorKind::cancelled);
}

TEST(BpeTrainer, tellsProgress)
{
    BpeTrainer trainer({700, {"<|endoftext|>"}, 2});
    trainer.add(trainingText());
    std::int64_t last = 0;
    int calls = 0;
    auto json = trainer.train(
        [&](const Progress &p) {
            EXPECT_GE(p.done, last);
            EXPECT_LE(p.done, p.total);
            EXPECT_EQ(p.total, 443);
            last = p.done;
            ++calls;
        },
        {});
    ASSERT_TRUE(json.ok());
    EXPECT_GE(calls, 5);
}

} // namespace
} // namespace spectra::testing
