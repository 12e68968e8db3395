// SPDX-License-Identifier: GPL-3.0-or-later
// GGUF headers that lie, one per check.
#include "checkpointtest.h"

#include "engine/checkpoint/gguf.h"

#include <gmock/gmock.h>

namespace spectra::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string errorOf(const std::string &bytes)
{
    const DataFile exact = dataFile("x", bytes);
    const auto result = parseGguf(exact.bytes);
    EXPECT_TRUE(result.ok() || result.error().kind == ErrorKind::input);
    return errorText(result);
}

std::string head(std::uint64_t tensors, std::uint64_t values, std::uint32_t version = 3)
{
    return "GGUF" + little(version, 4) + little(tensors, 8) + little(values, 8);
}

std::string tensor(const std::string &name, const std::vector<std::uint64_t> &dims, std::uint32_t type, std::uint64_t offset)
{
    std::string out = ggufString(name) + little(dims.size(), 4);
    for (const std::uint64_t d : dims)
        out += little(d, 8);
    return out + little(type, 4) + little(offset, 8);
}

std::string padded(std::string bytes, std::size_t data)
{
    bytes.resize((bytes.size() + 31) / 32 * 32 + data, '\0');
    return bytes;
}

constexpr std::uint64_t kHuge = std::uint64_t(1) << 63;

TEST(Gguf, AcceptsAMinimalFileOfBothVersions)
{
    for (const std::uint32_t version : {2u, 3u}) {
        const std::string file = padded(head(1, 1, version) + ggufString("a.b") + little(4, 4) + little(7, 4) + tensor("t", {3, 2}, 0, 0), 24);
        const auto result = parseGguf(bytesOf(file));
        ASSERT_TRUE(result.ok()) << errorText(result);
        EXPECT_EQ(result->find("a.b")->integer(), 7);
        EXPECT_EQ(result->tensors[0].shape, (std::vector<std::int64_t>{2, 3})) << "fastest axis last";
    }
}

TEST(Gguf, RefusesOtherFiles)
{
    EXPECT_THAT(errorOf(""), HasSubstr("is empty"));
    EXPECT_THAT(errorOf("GGU"), HasSubstr("not a GGUF file"));
    EXPECT_THAT(errorOf("GGML....."), HasSubstr("not a GGUF file"));
    EXPECT_THAT(errorOf(std::string("GGUF\x03\0\0\0", 8)), HasSubstr("cut off"));
    EXPECT_THAT(errorOf(head(0, 0, 1)), HasSubstr("version 1"));
    EXPECT_THAT(errorOf(head(0, 0, 9)), HasSubstr("version 9"));
    EXPECT_THAT(errorOf(head(0, 0, 0x03000000)), HasSubstr("big-endian"));
}

TEST(Gguf, RefusesCountsThatCannotBe)
{
    EXPECT_THAT(errorOf(head(kHuge, kHuge)), HasSubstr("9223372036854775808 metadata keys"));
    EXPECT_THAT(errorOf(head(kHuge, 0)), HasSubstr("9223372036854775808 tensors"));
    EXPECT_THAT(errorOf(head(~std::uint64_t(0), 0)), HasSubstr("more than fit in the file"));
    EXPECT_THAT(errorOf(padded(head(2, 0) + tensor("t", {1}, 0, 0), 64)), HasSubstr("no name")) << "the second is padding";
}

TEST(Gguf, RefusesMetadataThatLies)
{
    const auto value = [](const std::string &bytes) { return errorOf(head(0, 1) + ggufString("k") + bytes + std::string(64, '\0')); };
    EXPECT_THAT(errorOf(head(0, 1) + little(kHuge, 8) + std::string(64, 'x')), HasSubstr("length is wrong")) << "a key of 2^63 bytes";
    EXPECT_THAT(errorOf(head(0, 1) + little(70000, 8) + std::string(80000, 'x')), HasSubstr("length is wrong")) << "a key longer than the format allows";
    EXPECT_THAT(value(little(8, 4) + little(~std::uint64_t(0), 8)), AllOf(HasSubstr("key k"), HasSubstr("length is wrong")));
    EXPECT_THAT(value(little(13, 4)), HasSubstr("type 13"));
    EXPECT_THAT(value(little(9, 4) + little(4, 4) + little(kHuge, 8)), HasSubstr("9223372036854775808 elements"));
    EXPECT_THAT(value(little(9, 4) + little(10, 4) + little((std::uint64_t(1) << 61) + 1, 8)), HasSubstr("does not fit")) << "8 · count overflows";
    EXPECT_THAT(value(little(9, 4) + little(8, 4) + little(3, 8) + ggufString("a") + little(1 << 30, 8)), HasSubstr("past the end"));
    EXPECT_THAT(value(little(9, 4) + little(9, 4) + little(1, 8)), HasSubstr("nested"));
    const std::string twice = ggufString("k") + little(4, 4) + little(1, 4);
    EXPECT_THAT(errorOf(head(0, 2) + twice + twice), HasSubstr("occurs twice"));
    for (const std::uint32_t alignment : {0u, 3u, 1u << 30})
        EXPECT_THAT(errorOf(head(0, 1) + ggufString("general.alignment") + little(4, 4) + little(alignment, 4)), HasSubstr("power of two"));
}

TEST(Gguf, RefusesTensorsThatLie)
{
    const auto one = [](const std::string &info) { return errorOf(padded(head(1, 0) + info, 64)); };
    EXPECT_THAT(one(tensor("t", {1, 1, 1, 1, 1}, 0, 0)), HasSubstr("5 dimensions"));
    EXPECT_THAT(one(tensor("t", {kHuge}, 0, 0)), HasSubstr("an axis of 9223372036854775808"));
    EXPECT_THAT(one(tensor("t", {std::uint64_t(1) << 32, std::uint64_t(1) << 32}, 0, 0)), HasSubstr("more elements than can be counted"));
    EXPECT_THAT(one(tensor("t", {std::uint64_t(1) << 31, std::uint64_t(1) << 30}, 28, 0)), HasSubstr("more elements than can be counted")) << "2^61 doubles are 2^64 bytes";
    EXPECT_THAT(one(tensor("t", {17}, 0, 0)), HasSubstr("outside the file"));
    EXPECT_THAT(one(tensor("t", {1}, 0, kHuge)), HasSubstr("outside the file"));
    EXPECT_THAT(one(tensor("t", {1}, 0, ~std::uint64_t(31))), HasSubstr("outside the file")) << "offset + start wraps";
    EXPECT_THAT(one(tensor("t", {1}, 0, 4)), HasSubstr("not a multiple of 32"));
    EXPECT_THAT(one(tensor("t", {33}, 2, 0)), AllOf(HasSubstr("rows of 33"), HasSubstr("Q4_0")));
    EXPECT_THAT(one(tensor("t", {256}, 10, 0)), AllOf(HasSubstr("Q2_K"), HasSubstr("not supported"), HasSubstr("tensor t")));
    EXPECT_THAT(one(tensor("t", {256}, 39, 0)), HasSubstr("MXFP4"));
    EXPECT_THAT(one(tensor("t", {256}, 77, 0)), HasSubstr("type 77"));
    EXPECT_THAT(errorOf(padded(head(2, 0) + tensor("t", {9}, 0, 0) + tensor("u", {1}, 0, 32), 64)), AllOf(HasSubstr("overlaps tensor t"), HasSubstr("tensor u")));
    EXPECT_THAT(errorOf(padded(head(2, 0) + tensor("t", {1}, 0, 0) + tensor("t", {1}, 0, 32), 64)), HasSubstr("occurs twice"));
}

TEST(Gguf, VocabularyArraysMustBelongTogether)
{
    const auto text = [](const std::string &key, const std::string &value) { return ggufString(key) + little(8, 4) + ggufString(value); };
    const std::string two = ggufString("tokenizer.ggml.tokens") + little(9, 4) + little(8, 4) + little(2, 8) + ggufString("a") + ggufString("b");
    const std::string three = ggufString("tokenizer.ggml.scores") + little(9, 4) + little(6, 4) + little(3, 8) + std::string(12, '\0');
    const std::string bos = ggufString("tokenizer.ggml.bos_token_id") + little(4, 4) + little(0xFFFFFFFF, 4);
    const std::string good = head(0, 3) + text("tokenizer.ggml.model", "llama") + two + bos;
    const auto header = parseGguf(bytesOf(good));
    ASSERT_TRUE(header.ok()) << errorText(header);
    const auto vocabulary = ggufVocabulary(*header);
    ASSERT_TRUE(vocabulary.ok() && vocabulary->has_value());
    EXPECT_THAT((*vocabulary)->tokens, testing::ElementsAre("a", "b"));
    EXPECT_EQ((*vocabulary)->bos, -1) << "2^32 − 1 stands for none";
    const std::string bad = head(0, 3) + text("tokenizer.ggml.model", "llama") + two + three;
    const auto wrong = parseGguf(bytesOf(bad));
    ASSERT_TRUE(wrong.ok());
    EXPECT_THAT(errorText(ggufVocabulary(*wrong)), HasSubstr("2 tokens"));
}

} // namespace
} // namespace spectra::test
