// SPDX-License-Identifier: GPL-3.0-or-later
// What must hold for any text: round trips, places, streaming, size.
#include "tests/engine/tokenizer/support.h"

#include "engine/core/parallel.h"
#include "engine/core/random.h"

#include <algorithm>
#include <random>
#include <thread>

namespace spectra::testing {
namespace {

constexpr const char *byteLevel[] = {"gpt2", "llama3", "smollm2small"};
constexpr const char *all[] = {"gpt2", "roberta", "llama3", "qwen2", "mixed", "llama2", "llama2new", "smollm2small"};

std::string randomBytes(std::mt19937 &random, std::size_t length)
{
    std::string out;
    for (std::size_t i = 0; i < length; ++i)
        out += char(random() % 256);
    return out;
}

/// Half text, half noise; cut anywhere, also within characters.
std::string mixture(std::mt19937 &random)
{
    std::string out;
    for (int part = 0; part < 4; ++part) {
        const std::string &text = strings()[random() % strings().size()];
        const std::size_t cut = text.empty() ? 0 : random() % text.size();
        out += text.substr(cut);
        if (random() % 2 == 0)
            out += randomBytes(random, random() % 6);
    }
    return out;
}

TEST(Properties, byteLevelTokensSpellTheText)
{
    for (const char *name : byteLevel) {
        const auto t = load(name);
        std::mt19937 random(3);
        for (int i = 0; i < 3000; ++i) {
            const std::string text = i < int(strings().size()) ? strings()[std::size_t(i)] : mixture(random);
            auto encoded = t->encode(text, {false, i % 2 == 0});
            ASSERT_TRUE(encoded.ok()) << shown(encoded.error());
            std::string spelled;
            for (std::size_t k = 0; k < encoded->ids.size(); ++k) {
                ASSERT_EQ(std::size_t(encoded->byteOffsets[k]), spelled.size()) << name << " " << nlohmann::json(printableUtf8(text));
                spelled += t->tokenBytes(encoded->ids[k]);
            }
            ASSERT_EQ(spelled, text) << name;
            if (i < int(strings().size())) {
                ASSERT_EQ(t->decode(encoded->ids), text) << name;
            }
        }
    }
}

TEST(Properties, placesNeverDecreaseAndStayInside)
{
    for (const char *name : all) {
        const auto t = load(name);
        std::mt19937 random(4);
        for (int i = 0; i < 3000; ++i) {
            const std::string text = i < int(strings().size()) ? strings()[std::size_t(i)] : mixture(random);
            auto encoded = t->encode(text, {true, true});
            ASSERT_TRUE(encoded.ok()) << shown(encoded.error());
            ASSERT_EQ(encoded->ids.size(), encoded->byteOffsets.size());
            ASSERT_EQ(encoded->ids.size(), encoded->special.size());
            ASSERT_TRUE(std::is_sorted(encoded->byteOffsets.begin(), encoded->byteOffsets.end())) << name << nlohmann::json(printableUtf8(text));
            for (std::size_t k = 0; k < encoded->ids.size(); ++k) {
                ASSERT_GE(encoded->byteOffsets[k], 0);
                ASSERT_LE(std::size_t(encoded->byteOffsets[k]), text.size());
                ASSERT_EQ(encoded->special[k] != 0, t->isSpecial(encoded->ids[k]) && (encoded->special[k] != 0)) << name;
                ASSERT_GE(encoded->ids[k], 0);
                ASSERT_LT(encoded->ids[k], t->size());
            }
        }
    }
}

/// The bytes of a SentencePiece token are found at its place.
TEST(Properties, sentencePiecePlacesPointAtTheTokensText)
{
    for (const char *name : {"llama2", "llama2new"}) {
        const auto t = load(name);
        for (const std::string &text : strings()) {
            auto encoded = t->encode(text, {false, false});
            ASSERT_TRUE(encoded.ok());
            for (std::size_t k = 1; k < encoded->ids.size(); ++k) {
                const std::string bytes = t->tokenBytes(encoded->ids[k]);
                if (bytes.find("\xE2\x96\x81") != std::string::npos || text.find("\xE2\x96\x81") != std::string::npos)
                    continue; // text that has the mark itself reads back as a space
                ASSERT_EQ(text.substr(std::size_t(encoded->byteOffsets[k]), bytes.size()), bytes) << nlohmann::json(text) << k;
            }
        }
    }
}

TEST(Properties, streamIsDecode)
{
    for (const char *name : all) {
        const auto t = load(name);
        std::mt19937 random(5);
        StreamDecoder stream(t);
        for (int i = 0; i < 800; ++i) {
            std::vector<std::int32_t> list;
            if (i % 2 == 0) {
                list = ids(*t, strings()[random() % strings().size()], {true, true});
            } else {
                for (std::size_t n = random() % 12; n > 0; --n)
                    list.push_back(std::int32_t(random() % std::uint32_t(random() % 2 ? t->size() + 3 : 300)));
            }
            std::string streamed;
            for (const std::int32_t id : list) {
                const std::string part = stream.push(id);
                for (std::size_t at = 0; at < part.size();) { // every part is whole characters
                    const int length = utf8Length(part, at);
                    ASSERT_GT(length, 0) << name;
                    at += std::size_t(length);
                }
                streamed += part;
            }
            streamed += stream.finish();
            ASSERT_EQ(streamed, t->decode(list)) << name;
        }
    }
}

TEST(StreamDecoder, holdsBackHalfCharactersOnly)
{
    const auto t = load("gpt2");
    StreamDecoder stream(t);
    const auto list = ids(*t, "a\U0001F469\u200D\U0001F469b");
    std::string text;
    int empty = 0;
    for (const std::int32_t id : list) {
        const std::string part = stream.push(id);
        empty += part.empty() ? 1 : 0;
        text += part;
    }
    EXPECT_EQ(text, "a\U0001F469\u200D\U0001F469b"); // nothing waits for finish()
    EXPECT_GT(empty, 0);
    EXPECT_EQ(stream.finish(), "");
    const std::int32_t half = *t->idOf("ð"); // the byte F0
    EXPECT_EQ(stream.push(half), "");
    EXPECT_EQ(stream.finish(), "\uFFFD");
    EXPECT_EQ(stream.push(*t->idOf("a")), "a");
}

TEST(Encode, textThatSpellsASpecialTokenIsTextUnlessAsked)
{
    const auto t = load("qwen2");
    const std::string text = "x<|im_start|>user";
    const std::int32_t start = *t->idOf("<|im_start|>");
    const auto plain = ids(*t, text, {true, false});
    EXPECT_EQ(std::count(plain.begin(), plain.end(), start), 0);
    EXPECT_EQ(t->decode(plain), text);
    auto parsed = t->encode(text, {true, true});
    ASSERT_TRUE(parsed.ok());
    const auto at = std::find(parsed->ids.begin(), parsed->ids.end(), start) - parsed->ids.begin();
    ASSERT_LT(std::size_t(at), parsed->ids.size());
    EXPECT_EQ(parsed->byteOffsets[std::size_t(at)], 1);
    EXPECT_EQ(parsed->special[std::size_t(at)], 1);
    EXPECT_EQ(t->decode(parsed->ids, true), "xuser");
    EXPECT_EQ(t->tokenBytes(start), "<|im_start|>");
    EXPECT_EQ(t->decode(std::vector<std::int32_t>{start}), "<|im_start|>");
}

TEST(Encode, addedTokensSitAtTheNeighbouringPlace)
{
    const auto t = load("roberta");
    auto encoded = t->encode("abc");
    ASSERT_TRUE(encoded.ok());
    EXPECT_EQ(encoded->special.front(), 1);
    EXPECT_EQ(encoded->byteOffsets.front(), 0);
    EXPECT_EQ(encoded->special.back(), 1);
    EXPECT_EQ(encoded->byteOffsets.back(), 3);
    EXPECT_TRUE(t->addsBos());
    EXPECT_EQ(t->bos(), encoded->ids.front());
}

TEST(Encode, bytesThatAreNotUtf8)
{
    const std::string noise = "a\xFF\xC3 b\xE4\xB8";
    const auto bytes = load("gpt2");
    EXPECT_EQ(bytes->decode(ids(*bytes, noise)), "a\uFFFD\uFFFD b\uFFFD"); // "E4 B8" is one ill-formed part
    const auto pieces = load("llama2");
    const auto list = ids(*pieces, noise);
    for (const char *byte : {"<0xFF>", "<0xC3>", "<0xE4>", "<0xB8>"})
        EXPECT_EQ(std::count(list.begin(), list.end(), *pieces->idOf(byte)), 1) << byte;
    const auto mixed = load("mixed"); // neither bytes nor fallback: the unknown token
    EXPECT_EQ(ids(*mixed, "\xFF").size(), 1u);
}

/// Long words must not be quadratic: each of these would take hours if they were.
TEST(Encode, longTextsAndLongWords)
{
    std::mt19937 random(6);
    const std::size_t length = 3'000'000;
    std::string letters(length, 'a');
    for (char &c : letters)
        c = char('a' + random() % 26);
    for (const char *name : {"smollm2small", "llama3", "llama2"}) {
        const auto t = load(name);
        for (const std::string &text : {std::string(length, 'a'), letters, std::string(length, ' '), std::string(length / 10, '\n')}) {
            auto encoded = t->encode(text, {false, false});
            ASSERT_TRUE(encoded.ok()) << shown(encoded.error());
            std::string spelled;
            for (const std::int32_t id : encoded->ids)
                spelled += t->tokenBytes(id);
            EXPECT_TRUE(spelled == text || spelled == " " + text) << name;
        }
    }
}

TEST(Encode, manyThreadsGiveTheSame)
{
    const auto t = load("qwen2");
    std::string text;
    for (const std::string &s : strings())
        text += s + "\n";
    const auto expected = ids(*t, text);
    std::vector<std::vector<std::int32_t>> got(4);
    {
        std::vector<std::jthread> threads;
        for (auto &list : got)
            threads.emplace_back([&] { list = t->encode(text, {false, false}).value().ids; });
    }
    for (const auto &list : got)
        EXPECT_EQ(list, expected);
}

} // namespace
} // namespace spectra::testing
