// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <bit>
#include <cstdint>

/// Elementary functions without tables or branches, so that loops over them vectorise. Scalar in form on purpose: the compiler
/// widens them to whatever the function they are inlined into may use.
namespace spectra::rule {

/// e^x to about 1 ulp; 0 below -87.3, 2^127 and more above 88. NaN stays NaN.
[[gnu::always_inline]] inline float vexp(float x)
{
    const float low = -87.3f, high = 88.3f, magic = 12582912.0f; // 1.5·2^23: adding it rounds to a whole number
    float c = x < low ? low : x;
    c = c > high ? high : c;
    const float shifted = c * 1.44269504088896341f + magic;
    const float n = shifted - magic;
    float r = c - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;                                   // Cephes expf (Moshier): minimax on [-ln2/2, ln2/2]
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const auto power = std::bit_cast<float>((std::bit_cast<std::int32_t>(shifted) + 127) << 23);
    const float result = p * power;
    return x < low ? 0.0f : result;
}

[[gnu::always_inline]] inline float vsigmoid(float x)
{
    return 1.0f / (1.0f + vexp(-x));
}

[[gnu::always_inline]] inline float vtanh(float x)
{
    const float c = x > 20.0f ? 20.0f : x < -20.0f ? -20.0f : x;
    const float e = vexp(2.0f * c);
    return (e - 1.0f) / (e + 1.0f);
}

} // namespace spectra::rule
