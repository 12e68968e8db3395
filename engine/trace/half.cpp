// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/trace/half.h"

#include <bit>
#include <cstddef>
#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace spectra {

std::uint16_t toHalf(float value)
{
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) // rounds to 65536 or more
        return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { // subnormal half: the sum with 0.5 puts the rounded bits into the low mantissa
        const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t odd = (magnitude >> 13) & 1u;
    return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

float fromHalf(std::uint16_t half)
{
    const std::uint32_t sign = std::uint32_t(half & 0x8000u) << 16;
    const std::uint32_t magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x400u)
        return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
    const float value = static_cast<float>(magnitude) * 0x1.0p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

namespace {

#if defined(__x86_64__)
__attribute__((target("avx,f16c"))) std::size_t toHalfWide(const float *from, std::uint16_t *to, std::size_t n)
{
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    return i;
}

__attribute__((target("avx,f16c"))) std::size_t fromHalfWide(const std::uint16_t *from, float *to, std::size_t n)
{
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i))));
    return i;
}

bool haveF16c()
{
    // By CPUID (leaf 1, ECX bit 29): clang 14 has no name for it.
    static const bool have = [] {
        unsigned a = 0, b = 0, c = 0, d = 0;
        return __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) != 0 && (c >> 29 & 1) != 0;
    }();
    return have;
}
#endif

} // namespace

void toHalf(std::span<const float> from, std::uint16_t *to)
{
    std::size_t i = 0;
#if defined(__x86_64__)
    if (haveF16c())
        i = toHalfWide(from.data(), to, from.size());
#endif
    for (; i < from.size(); ++i)
        to[i] = toHalf(from[i]);
}

void fromHalf(std::span<const std::uint16_t> from, float *to)
{
    std::size_t i = 0;
#if defined(__x86_64__)
    if (haveF16c())
        i = fromHalfWide(from.data(), to, from.size());
#endif
    for (; i < from.size(); ++i)
        to[i] = fromHalf(from[i]);
}

} // namespace spectra
