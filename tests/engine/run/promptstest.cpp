// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/prompts.h"
#include "tests/support/tinymodel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace spectra::test {
namespace {
using testing::HasSubstr;

Error errorOf(const Result<std::vector<Prompt>> &result)
{
    EXPECT_FALSE(result.ok());
    return result.ok() ? Error{} : result.error();
}

TEST(Prompts, JsonLinesGiveTextDomainLabelAndId)
{
    const auto read = parsePrompts("{\"text\": \"one\"}\n\n{\"text\": \"two\", \"domain\": \"law\", \"label\": \"L\", \"id\": \"x7\"}\r\n   \n{\"text\": \"three\", \"domain\": null}",
                                   "f.jsonl", true, "fallback");
    ASSERT_TRUE(read.ok());
    ASSERT_EQ(read->size(), 3u);
    EXPECT_EQ((*read)[0].text, "one");
    EXPECT_EQ((*read)[0].domain, "fallback");
    EXPECT_EQ((*read)[0].id, "f.jsonl:1");
    EXPECT_EQ((*read)[1].domain, "law");
    EXPECT_EQ((*read)[1].label, "L");
    EXPECT_EQ((*read)[1].id, "x7");
    EXPECT_EQ((*read)[2].domain, "fallback");
    EXPECT_EQ((*read)[2].id, "f.jsonl:5") << "ids count the lines of the file, blank ones too";
}

TEST(Prompts, ErrorsOfJsonLinesNameTheLine)
{
    struct Case {
        std::string line, says;
    };
    for (const Case &c : {Case{"{\"text\": 3}", "text"}, {"[1]", "JSON object"}, {"{\"texts\": \"a\"}", "text"}, {"{\"text\": \"a\"", "JSON object"}, {"{\"text\": \"a\", \"domain\": 4}", "domain"},
                          {"{\"text\": \"  \"}", "no text"}, {"{\"text\": \"a\\u0000b\"}", "U+0000"}, {"{\"text\": \"a\", \"id\": \"\\u0000\"}", "U+0000"}, {"{\"text\": \"\xFF\"}", "UTF-8"},
                          {std::string(3000, '[') + std::string(3000, ']'), ""}}) {
        const Error error = errorOf(parsePrompts("{\"text\": \"good\"}\n" + c.line + "\n", "f.jsonl", true, {}));
        EXPECT_EQ(error.kind, ErrorKind::input) << c.line.substr(0, 40);
        EXPECT_THAT(error.where, HasSubstr("f.jsonl: line 2")) << c.line.substr(0, 40);
        EXPECT_THAT(error.what, HasSubstr(c.says)) << c.line.substr(0, 40);
    }
}

TEST(Prompts, AByteOrderMarkDoesNotHideTheFirstObject)
{
    const auto read = parsePrompts("\xEF\xBB\xBF{\"text\": \"one\"}\n", "f.jsonl", true, {});
    ASSERT_TRUE(read.ok()) << read.error().what;
    EXPECT_EQ(read->front().text, "one");
}

TEST(Prompts, EmptyBlankAndBinaryAreRefused)
{
    for (bool jsonl : {false, true})
        for (const std::string &content : {std::string(), std::string(" \n\t\r\n "), std::string("text\0more", 9)}) {
            const Error error = errorOf(parsePrompts(content, "some.txt", jsonl, {}));
            EXPECT_EQ(error.kind, ErrorKind::input);
            EXPECT_EQ(error.where, "some.txt");
            EXPECT_FALSE(error.what.empty());
        }
}

TEST(Prompts, AnyOtherFileIsOneDocument)
{
    const TemporaryFolder folder("prompts");
    const auto read = readPrompts(folder.write("novel.txt", "{\"text\": 1}\nsecond line\n"), "prose");
    ASSERT_TRUE(read.ok());
    ASSERT_EQ(read->size(), 1u);
    EXPECT_EQ(read->front().text, "{\"text\": 1}\nsecond line\n");
    EXPECT_EQ(read->front().domain, "prose");
    EXPECT_EQ(read->front().document, "novel.txt");
}

TEST(Prompts, AnArgumentSplitsAtTheFirstEqualsSignUnlessAFileHasThatName)
{
    const TemporaryFolder folder("prompts");
    folder.write("a=b.txt", "whole name");
    folder.write("plain.txt", "after the sign");
    folder.write("with=sign.txt", "label and a sign in the name");
    const auto whole = promptsOfArgument((folder / "a=b.txt").string());
    ASSERT_TRUE(whole.ok());
    EXPECT_EQ(whole->front().text, "whole name");
    EXPECT_EQ(whole->front().domain, "");
    const auto labelled = promptsOfArgument("law=" + (folder / "plain.txt").string());
    ASSERT_TRUE(labelled.ok());
    EXPECT_EQ(labelled->front().domain, "law");
    const auto second = promptsOfArgument("math=" + (folder / "with=sign.txt").string());
    ASSERT_TRUE(second.ok()) << second.error().what;
    EXPECT_EQ(second->front().domain, "math");
    EXPECT_EQ(second->front().text, "label and a sign in the name");
    const Error missing = errorOf(promptsOfArgument("law=" + (folder / "nowhere.txt").string()));
    EXPECT_EQ(missing.kind, ErrorKind::input);
    EXPECT_THAT(missing.where, HasSubstr("nowhere.txt"));
    EXPECT_EQ(errorOf(promptsOfArgument(folder.path().string())).kind, ErrorKind::input) << "a folder is no prompt";
}

TEST(Prompts, ErrorsOfFilesCarryTheirPath)
{
    const TemporaryFolder folder("prompts");
    const Error error = errorOf(readPrompts(folder.write("bad.jsonl", "{\"text\": \"a\"}\nnonsense\n"), {}));
    EXPECT_THAT(error.where, HasSubstr(folder.path().string()));
    EXPECT_THAT(error.where, HasSubstr("line 2"));
    EXPECT_FALSE(error.mend.empty());
}

TEST(Prompts, AHundredMegabytesAreRead)
{
    const TemporaryFolder folder("prompts");
    {
        std::ofstream stream(folder / "large.txt", std::ios::binary);
        const std::string block(1 << 20, 'x');
        for (int i = 0; i < 100; ++i)
            stream << block;
    }
    const auto read = readPrompts(folder / "large.txt", {});
    ASSERT_TRUE(read.ok());
    EXPECT_EQ(read->front().text.size(), std::size_t(100) << 20);
}

TEST(Prompts, IdFilesAreArraysOfTokenIds)
{
    const TemporaryFolder folder("ids");
    const auto good = readIds(folder.write("good.json", "[1, 2, 30000]\n"));
    ASSERT_TRUE(good.ok());
    EXPECT_EQ(*good, (std::vector<std::int32_t>{1, 2, 30000}));
    for (const char *text : {"", "{}", "[]", "[1.5]", "[-1]", "[\"a\"]", "[1, 99999999999]", "[1", "[[1]]", "[null]", "[true]"}) {
        const auto bad = readIds(folder.write("bad.json", text));
        ASSERT_FALSE(bad.ok()) << text;
        EXPECT_EQ(bad.error().kind, ErrorKind::input) << text;
        EXPECT_THAT(bad.error().where, HasSubstr("bad.json")) << text;
    }
    EXPECT_EQ(readIds(folder / "nowhere.json").error().kind, ErrorKind::input);
}

TEST(Prompts, SampleSetsHoldTheTextsThatTheyPromise)
{
    const auto sets = sampleSets();
    EXPECT_GE(sets.size(), 6u);
    for (const SampleSet &set : sets) {
        const auto prompts = readPrompts(set.file, {});
        ASSERT_TRUE(prompts.ok()) << set.name;
        EXPECT_EQ(static_cast<int>(prompts->size()), set.texts) << set.name;
        EXPECT_GE(set.texts, 10) << set.name;
        for (const Prompt &p : *prompts)
            EXPECT_FALSE(p.domain.empty()) << set.name;
    }
}

} // namespace
} // namespace spectra::test
