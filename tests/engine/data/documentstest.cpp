// SPDX-License-Identifier: GPL-3.0-or-later
// What comes out of files, and what is said of files that are wrong.
#include "engine/data/documents.h"
#include "tests/engine/data/support.h"

#include "engine/core/files.h"

#include <algorithm>
#include <sys/stat.h>
#include <zstd.h>

namespace spectra::testing {
namespace {

using Texts = std::vector<std::string>;

std::string packed(std::string_view text, int windowLog = 0)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    if (windowLog > 0) {
        ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, windowLog);
        ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 0);
    }
    std::string out(ZSTD_compressBound(text.size()) + 64, '\0');
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    ZSTD_inBuffer from{text.data(), text.size() / 2, 0}; // in two calls: the size is not known in advance
    ZSTD_compressStream2(context, &to, &from, ZSTD_e_continue);
    from.size = text.size();
    EXPECT_EQ(ZSTD_compressStream2(context, &to, &from, ZSTD_e_end), 0u);
    ZSTD_freeCCtx(context);
    out.resize(to.pos);
    return out;
}

class Documents : public DataTest {
protected:
    static Result<Texts> read(const std::filesystem::path &path, const std::string &field = "text")
    {
        Texts texts;
        auto done = readDocuments(path, field, [&](std::string_view text) {
            texts.emplace_back(text);
            return true;
        });
        if (!done)
            return done.error();
        return texts;
    }
    void expectTexts(const std::string &name, std::string_view content, const Texts &expected)
    {
        auto texts = read(write(name, content));
        ASSERT_TRUE(texts.ok()) << name << ": " << shown(texts.error());
        EXPECT_EQ(*texts, expected) << name;
        auto unpacked = read(write(name + ".zst", packed(content)));
        ASSERT_TRUE(unpacked.ok()) << name << ".zst: " << shown(unpacked.error());
        EXPECT_EQ(*unpacked, expected) << name << ".zst";
    }
    /// The file, the line and what is wrong are named, and an error says how to mend it.
    void expectError(const std::string &name, std::string_view content, const std::string &what, const std::string &place = {})
    {
        const auto path = write(name, content);
        const auto texts = read(path);
        ASSERT_FALSE(texts.ok()) << name;
        EXPECT_EQ(texts.error().kind, ErrorKind::input);
        EXPECT_NE(texts.error().what.find(what), std::string::npos) << shown(texts.error());
        EXPECT_EQ(texts.error().where, path.string() + place) << shown(texts.error());
        EXPECT_FALSE(texts.error().mend.empty()) << shown(texts.error());
    }
};

TEST_F(Documents, jsonLines)
{
    expectTexts("a.jsonl", "{\"text\": \"one\"}\n{\"id\": 7, \"text\": \"two\\nlines\", \"meta\": {\"text\": \"inner\"}}", {"one", "two\nlines"});
    expectTexts("crlf.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n  \n{\"text\":\"\"}\n", {"a", ""});
    expectTexts("unicode.jsonl", "{\"text\":\"\\u00e9\\ud83d\\ude00 \xC3\xA9\"}\n", {"é😀 é"});
    expectTexts("nested.jsonl", "{\"a\":[{\"text\":1},[[\"text\"]]],\"text\":\"x\"}\n", {"x"});
    expectTexts("twice.jsonl", "{\"text\":\"x\",\"text\":\"y\"}\n", {"y"}); // as most readers: the last one
    expectTexts("blank.jsonl", "\n\n\n", {});
    auto other = read(write("b.jsonl", "{\"body\":\"b\",\"text\":\"t\"}\n"), "body");
    ASSERT_TRUE(other.ok());
    EXPECT_EQ(*other, Texts{"b"});
}

TEST_F(Documents, plainText)
{
    expectTexts("a.txt", "one\ntwo", {"one\ntwo"});
    expectTexts("crlf.txt", "\xEF\xBB\xBFone\r\ntwo\rthree\r\r\n\n", {"one\ntwo\rthree\r\n\n"});
    expectTexts("noname", "é\n", {"é\n"});
    expectTexts("a.json", "{}", {"{}"});
}

/// Pieces end at the first line end from 16 KiB on, else at a space, else between characters; together they are the text.
TEST_F(Documents, piecesAreCutWhereTheyMayBe)
{
    const auto together = [](const Texts &texts) {
        std::string all;
        for (const std::string &text : texts)
            all += text;
        return all;
    };
    const std::string lines = words(300000, 5);
    auto pieces = read(write("lines.txt", lines));
    ASSERT_TRUE(pieces.ok());
    EXPECT_EQ(together(*pieces), lines);
    for (std::size_t i = 0; i + 1 < pieces->size(); ++i) {
        EXPECT_GE((*pieces)[i].size(), 16384u);
        EXPECT_LT((*pieces)[i].size(), 17500u);
        EXPECT_EQ((*pieces)[i].back(), '\n');
    }
    std::string spaces = lines;
    std::replace(spaces.begin(), spaces.end(), '\n', ' ');
    pieces = read(write("spaces.txt", spaces));
    ASSERT_TRUE(pieces.ok());
    EXPECT_EQ(together(*pieces), spaces);
    EXPECT_GT(pieces->size(), 15u);
    for (std::size_t i = 1; i < pieces->size(); ++i)
        EXPECT_EQ((*pieces)[i].front(), ' ');
    std::string dense;
    for (int i = 0; i < 400000; ++i)
        dense += "専";
    pieces = read(write("dense.txt", dense));
    ASSERT_TRUE(pieces.ok()) << shown(pieces.error());
    EXPECT_EQ(together(*pieces), dense);
    EXPECT_EQ(pieces->size(), 5u);
    // A line end of two bytes is not cut in two.
    std::string carriage(262143, 'x');
    carriage += "\r\nyy\r\n";
    pieces = read(write("carriage.txt", carriage));
    ASSERT_TRUE(pieces.ok());
    EXPECT_EQ(*pieces, (Texts{std::string(262143, 'x'), "\nyy\n"}));
}

/// The same at any way the bytes come: as zstd frames of any size, skippable frames between.
TEST_F(Documents, framesDoNotMatter)
{
    const std::string text = words(200000, 6);
    auto whole = read(write("a.txt", text));
    ASSERT_TRUE(whole.ok());
    std::string frames;
    for (std::size_t at = 0; at < text.size(); at += 7919) {
        frames += packed(std::string_view(text).substr(at, 7919));
        frames += std::string("\x50\x2A\x4D\x18\x03\x00\x00\x00xyz", 11);
    }
    auto parts = read(write("a.txt.zst", frames));
    ASSERT_TRUE(parts.ok()) << shown(parts.error());
    EXPECT_EQ(*whole, *parts);
}

TEST_F(Documents, theCallerStopsAndCancels)
{
    const auto path = write("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\nnot JSON\n");
    int seen = 0;
    EXPECT_TRUE(readDocuments(path, "text", [&](std::string_view) { return ++seen < 2; }).ok());
    EXPECT_EQ(seen, 2);
    std::stop_source source;
    source.request_stop();
    const auto stopped = readDocuments(path, "text", [&](std::string_view) { return true; }, source.get_token());
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
}

TEST_F(Documents, sumIsOfTheFile)
{
    const auto path = write("a.txt.zst", packed(words(100000, 7)));
    auto sum = readParts(path, "text", [](const TextPart &) { return true; }, {});
    ASSERT_TRUE(sum.ok());
    EXPECT_EQ(sum->sha256, *sha256File(path));
    EXPECT_EQ(sum->bytes, std::int64_t(std::filesystem::file_size(path)));
}

TEST_F(Documents, wrongLines)
{
    const std::string good = "{\"text\":\"a\"}\n";
    for (const std::string ending : {"", "\n"}) {
        expectError("a.jsonl", good + "{\"text\":" + ending, "is not valid JSON", ": line 2");
        expectError("a.jsonl", good + "\n[\"text\"]" + ending, "is a JSON array, not an object", ": line 3");
        expectError("a.jsonl", good + "\"text\"" + ending, "is a JSON string, not an object", ": line 2");
        expectError("a.jsonl", good + "null" + ending, "is a JSON null, not an object", ": line 2");
        expectError("a.jsonl", good + "{\"title\":\"t\",\"body\":\"b\",\"n\":1}" + ending, "no field \"text\"", ": line 2");
        expectError("a.jsonl", good + "{\"text\":[\"a\"]}" + ending, "is a JSON array, not a string", ": line 2");
        expectError("a.jsonl", good + "{\"text\":null}" + ending, "is a JSON null, not a string", ": line 2");
        expectError("a.jsonl", good + "{\"text\":\"\\ud800\"}" + ending, "is not valid JSON", ": line 2");
        expectError("a.jsonl", good + "{\"text\":\"a\"} x" + ending, "is not valid JSON", ": line 2");
        expectError("a.jsonl", good + "{\"text\":\"a\",\"n\":1e999}" + ending, "is not valid JSON", ": line 2");
        expectError("a.jsonl", good + "{\"text\":\"\xFF\"}" + ending, "is not UTF-8 (byte 0xFF)", ": line 2");
        expectError("a.jsonl", good + std::string("{\"text\":\"\0\"}", 12) + ending, "byte 0", ": line 2");
        expectError("a.jsonl", good + std::string(1000000, '[') + ending, "is not valid JSON", ": line 2");
    }
    const auto texts = read(write("b.jsonl", "{\"title\":\"t\",\"body\":\"b\",\"n\":1}"));
    ASSERT_FALSE(texts.ok());
    EXPECT_EQ(texts.error().mend, "set text_field to one that holds text: title, body");
}

TEST_F(Documents, wrongFiles)
{
    expectError("a.txt", "one\ntwo\n\xC3(\n", "is not UTF-8 (byte 0xC3)", ": line 3");
    const std::string many = words(100000, 1);
    expectError("late.txt", many + "\xED\xA0\x80", "is not UTF-8 (byte 0xED)", ": line " + std::to_string(std::count(many.begin(), many.end(), '\n') + 1));
    expectError("a.txt", std::string_view("a\n\0b", 4), "byte 0", ": line 2");
    expectError("a.txt", "", "is empty");
    expectError("a.jsonl", "", "is empty");
    expectError("a.jsonl.zst", "", "is empty");
    expectError("a.gz", "\x1F\x8B\x08", "gzip");
    expectError("a.txt", std::string_view("\xFF\xFE" "a\0", 4), "UTF-16");
    expectError("a.parquet", "PAR1xx", "Parquet");
    expectError("a.txt", packed("text"), "not called .zst");
    EXPECT_EQ(read(m_folder / "absent.txt").error().what, "no such file");
    EXPECT_EQ(read(m_folder).error().what, "is a folder, not a file");
    ASSERT_EQ(::mkfifo((m_folder / "pipe").c_str(), 0600), 0);
    EXPECT_EQ(read(m_folder / "pipe").error().what, "is not a regular file");
}

TEST_F(Documents, wrongStreams)
{
    const std::string whole = packed(words(300000, 2));
    for (const std::size_t length : {std::size_t(1), std::size_t(3), std::size_t(5), std::size_t(20), whole.size() / 2, whole.size() - 1})
        expectError("cut.txt.zst", std::string_view(whole).substr(0, length), "ends early");
    const auto fails = [&](std::string_view content) {
        const auto texts = read(write("a.txt.zst", content));
        return texts.ok() ? std::string() : texts.error().what;
    };
    EXPECT_NE(fails("plain text").find("no valid zstd stream"), std::string::npos);
    EXPECT_NE(fails(whole + "tail").find("no valid zstd stream"), std::string::npos);
    std::string damaged = whole;
    damaged[damaged.size() - 2] ^= 1; // the checksum
    EXPECT_NE(fails(damaged).find("no valid zstd stream"), std::string::npos);
    EXPECT_NE(fails(packed(words(1000, 1), 28)).find("128 MiB"), std::string::npos);
    EXPECT_EQ(fails(packed(words(1000, 1), 27)), "");
}

/// A small file that would be a line of many megabytes is stopped at the limit, not in memory.
TEST_F(Documents, longLinesAreRefused)
{
    const std::string bomb = packed("{\"text\":\"" + std::string(8 << 20, 'a') + "\"}\n");
    ASSERT_LT(bomb.size(), 10000u);
    const auto path = write("a.jsonl.zst", bomb);
    const auto refused = readParts(path, "text", [](const TextPart &) { return true; }, {}, 1 << 20);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().what, "is a line of more than 1 MiB");
    EXPECT_EQ(refused.error().where, path.string() + ": line 1");
    EXPECT_TRUE(read(path).ok());
}

} // namespace
} // namespace spectra::testing
