// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/run/sequences.h"
#include "tests/engine/run/runsupport.h"

#include <gmock/gmock.h>

#include <thread>

namespace spectra::test {
namespace {

std::shared_ptr<const Tokenizer> tokenizer(bool bos = true)
{
    auto made = Tokenizer::fromJson(tinyTokenizerJson({bos, 2}), "tiny");
    EXPECT_TRUE(made.ok()) << made.error().what;
    return *made;
}

CutResult cutOf(const std::vector<Prompt> &prompts, const SequenceCut &cut, bool bos = true)
{
    auto result = cutPrompts(prompts, *tokenizer(bos), 128, cut);
    if (!result) {
        ADD_FAILURE() << result.error().what << ": " << result.error().where;
        return {};
    }
    return *result;
}

/// What must be true of every cut sequence.
void checkSequences(const CutResult &cut, const Tokenizer &t, bool bos)
{
    std::int64_t tokens = 0;
    for (const TokenSequence &s : cut.sequences) {
        ASSERT_FALSE(s.ids.empty());
        ASSERT_EQ(s.ids.size(), s.byteOffsets.size());
        ASSERT_EQ(s.ids.size(), s.mask.size());
        tokens += static_cast<std::int64_t>(s.ids.size());
        const std::size_t first = bos ? 1 : 0;
        if (bos) {
            EXPECT_EQ(s.ids[0], 1);
            EXPECT_EQ(s.mask[0], 0) << "a token that no text stands for is not counted";
        }
        for (std::size_t i = 0; i < s.text.size();) {
            const int n = utf8Length(s.text, i);
            ASSERT_GT(n, 0) << "the text is valid UTF-8";
            i += static_cast<std::size_t>(n);
        }
        for (std::size_t i = first; i < s.ids.size(); ++i) {
            EXPECT_EQ(s.mask[i], 1);
            const auto begin = static_cast<std::size_t>(s.byteOffsets[i]);
            const std::string bytes = t.tokenBytes(s.ids[i]);
            ASSERT_LE(begin, s.text.size());
            EXPECT_EQ(s.text.substr(begin, bytes.size()), bytes) << "token " << i << " of " << s.id;
        }
    }
    EXPECT_EQ(tokens, cut.tokens);
}

TEST(Sequences, ShortPromptsStayWholeAndKeepTheirNames)
{
    Prompt a = promptOf("the river", "prose"), b = promptOf("in winter", "law");
    a.id = "A";
    a.label = "first";
    b.id = "B";
    const CutResult cut = cutOf({a, b}, {});
    ASSERT_EQ(cut.sequences.size(), 2u);
    EXPECT_EQ(cut.sequences[0].id, "A");
    EXPECT_EQ(cut.sequences[0].domain, "prose");
    EXPECT_EQ(cut.sequences[0].label, "first");
    EXPECT_EQ(cut.sequences[0].text, "the river");
    EXPECT_EQ(cut.sequences[1].id, "B");
    checkSequences(cut, *tokenizer(), true);
}

TEST(Sequences, LongOnesAreCutAndTogetherGiveTheTextBack)
{
    for (const bool bos : {true, false}) {
        Prompt p = promptOf(someText(200, 3));
        p.id = "long";
        const CutResult cut = cutOf({p}, {32, 0, false, false, {}}, bos);
        checkSequences(cut, *tokenizer(bos), bos);
        ASSERT_GT(cut.sequences.size(), 5u);
        std::string text;
        for (std::size_t i = 0; i < cut.sequences.size(); ++i) {
            const TokenSequence &s = cut.sequences[i];
            EXPECT_LE(s.ids.size(), 32u) << "the sequence length counts the BOS";
            if (i + 1 < cut.sequences.size()) {
                EXPECT_GE(s.ids.size(), 29u) << "a cut gives away the tokens of one character at most";
            }
            EXPECT_EQ(s.id, "long#" + std::to_string(i + 1));
            text += s.text;
        }
        EXPECT_EQ(text, p.text);
    }
}

TEST(Sequences, DocumentsNumberTheirSequences)
{
    Prompt p = promptOf(someText(50, 3));
    p.document = "novel.txt";
    const CutResult cut = cutOf({p}, {32, 0, false, false, {}});
    EXPECT_EQ(cut.sequences[0].id, "novel.txt:1");
    EXPECT_EQ(cut.sequences[1].id, "novel.txt:2");
}

TEST(Sequences, MaxTokensCountsPerGroupAndWithoutBos)
{
    const std::vector<Prompt> prompts{promptOf(someText(60, 1), "a", 0), promptOf(someText(60, 2), "a", 0), promptOf(someText(120, 3), "b", 1)};
    for (const std::int64_t most : {1, 50, 100, 300}) {
        const CutResult cut = cutOf(prompts, {33, most, false, false, {}});
        checkSequences(cut, *tokenizer(), true);
        std::map<std::string, std::int64_t> counted;
        for (const TokenSequence &s : cut.sequences)
            counted[s.domain] += static_cast<std::int64_t>(s.ids.size()) - 1;
        for (const char *group : {"a", "b"}) {
            EXPECT_LE(counted[group], most);
            EXPECT_GE(counted[group], most - 1) << "only a character that does not fit is left out";
        }
    }
}

TEST(Sequences, NoCutFallsInsideACharacter)
{
    std::string text;
    for (int i = 0; i < 60; ++i)
        text += "\xF0\x9F\x98\x80\xE6\x97\xA5"; // 😀日: 4 + 3 tokens
    for (int length = 3; length < 24; ++length) {
        const CutResult cut = cutOf({promptOf(text)}, {length, 0, false, false, {}});
        std::string back;
        for (const TokenSequence &s : cut.sequences) {
            back += s.text;
            if (length >= 5) {
                EXPECT_EQ(s.text.find("\xEF\xBF\xBD"), std::string::npos) << length;
            }
        }
        if (length >= 5) { // shorter than a character: it cannot be kept whole
            EXPECT_EQ(back, text) << length;
            checkSequences(cut, *tokenizer(), true);
        }
    }
    for (std::int64_t most = 4; most < 20; ++most) {
        const CutResult cut = cutOf({promptOf(text)}, {512, most, false, false, {}});
        EXPECT_EQ(cut.sequences[0].text, text.substr(0, cut.sequences[0].text.size())) << "a prefix of the text";
        checkSequences(cut, *tokenizer(), true);
    }
}

TEST(Sequences, ACutTextHasTheTokensOfTheWholeOne)
{
    const std::string text = someText(3000, 5);
    const auto t = tokenizer(false);
    const auto whole = t->encode(text);
    ASSERT_TRUE(whole.ok());
    // Few tokens of a long text: only its beginning is tokenised, with the same result.
    for (const std::int64_t most : {10, 100, 1000}) {
        const CutResult cut = cutOf({promptOf(text)}, {1 << 20, most, false, false, {}}, false);
        ASSERT_EQ(cut.sequences.size(), 1u);
        EXPECT_TRUE(std::equal(cut.sequences[0].ids.begin(), cut.sequences[0].ids.end(), whole->ids.begin())) << most;
    }
}

TEST(Sequences, BytesThatAreNotUtf8AreReplacedAndSaidSo)
{
    const CutResult cut = cutOf({promptOf("a\xFF\xC3(\xE6\x97z")}, {});
    EXPECT_EQ(cut.sequences[0].text, "a\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD\xEF\xBF\xBDz");
    ASSERT_EQ(cut.warnings.size(), 1u);
    EXPECT_THAT(cut.warnings[0], testing::HasSubstr("4 bytes"));
}

TEST(Sequences, SpecialTextIsTextUnlessParsed)
{
    const CutResult plain = cutOf({promptOf("a</s>b")}, {});
    EXPECT_THAT(plain.sequences[0].ids, testing::Not(testing::Contains(2)));
    const CutResult parsed = cutOf({promptOf("a</s>b")}, {512, 0, true, false, {}});
    ASSERT_THAT(parsed.sequences[0].ids, testing::Contains(2));
    for (std::size_t i = 0; i < parsed.sequences[0].ids.size(); ++i)
        EXPECT_EQ(parsed.sequences[0].mask[i] == 0, parsed.sequences[0].ids[i] <= 2) << "special tokens are not counted";
}

TEST(Sequences, GivenIdsAreTakenAsTheyAre)
{
    Prompt p;
    p.id = "ids.json";
    p.ids = {5, 2, 1, 100, 5};
    const CutResult cut = cutOf({p}, {2, 3, false, false, {}});
    ASSERT_EQ(cut.sequences.size(), 1u);
    EXPECT_EQ(cut.sequences[0].ids, p.ids) << "nothing added or cut";
    EXPECT_EQ(cut.sequences[0].mask, (std::vector<std::uint8_t>{1, 0, 0, 1, 1}));
    p.ids.push_back(128);
    const auto outside = cutPrompts({p}, *tokenizer(), 128, {});
    ASSERT_FALSE(outside.ok());
    EXPECT_EQ(outside.error().kind, ErrorKind::input);
    EXPECT_THAT(outside.error().what, testing::HasSubstr("128"));
}

TEST(Sequences, AStopEndsTokenisation)
{
    std::stop_source stop;
    stop.request_stop();
    const auto result = cutPrompts({promptOf(someText(10, 1))}, *tokenizer(), 128, {512, 0, false, false, stop.get_token()});
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().kind, ErrorKind::cancelled);
    // And while a long text is on its way.
    std::stop_source later;
    const std::string text = someText(400000, 9);
    std::jthread stopper([&] { later.request_stop(); });
    const auto whole = tokenizer()->encode(text, {false, false, later.get_token()});
    ASSERT_FALSE(whole.ok());
    EXPECT_EQ(whole.error().kind, ErrorKind::cancelled);
}

} // namespace
} // namespace spectra::test
