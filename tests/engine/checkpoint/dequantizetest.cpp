// SPDX-License-Identifier: GPL-3.0-or-later
#include "checkpointtest.h"

#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/storage.h"

#include <cmath>
#include <map>

namespace spectra::test {
namespace {

std::uint32_t bits(float f)
{
    return std::bit_cast<std::uint32_t>(f);
}

/// Equal bit for bit, any NaN being as good as another.
void expectSame(float got, float want, const std::string &where)
{
    EXPECT_TRUE(bits(got) == bits(want) || (std::isnan(want) && std::isnan(got))) << where << ": " << got << " and " << want;
}

TEST(Dequantize, EqualsGgufOnRandomBlocksOfEveryType)
{
    const std::string file = readFile(fixtures() / "checkpoint" / "blocks.safetensors");
    const auto header = parseSafetensors(bytesOf(file));
    ASSERT_TRUE(header.ok()) << errorText(header);
    std::map<std::string, const StoredTensor *> tensors;
    for (const StoredTensor &t : header->tensors)
        tensors[t.name] = &t;
    int checked = 0;
    for (const DType type : {DType::f16, DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0, DType::q4_k, DType::q5_k, DType::q6_k}) {
        const std::string name(dtypeName(type));
        ASSERT_TRUE(tensors.contains(name + ".blocks")) << name;
        const StoredTensor &blocks = *tensors[name + ".blocks"], &values = *tensors[name + ".values"];
        std::int64_t elements = 0;
        ASSERT_TRUE(shapeProduct(values.shape, elements));
        ASSERT_EQ(static_cast<std::int64_t>(blocks.bytes), elements / blockSize(type).elements * blockSize(type).bytes);
        std::vector<float> got(static_cast<std::size_t>(elements)), want(got.size());
        dequantize(type, bytesOf(file).data() + blocks.offset, got.data(), elements);
        std::memcpy(want.data(), file.data() + values.offset, values.bytes);
        for (std::size_t i = 0; i < got.size() && !HasFailure(); ++i)
            expectSame(got[i], want[i], name + " element " + std::to_string(i));
        ++checked;
    }
    EXPECT_EQ(checked, 10);
}

TEST(Dequantize, EveryHalfHasTheValueThatIeee754Gives)
{
    for (unsigned h = 0; h < 65536; ++h) {
        const auto stored = static_cast<std::uint16_t>(h);
        float got = 0;
        dequantize(DType::f16, reinterpret_cast<const std::byte *>(&stored), &got, 1);
        const int exponent = static_cast<int>(h >> 10 & 31), mantissa = static_cast<int>(h & 1023);
        double want = exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
            : exponent == 0          ? std::ldexp(mantissa, -24)
                                     : std::ldexp(1024 + mantissa, exponent - 25);
        if (h & 0x8000u)
            want = -want;
        expectSame(got, static_cast<float>(want), "half " + std::to_string(h));
        const bool nan = exponent == 31 && mantissa != 0;
        EXPECT_TRUE(nan ? (halfFromFloat(got) & 0x7FFF) > 0x7C00 : halfFromFloat(got) == stored) << "half " << h << " does not come back";
        if (HasFailure())
            return;
    }
}

TEST(Dequantize, RoundsToNearestEven)
{
    // Half: spacing 2^-10 in [1, 2). The tie below an even neighbour stays, the one above it goes up.
    EXPECT_EQ(halfFromFloat(1.0f + 0x1p-11f), 0x3C00);
    EXPECT_EQ(halfFromFloat(1.0f + 3 * 0x1p-11f), 0x3C02);
    EXPECT_EQ(halfFromFloat(std::nextafter(1.0f + 0x1p-11f, 2.0f)), 0x3C01);
    EXPECT_EQ(halfFromFloat(65519.996f), 0x7BFF);
    EXPECT_EQ(halfFromFloat(65520.0f), 0x7C00) << "half way to the next power is infinity";
    EXPECT_EQ(halfFromFloat(-1e10f), 0xFC00);
    EXPECT_EQ(halfFromFloat(0x1p-25f), 0) << "half of the smallest subnormal is a tie to zero";
    EXPECT_EQ(halfFromFloat(std::nextafter(0x1p-25f, 1.0f)), 1);
    EXPECT_EQ(halfFromFloat(-0.0f), 0x8000);
    // bfloat16: spacing 2^-7 in [1, 2).
    EXPECT_EQ(bfloatFromFloat(1.0f + 0x1p-8f), 0x3F80);
    EXPECT_EQ(bfloatFromFloat(1.0f + 3 * 0x1p-8f), 0x3F82);
    EXPECT_EQ(bfloatFromFloat(std::nextafter(1.0f + 0x1p-8f, 2.0f)), 0x3F81);
    EXPECT_EQ(bfloatFromFloat(std::numeric_limits<float>::max()), 0x7F80);
    EXPECT_GT(bfloatFromFloat(std::bit_cast<float>(0x7F800001u)) & 0x7FFF, 0x7F80) << "a NaN of low bits became infinity";
}

TEST(Dequantize, IntegersAndBooleansAreConverted)
{
    const std::int16_t shorts[] = {-32768, 7};
    const std::uint64_t longs[] = {std::uint64_t(1) << 63, 3};
    const double doubles[] = {0.1, -2};
    const std::uint8_t flags[] = {0, 2};
    float out[2];
    dequantize(DType::i16, reinterpret_cast<const std::byte *>(shorts), out, 2);
    EXPECT_EQ(out[0], -32768.0f);
    dequantize(DType::u64, reinterpret_cast<const std::byte *>(longs), out, 2);
    EXPECT_EQ(out[0], 0x1p63f);
    dequantize(DType::f64, reinterpret_cast<const std::byte *>(doubles), out, 2);
    EXPECT_EQ(out[0], 0.1f);
    dequantize(DType::boolean, reinterpret_cast<const std::byte *>(flags), out, 2);
    EXPECT_EQ(out[0] + 2 * out[1], 2.0f);
}

} // namespace
} // namespace spectra::test
