// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/core/jsontext.h"
#include "engine/core/npy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <sstream>
#include <sys/stat.h>
#include <unistd.h>

namespace spectra::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Files : public testing::Test {
protected:
    void SetUp() override
    {
        m_folder = fs::temp_directory_path() / ("spectra-core-" + std::to_string(::getpid()));
        fs::remove_all(m_folder);
        fs::create_directories(m_folder);
    }
    void TearDown() override { fs::remove_all(m_folder); }
    [[nodiscard]] fs::path at(const std::string &name) const { return m_folder / name; }
    void write(const std::string &name, const std::string &text) const { std::ofstream(m_folder / name, std::ios::binary) << text; }
    [[nodiscard]] std::string read(const std::string &name) const
    {
        const auto text = readTextFile(m_folder / name);
        return text.ok() ? *text : "unreadable: " + text.error().what;
    }
    [[nodiscard]] std::size_t entries() const
    {
        return static_cast<std::size_t>(std::distance(fs::directory_iterator(m_folder), fs::directory_iterator()));
    }
    fs::path m_folder;
};

TEST_F(Files, AnAtomicFileAppearsOnlyWhenCommitted)
{
    {
        auto file = AtomicFile::create(at("a.txt"), false);
        ASSERT_TRUE(file.ok());
        file->stream() << "half";
        EXPECT_FALSE(fs::exists(at("a.txt")));
    }
    EXPECT_EQ(entries(), 0u) << "an abandoned file leaves nothing";
    auto file = AtomicFile::create(at("a.txt"), false);
    ASSERT_TRUE(file.ok());
    file->stream() << "whole";
    ASSERT_TRUE(file->commit().ok());
    EXPECT_EQ(read("a.txt"), "whole");
    EXPECT_EQ(entries(), 1u);
}

TEST_F(Files, AnAtomicFileDoesNotTouchTheOldOneBeforeItIsWhole)
{
    write("a.txt", "old");
    const auto refused = AtomicFile::create(at("a.txt"), false);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::work);
    EXPECT_THAT(refused.error().mend, HasSubstr("--overwrite"));
    {
        auto file = AtomicFile::create(at("a.txt"), true);
        ASSERT_TRUE(file.ok());
        file->stream() << "new";
        file->stream().flush();
        EXPECT_EQ(read("a.txt"), "old");
    }
    EXPECT_EQ(read("a.txt"), "old");
    auto file = AtomicFile::create(at("a.txt"), true);
    ASSERT_TRUE(file.ok());
    file->stream() << "new";
    ASSERT_TRUE(file->commit().ok());
    EXPECT_EQ(read("a.txt"), "new");
}

TEST_F(Files, AnAtomicFileReportsWhatCannotBeWritten)
{
    for (const fs::path &place : {fs::path("/proc/nowhere/x"), at("no folder") / "x", m_folder}) {
        const auto file = AtomicFile::create(place, true);
        ASSERT_FALSE(file.ok()) << place;
        EXPECT_EQ(file.error().kind, ErrorKind::work);
        EXPECT_EQ(file.error().where, place.string());
    }
    auto file = AtomicFile::create(at("full"), false);
    ASSERT_TRUE(file.ok());
    file->stream().setstate(std::ios::badbit); // what a full disk leaves behind
    const auto committed = file->commit();
    ASSERT_FALSE(committed.ok());
    EXPECT_THAT(committed.error().what, HasSubstr("disk full"));
    EXPECT_FALSE(fs::exists(at("full")));
}

TEST_F(Files, AnAtomicFolderAppearsWholeOrNotAtAll)
{
    {
        auto folder = AtomicFolder::create(at("model"), false);
        ASSERT_TRUE(folder.ok());
        std::ofstream(folder->temporary() / "x") << "1";
        EXPECT_FALSE(fs::exists(at("model")));
    }
    EXPECT_EQ(entries(), 0u);
    auto folder = AtomicFolder::create(at("model/"), false); // a trailing slash is no other name
    ASSERT_TRUE(folder.ok());
    std::ofstream(folder->temporary() / "x") << "1";
    ASSERT_TRUE(folder->commit().ok());
    EXPECT_EQ(read("model/x"), "1");
    EXPECT_FALSE(AtomicFolder::create(at("model"), false).ok());

    auto second = AtomicFolder::create(at("model"), true);
    ASSERT_TRUE(second.ok());
    std::ofstream(second->temporary() / "y") << "2";
    EXPECT_TRUE(fs::exists(at("model/x"))) << "the old one stays until the new one is complete";
    ASSERT_TRUE(second->commit().ok());
    EXPECT_FALSE(fs::exists(at("model/x")));
    EXPECT_EQ(read("model/y"), "2");
    EXPECT_EQ(entries(), 1u) << "nothing temporary is left";
    EXPECT_FALSE(AtomicFolder::create("/proc/nowhere/model", false).ok());
}

TEST_F(Files, MappedFilesAreRegularFiles)
{
    write("a", "abc");
    write("empty", "");
    const auto a = MappedFile::open(at("a"));
    ASSERT_TRUE(a.ok());
    EXPECT_EQ((*a)->bytes().size(), 3u);
    EXPECT_EQ(std::memcmp((*a)->bytes().data(), "abc", 3), 0);
    EXPECT_TRUE((*MappedFile::open(at("empty")))->bytes().empty());
    for (const fs::path &place : {at("nothing"), m_folder, fs::path("/dev/null")}) {
        const auto refused = MappedFile::open(place);
        ASSERT_FALSE(refused.ok()) << place;
        EXPECT_EQ(refused.error().kind, ErrorKind::input);
    }
    ASSERT_EQ(::mkfifo(at("pipe").c_str(), 0600), 0);
    EXPECT_FALSE(MappedFile::open(at("pipe")).ok()) << "and does not wait for a writer";
}

TEST_F(Files, TextFilesHaveALimit)
{
    write("ten", "0123456789");
    EXPECT_EQ(*readTextFile(at("ten"), 10), "0123456789");
    const auto large = readTextFile(at("ten"), 9);
    ASSERT_FALSE(large.ok());
    EXPECT_EQ(large.error().kind, ErrorKind::input);
    EXPECT_FALSE(readTextFile("/dev/zero", 1 << 20).ok()) << "an endless file ends at the limit";
    EXPECT_FALSE(readTextFile(m_folder).ok());
    EXPECT_FALSE(readTextFile(at("nothing")).ok());
}

TEST_F(Files, PlainFileNamesHaveNoWayOut)
{
    for (const char *good : {"a", "model-00001-of-00002.safetensors", "..a", "a..b", "ü"})
        EXPECT_TRUE(isPlainFileName(good)) << good;
    for (const std::string &bad : {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/a"), std::string("a\\b"), std::string("a\0b", 3)})
        EXPECT_FALSE(isPlainFileName(bad)) << bad;
}

std::string sha(const std::string &text, std::size_t piece = std::string::npos)
{
    Sha256 sum;
    for (std::size_t i = 0; i < text.size(); i += std::min(piece, text.size()))
        sum.add(std::as_bytes(std::span(text).subspan(i, std::min(piece, text.size() - i))));
    return sum.hex();
}

TEST(Sha256, KnownVectorsOfFips180)
{
    EXPECT_EQ(sha(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    EXPECT_EQ(sha("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    EXPECT_EQ(sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    EXPECT_EQ(sha(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesOfAnySizeGiveTheSame)
{
    std::string text;
    for (int i = 0; i < 300; ++i)
        text += static_cast<char>(i * 7);
    for (std::size_t length : {55u, 56u, 63u, 64u, 65u, 119u, 120u, 128u, 300u})
        for (std::size_t piece : {1u, 3u, 63u, 64u, 65u})
            EXPECT_EQ(sha(text.substr(0, length), piece), sha(text.substr(0, length))) << length << " in pieces of " << piece;
}

TEST_F(Files, Sha256OfAFileCanBeStopped)
{
    write("abc", "abc");
    EXPECT_EQ(*sha256File(at("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    std::stop_source stop;
    stop.request_stop();
    EXPECT_EQ(sha256File(at("abc"), stop.get_token()).error().kind, ErrorKind::cancelled);
    EXPECT_EQ(sha256File(at("nothing")).error().kind, ErrorKind::input);
}

TEST(Utf8, LengthsOfValidAndInvalidSequences)
{
    const auto length = [](std::string_view s) { return utf8Length(s, 0); };
    EXPECT_EQ(length("a"), 1);
    EXPECT_EQ(length("\xC3\xA9"), 2);
    EXPECT_EQ(length("\xE2\x82\xAC"), 3);
    EXPECT_EQ(length("\xF0\x9F\x98\x80"), 4);
    EXPECT_EQ(length("\xF4\x8F\xBF\xBF"), 4) << "U+10FFFF";
    EXPECT_EQ(length(""), 0);
    for (const char *bad : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC3", "\xC3g", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xE2\x82", "\xE2\x82g",
                            "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xF0\x9F\x98", "\xFE", "\xFF"})
        EXPECT_EQ(length(bad), 0) << testing::PrintToString(bad);
}

/// Every code point, encoded by the definition, is accepted exactly when Unicode has it.
TEST(Utf8, EveryCodePoint)
{
    for (unsigned c = 0; c <= 0x11FFFF; c += c < 0x3000 ? 1 : 7) {
        std::string s;
        if (c < 0x80)
            s = {static_cast<char>(c)};
        else if (c < 0x800)
            s = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
        else if (c < 0x10000)
            s = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
        else
            s = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)), static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
        const bool valid = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
        ASSERT_EQ(utf8Length(s, 0), valid ? static_cast<int>(s.size()) : 0) << "U+" << std::hex << c;
    }
}

TEST(Utf8, PrintableTextShowsEveryForeignByte)
{
    EXPECT_EQ(printableUtf8("a\xC3\xA9"), "a\xC3\xA9");
    EXPECT_EQ(printableUtf8("\xC3("), "<0xC3>(");
    EXPECT_EQ(printableUtf8(std::string_view("a\0b", 3)), "a<0x00>b");
    EXPECT_EQ(printableUtf8("\xED\xA0\x80"), "<0xED><0xA0><0x80>");
}

TEST(JsonText, DepthIsLimitedOutsideStringsOnly)
{
    EXPECT_TRUE(checkJsonText(std::string(64, '[') + std::string(64, ']'), "x").ok());
    EXPECT_FALSE(checkJsonText(std::string(65, '['), "x").ok());
    EXPECT_TRUE(checkJsonText("\"" + std::string(1000, '[') + "\"", "x").ok());
    EXPECT_TRUE(checkJsonText("\"\\\"" + std::string(1000, '[') + "\"", "x").ok()) << "an escaped quote does not end the string";
    EXPECT_FALSE(checkJsonText("\"a\\\\\"" + std::string(65, '{'), "x").ok()) << "an escaped backslash before the quote does not keep it open";
    std::string wide = "[";
    for (int i = 0; i < 1000; ++i)
        wide += "[],";
    EXPECT_TRUE(checkJsonText(wide + "0]", "x").ok());
}

TEST(Npy, WhatIsWrittenIsReadBack)
{
    const std::vector<std::int64_t> shape = {2, 3};
    const std::vector<float> values = {1, 2, 3, -4, 5.5f, 1e-30f};
    std::ostringstream out;
    writeNpy(out, shape, values);
    const std::string bytes = out.str();
    EXPECT_EQ((bytes.size() - 24) % 64, 0u) << "data are aligned to 64 bytes";
    const auto parse = [](const std::string &text) { return parseNpy(std::as_bytes(std::span(text)), "x.npy"); };
    const auto read = parse(bytes);
    ASSERT_TRUE(read.ok()) << read.error().what;
    EXPECT_EQ(read->shape, shape);
    EXPECT_EQ(read->values, values);
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        const auto cut = parse(bytes.substr(0, n));
        ASSERT_FALSE(cut.ok()) << n;
        EXPECT_EQ(cut.error().kind, ErrorKind::input);
    }
    std::string huge = bytes;
    huge.replace(huge.find("(2, 3)"), 6, "(2,9e)");
    EXPECT_FALSE(parse(huge).ok());
}

} // namespace
} // namespace spectra::test
