// SPDX-License-Identifier: GPL-3.0-or-later
// The container's rules (safetensors README, "Format"), one hostile file per rule.
#include "checkpointtest.h"

#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/core/random.h"

#include <gmock/gmock.h>

#include <cmath>

namespace spectra::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string errorOf(const std::string &bytes)
{
    const DataFile exact = dataFile("x", bytes);
    const auto result = parseSafetensors(exact.bytes);
    EXPECT_TRUE(result.ok() || result.error().kind == ErrorKind::input);
    return errorText(result);
}

TEST(Safetensors, AcceptsWhatTheFormatAllows)
{
    const std::string header = R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]},)"
                               R"("a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]},"empty":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]}}   )";
    const std::string file = safetensors(header, std::string(8, '\0'));
    const auto result = parseSafetensors(bytesOf(file));
    ASSERT_TRUE(result.ok()) << errorText(result);
    ASSERT_EQ(result->tensors.size(), 3u);
    EXPECT_EQ(result->tensors[0].name, "a") << "in order of place";
    EXPECT_EQ(result->tensors[1].offset, 8 + header.size() + 4);
    EXPECT_EQ(result->metadata.at("format"), "pt");
    const std::string none = safetensors("{}", "");
    EXPECT_TRUE(parseSafetensors(bytesOf(none)).ok());
    // A type that we only know the size of is no reason to refuse the file; binding it is.
    const std::string narrow = safetensors(R"({"q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}})", "xy");
    const auto f8 = parseSafetensors(bytesOf(narrow));
    ASSERT_TRUE(f8.ok());
    EXPECT_EQ(f8->tensors[0].unreadable, "F8_E4M3");
}

TEST(Safetensors, RefusesWhatItDoesNot)
{
    const auto one = [](const std::string &entry, int bytes) { return safetensors("{" + entry + "}", std::string(static_cast<std::size_t>(bytes), '\0')); };
    const auto tensor = [&](const std::string &dtype, const std::string &shape, const std::string &offsets, int bytes) {
        return one(R"("t":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}", bytes);
    };
    EXPECT_THAT(errorOf(""), HasSubstr("is empty"));
    EXPECT_THAT(errorOf("abc"), HasSubstr("too short"));
    EXPECT_THAT(errorOf(little(std::uint64_t(1) << 62, 8) + "{}"), AllOf(HasSubstr("4611686018427387904"), HasSubstr("byte 0")));
    EXPECT_THAT(errorOf(little(100'000'001, 8) + "{}"), HasSubstr("at most 100000000"));
    EXPECT_THAT(errorOf(little(3, 8) + "{}"), HasSubstr("holds 10 bytes in all"));
    EXPECT_THAT(errorOf(little(2, 8) + "[]"), HasSubstr("does not begin with '{'"));
    EXPECT_THAT(errorOf(little(4, 8) + "{{{{"), HasSubstr("not valid JSON"));
    EXPECT_THAT(errorOf(safetensors(R"({"t":)" + std::string(100000, '['), "")), HasSubstr("list where none belongs"));
    EXPECT_THAT(errorOf(safetensors(R"({"t":{"dtype":{"a":{}}}})", "")), HasSubstr("nested too deeply"));
    EXPECT_THAT(errorOf(tensor("F32", "[1]", "[0,9]", 9)), AllOf(HasSubstr("do not hold the 4 bytes"), HasSubstr("tensor t")));
    EXPECT_THAT(errorOf(tensor("F32", "[1]", "[4,0]", 4)), HasSubstr("data_offsets [4, 0]"));
    EXPECT_THAT(errorOf(tensor("F32", "[2]", "[0,8]", 4)), HasSubstr("outside the 4 bytes"));
    EXPECT_THAT(errorOf(tensor("F32", "[4611686018427387904,4611686018427387904]", "[0,4]", 4)), HasSubstr("cannot be stored"));
    EXPECT_THAT(errorOf(tensor("F64", "[2305843009213693952]", "[0,0]", 0)), HasSubstr("cannot be stored")) << "2^61 · 64 bits is 0 modulo 2^64";
    EXPECT_THAT(errorOf(tensor("F32", "[18446744073709551615]", "[0,4]", 4)), HasSubstr("an axis of"));
    EXPECT_THAT(errorOf(tensor("F32", "[-1]", "[0,4]", 4)), HasSubstr("negative"));
    EXPECT_THAT(errorOf(tensor("F32", "[1.5]", "[0,4]", 4)), HasSubstr("fraction"));
    EXPECT_THAT(errorOf(tensor("F32", "[1]", "[0,4,8]", 8)), HasSubstr("more than two"));
    EXPECT_THAT(errorOf(tensor("F4", "[1]", "[0,1]", 1)), HasSubstr("cannot be stored")) << "half a byte";
    EXPECT_THAT(errorOf(tensor("F99", "[1]", "[0,4]", 4)), HasSubstr("unknown type 'F99'"));
    EXPECT_THAT(errorOf(one(R"("t":{"dtype":"F32","shape":[1]})", 4)), HasSubstr("lacks dtype, shape or data_offsets"));
    EXPECT_THAT(errorOf(one(R"("t":3)", 0)), HasSubstr("number where none belongs"));
    EXPECT_THAT(errorOf(one(R"("t":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]})", 4)), HasSubstr("'dtype' twice"));
    const std::string t = R"("t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})", u = R"("u":{"dtype":"F32","shape":[1],"data_offsets":)";
    EXPECT_THAT(errorOf(one(t + "," + t, 4)), HasSubstr("occurs twice"));
    EXPECT_THAT(errorOf(one(t + "," + u + "[2,6]}", 6)), AllOf(HasSubstr("overlaps the tensor before it by 2 bytes"), HasSubstr("tensor u")));
    EXPECT_THAT(errorOf(one(t + "," + u + "[0,4]}", 4)), HasSubstr("overlaps"));
    EXPECT_THAT(errorOf(one(t + "," + u + "[6,10]}", 10)), HasSubstr("hole of 2 bytes"));
    EXPECT_THAT(errorOf(one(t, 7)), HasSubstr("3 bytes at the end belong to no tensor"));
}

struct Written {
    TemporaryFolder folder;
    std::vector<TensorToWrite> tensors;
    std::vector<std::vector<float>> values;

    void add(const std::string &name, DType dtype, std::vector<std::int64_t> shape)
    {
        std::int64_t n = 1;
        for (const std::int64_t d : shape)
            n *= d;
        Random random(tensors.size() + 1);
        std::vector<float> v(static_cast<std::size_t>(n));
        for (float &x : v)
            x = static_cast<float>(random.normal());
        values.push_back(v);
        tensors.push_back({name, dtype, std::move(shape), [v](std::span<float> out) -> Result<void> {
                               std::copy(v.begin(), v.end(), out.begin());
                               return {};
                           }});
    }
};

/// A model of the tiny Llama shape, so that what was written can be opened.
void tinyLlama(Written &w, DType dtype)
{
    w.add("model.embed_tokens.weight", dtype, {16, 8});
    w.add("model.norm.weight", DType::f32, {8});
    const std::string p = "model.layers.0.";
    w.add(p + "input_layernorm.weight", DType::f32, {8});
    w.add(p + "post_attention_layernorm.weight", DType::f32, {8});
    for (const char *name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"})
        w.add(p + name + ".weight", dtype, {8, 8});
    w.add(p + "mlp.gate_proj.weight", dtype, {12, 8});
    w.add(p + "mlp.up_proj.weight", dtype, {12, 8});
    w.add(p + "mlp.down_proj.weight", dtype, {8, 12});
    writeFile(w.folder / "config.json", R"({"model_type":"llama","hidden_size":8,"num_hidden_layers":1,"num_attention_heads":2,"intermediate_size":12,
        "vocab_size":16,"tie_word_embeddings":true})");
}

class Writer : public testing::TestWithParam<std::pair<DType, std::uint64_t>> {};

TEST_P(Writer, WhatWasWrittenIsReadBackRounded)
{
    const auto [dtype, shardBytes] = GetParam();
    Written w;
    tinyLlama(w, dtype);
    int calls = 0;
    const auto done = writeSafetensors(w.folder.path(), w.tensors, shardBytes, [&](const Progress &p) { calls += p.total == 11; }, {});
    ASSERT_TRUE(done.ok()) << errorText(done);
    EXPECT_EQ(calls, 12);
    EXPECT_EQ(fs::exists(w.folder / "model.safetensors.index.json"), shardBytes < 1000);
    const auto opened = Checkpoint::open(w.folder.path());
    ASSERT_TRUE(opened.ok()) << errorText(opened);
    ASSERT_EQ((*opened)->tensors().size(), w.tensors.size());
    std::uint64_t total = 0;
    for (std::size_t i = 0; i < w.tensors.size(); ++i) {
        const TensorInfo *t = (*opened)->find(w.tensors[i].name);
        ASSERT_NE(t, nullptr) << w.tensors[i].name;
        EXPECT_EQ(t->dtype, w.tensors[i].dtype);
        EXPECT_FALSE((*opened)->raw(*t).empty()) << "aligned";
        total += t->bytes;
        std::vector<float> got(w.values[i].size());
        ASSERT_TRUE((*opened)->readF32(*t, got).ok());
        for (std::size_t j = 0; j < got.size(); ++j) {
            // Nearest even means: within half a unit in the last place of the narrow type.
            const float want = w.values[i][j];
            const float half = std::ldexp(1.0f, std::ilogb(want)) * (t->dtype == DType::f16 ? 0x1p-11f : t->dtype == DType::bf16 ? 0x1p-8f : 0.0f);
            ASSERT_LE(std::abs(got[j] - want), std::max(half, t->dtype == DType::f16 ? 0x1p-25f : 0.0f)) << t->name << " " << want;
        }
    }
    if (shardBytes < 1000) {
        const auto index = nlohmann::json::parse(readFile(w.folder / "model.safetensors.index.json"));
        EXPECT_EQ(index["metadata"]["total_size"], total);
        for (const auto &entry : fs::directory_iterator(w.folder.path()))
            if (entry.path().extension() == ".safetensors") {
                const std::string bytes = readFile(entry.path());
                const auto shard = parseSafetensors(bytesOf(bytes));
                ASSERT_TRUE(shard.ok()) << errorText(shard);
                EXPECT_EQ(shard->metadata.at("format"), "pt");
            }
    }
}

INSTANTIATE_TEST_SUITE_P(Safetensors, Writer,
                         testing::Values(std::pair(DType::f32, std::uint64_t(1) << 30), std::pair(DType::f16, std::uint64_t(1) << 30),
                                         std::pair(DType::bf16, std::uint64_t(600)), std::pair(DType::f32, std::uint64_t(1))));

TEST(SafetensorsWriter, StopsAndFailsCleanly)
{
    Written w;
    tinyLlama(w, DType::f32);
    std::stop_source stop;
    stop.request_stop();
    const auto stopped = writeSafetensors(w.folder.path(), w.tensors, 1 << 20, {}, stop.get_token());
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    const auto nowhere = writeSafetensors(w.folder / "not there", w.tensors, 1 << 20, {}, {});
    ASSERT_FALSE(nowhere.ok());
    EXPECT_EQ(nowhere.error().kind, ErrorKind::work);
    w.tensors[3].fill = [](std::span<float>) -> Result<void> { return inputError("the source is damaged"); };
    const auto failed = writeSafetensors(w.folder.path(), w.tensors, 1 << 20, {}, {});
    EXPECT_THAT(errorText(failed), HasSubstr("the source is damaged"));
    w.tensors[3] = w.tensors[2];
    EXPECT_FALSE(writeSafetensors(w.folder.path(), w.tensors, 1 << 20, {}, {}).ok()) << "one name twice";
}

TEST(SafetensorsWriter, AFullDiskIsAnError)
{
    if (!fs::exists("/dev/full"))
        FAIL() << "/dev/full is part of every Linux system";
    Written w;
    tinyLlama(w, DType::f32);
    fs::create_symlink("/dev/full", w.folder / "model.safetensors");
    const auto full = writeSafetensors(w.folder.path(), w.tensors, 1 << 20, {}, {});
    ASSERT_FALSE(full.ok());
    EXPECT_EQ(full.error().kind, ErrorKind::work);
    EXPECT_THAT(errorText(full), HasSubstr("model.safetensors"));
}

} // namespace
} // namespace spectra::test
