// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/dequantize.h"

#include <array>
#include <bit>
#include <cstring>

namespace spectra {
namespace {

static_assert(std::endian::native == std::endian::little, "weight files are little-endian");

template <typename T> T load(const std::byte *p)
{
    T value;
    std::memcpy(&value, p, sizeof value);
    return value;
}

/// Shifting the exponent and multiplying by 2^112 handles subnormals; infinities and NaN get the full exponent back.
inline float floatFromHalf(std::uint16_t h)
{
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
    const std::uint32_t rest = static_cast<std::uint32_t>(h & 0x7FFFu) << 13;
    const float scaled = std::bit_cast<float>(rest) * 0x1p112f;
    const std::uint32_t special = rest | 0x7F800000u;
    const std::uint32_t bits = (h & 0x7C00u) == 0x7C00u ? special : std::bit_cast<std::uint32_t>(scaled);
    return std::bit_cast<float>(bits | sign);
}

inline float halfAt(const std::byte *p)
{
    return floatFromHalf(load<std::uint16_t>(p));
}

inline const std::uint8_t *bytesAt(const std::byte *p)
{
    return reinterpret_cast<const std::uint8_t *>(p);
}

void q4_0(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block);
    const std::uint8_t *q = bytesAt(block + 2);
    for (int i = 0; i < 16; ++i) {
        y[i] = static_cast<float>((q[i] & 15) - 8) * d;
        y[i + 16] = static_cast<float>((q[i] >> 4) - 8) * d;
    }
}

void q4_1(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block), m = halfAt(block + 2);
    const std::uint8_t *q = bytesAt(block + 4);
    for (int i = 0; i < 16; ++i) {
        y[i] = static_cast<float>(q[i] & 15) * d + m;
        y[i + 16] = static_cast<float>(q[i] >> 4) * d + m;
    }
}

void q5_0(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block);
    const auto h = load<std::uint32_t>(block + 2);
    const std::uint8_t *q = bytesAt(block + 6);
    for (int i = 0; i < 16; ++i) {
        y[i] = static_cast<float>(static_cast<int>((q[i] & 15u) | ((h >> i & 1u) << 4)) - 16) * d;
        y[i + 16] = static_cast<float>(static_cast<int>((q[i] >> 4u) | ((h >> (i + 16) & 1u) << 4)) - 16) * d;
    }
}

void q5_1(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block), m = halfAt(block + 2);
    const auto h = load<std::uint32_t>(block + 4);
    const std::uint8_t *q = bytesAt(block + 8);
    for (int i = 0; i < 16; ++i) {
        y[i] = static_cast<float>(static_cast<int>((q[i] & 15u) | ((h >> i & 1u) << 4))) * d + m;
        y[i + 16] = static_cast<float>(static_cast<int>((q[i] >> 4u) | ((h >> (i + 16) & 1u) << 4))) * d + m;
    }
}

void q8_0(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block);
    const auto *q = reinterpret_cast<const std::int8_t *>(block + 2);
    for (int i = 0; i < 32; ++i)
        y[i] = static_cast<float>(q[i]) * d;
}

/// Six-bit scale and minimum number `j` of a K block's 12 packed bytes.
inline void scaleAndMin(const std::uint8_t *s, int j, int &scale, int &min)
{
    if (j < 4) {
        scale = s[j] & 63;
        min = s[j + 4] & 63;
    } else {
        scale = (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4);
        min = (s[j + 4] >> 4) | ((s[j] >> 6) << 4);
    }
}

template <bool fifthBit> void q45k(const std::byte *block, float *__restrict y)
{
    const float d = halfAt(block), dmin = halfAt(block + 2);
    const std::uint8_t *s = bytesAt(block + 4);
    const std::uint8_t *high = bytesAt(block + 16);
    const std::uint8_t *q = fifthBit ? high + 32 : high;
    for (int g = 0; g < 8; ++g) {
        int scale, min;
        scaleAndMin(s, g, scale, min);
        const float a = d * static_cast<float>(scale), b = dmin * static_cast<float>(min);
        const std::uint8_t *group = q + 32 * (g / 2);
        const int shift = 4 * (g & 1);
        for (int l = 0; l < 32; ++l) {
            int v = (group[l] >> shift) & 15;
            if constexpr (fifthBit)
                v |= ((high[l] >> g) & 1) << 4;
            y[32 * g + l] = a * static_cast<float>(v) - b;
        }
    }
}

void q6_k(const std::byte *block, float *__restrict y)
{
    const std::uint8_t *low = bytesAt(block), *high = bytesAt(block + 128);
    const auto *scales = reinterpret_cast<const std::int8_t *>(block + 192);
    const float d = halfAt(block + 208);
    for (int n = 0; n < 2; ++n)
        for (int k = 0; k < 4; ++k)
            for (int half = 0; half < 2; ++half) {
                const float a = d * static_cast<float>(scales[8 * n + 2 * k + half]);
                const std::uint8_t *ql = low + 64 * n + 32 * (k & 1) + 16 * half;
                const std::uint8_t *qh = high + 32 * n + 16 * half;
                float *out = y + 128 * n + 32 * k + 16 * half;
                const int shift = k < 2 ? 0 : 4;
                for (int l = 0; l < 16; ++l) {
                    const int v = ((ql[l] >> shift) & 15) | (((qh[l] >> (2 * k)) & 3) << 4);
                    out[l] = a * static_cast<float>(v - 32);
                }
            }
}

template <void (*block)(const std::byte *, float *), int elements, int bytes>
void blocks(const std::byte *source, float *out, std::int64_t n)
{
    for (std::int64_t i = 0; i < n / elements; ++i)
        block(source + i * bytes, out + i * elements);
}

template <typename T> void convert(const std::byte *source, float *__restrict out, std::int64_t n)
{
    for (std::int64_t i = 0; i < n; ++i)
        out[i] = static_cast<float>(load<T>(source + i * static_cast<std::int64_t>(sizeof(T))));
}

} // namespace

void dequantize(DType type, const std::byte *source, float *out, std::int64_t n)
{
    switch (type) {
    case DType::f32:
        if (n > 0)
            std::memcpy(out, source, static_cast<std::size_t>(n) * sizeof(float));
        return;
    case DType::f16:
        for (std::int64_t i = 0; i < n; ++i)
            out[i] = floatFromHalf(load<std::uint16_t>(source + 2 * i));
        return;
    case DType::bf16:
        for (std::int64_t i = 0; i < n; ++i)
            out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(load<std::uint16_t>(source + 2 * i)) << 16);
        return;
    case DType::f64: return convert<double>(source, out, n);
    case DType::i8: return convert<std::int8_t>(source, out, n);
    case DType::i16: return convert<std::int16_t>(source, out, n);
    case DType::i32: return convert<std::int32_t>(source, out, n);
    case DType::i64: return convert<std::int64_t>(source, out, n);
    case DType::u8: return convert<std::uint8_t>(source, out, n);
    case DType::u16: return convert<std::uint16_t>(source, out, n);
    case DType::u32: return convert<std::uint32_t>(source, out, n);
    case DType::u64: return convert<std::uint64_t>(source, out, n);
    case DType::boolean:
        for (std::int64_t i = 0; i < n; ++i)
            out[i] = source[i] != std::byte{0} ? 1.0f : 0.0f;
        return;
    case DType::q4_0: return blocks<q4_0, 32, 18>(source, out, n);
    case DType::q4_1: return blocks<q4_1, 32, 20>(source, out, n);
    case DType::q5_0: return blocks<q5_0, 32, 22>(source, out, n);
    case DType::q5_1: return blocks<q5_1, 32, 24>(source, out, n);
    case DType::q8_0: return blocks<q8_0, 32, 34>(source, out, n);
    case DType::q4_k: return blocks<q45k<false>, 256, 144>(source, out, n);
    case DType::q5_k: return blocks<q45k<true>, 256, 176>(source, out, n);
    case DType::q6_k: return blocks<q6_k, 256, 210>(source, out, n);
    }
}

std::uint16_t halfFromFloat(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u;
    const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
    if (magnitude >= 0x47800000u) // 65536 and above, infinity, NaN
        return static_cast<std::uint16_t>(sign | (magnitude > 0x7F800000u ? 0x7E00u : 0x7C00u));
    if (magnitude < 0x38800000u) {
        // Below the smallest normal half, 2^-14: adding ½ lets the adder of f32 round at 2^-24.
        const float rounded = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(rounded) - std::bit_cast<std::uint32_t>(0.5f)));
    }
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xFFFu + odd) >> 13));
}

std::uint16_t bfloatFromFloat(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
        return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

} // namespace spectra
