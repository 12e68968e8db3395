// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/noise.h"

#include <algorithm>
#include <cstring>

namespace spectra {
namespace {

// The finaliser of splitmix64 (Steele, Lea and Flood 2014).
inline std::uint64_t scramble(std::uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

inline float logOf(float u)
{
    std::uint32_t bits;
    std::memcpy(&bits, &u, sizeof(bits));
    // Mantissa into [√½, √2): ln m = 2·artanh((m−1)/(m+1)) converges quickly there.
    const std::int32_t exponent = static_cast<std::int32_t>((bits + 0x004AFB0Du) >> 23) - 127;
    bits -= static_cast<std::uint32_t>(exponent) << 23;
    float m;
    std::memcpy(&m, &bits, sizeof(m));
    const float s = (m - 1) / (m + 1), t = s * s;
    return static_cast<float>(exponent) * 0.69314718f + 2 * s * (1 + t * (1.0f / 3 + t * (1.0f / 5 + t * (1.0f / 7 + t * (1.0f / 9)))));
}

/// cos and sin of a quarter-turn fraction: angle = (π/2)·x with |x| ≤ ½.
inline void turn(float x, float *cosine, float *sine)
{
    const float r = x * 1.57079633f, t = r * r;
    *cosine = 1 + t * (-0.5f + t * (1.0f / 24 + t * (-1.0f / 720 + t * (1.0f / 40320))));
    *sine = r * (1 + t * (-1.0f / 6 + t * (1.0f / 120 + t * (-1.0f / 5040 + t * (1.0f / 362880)))));
}

/// Two normals of each pair number [firstPair, firstPair + pairs). No branches, so that it vectorises.
void normalPairs(float *out, std::int64_t pairs, std::uint64_t key, std::uint64_t firstPair)
{
    for (std::int64_t j = 0; j < pairs; ++j) {
        const std::uint64_t h = scramble(key + (firstPair + static_cast<std::uint64_t>(j)) * 0x9E3779B97F4A7C15ull);
        const float u = static_cast<float>(static_cast<std::int32_t>(h >> 40) + 1) * 0x1.0p-24f;
        const auto angle = static_cast<std::int32_t>(h & 0xFFFFFF);
        // Quadrant from the two upper bits, the rest centred on it.
        const std::int32_t quadrant = angle >> 22;
        const float rest = static_cast<float>((angle & 0x3FFFFF) - 0x200000) * 0x1.0p-22f;
        float c, s;
        turn(rest, &c, &s);
        const float radius = __builtin_sqrtf(-2 * logOf(u));
        const float a = (quadrant & 1) ? s : c, b = (quadrant & 1) ? c : s;
        out[2 * j] = radius * ((quadrant == 1 || quadrant == 2) ? -a : a);
        out[2 * j + 1] = radius * ((quadrant & 2) ? -b : b);
    }
}

} // namespace

std::uint64_t noiseKey(std::uint64_t seed, std::uint64_t layer, std::uint64_t expert, std::uint64_t matrix)
{
    std::uint64_t key = scramble(seed + 0x9E3779B97F4A7C15ull);
    for (const std::uint64_t part : {layer, expert, matrix})
        key = scramble(key ^ (part + 1) * 0xD1342543DE82EF95ull);
    return key;
}

void addNormalNoise(float *values, std::int64_t count, std::uint64_t key, std::int64_t first, float sigma)
{
    constexpr std::int64_t kPairs = 512;
    float block[2 * kPairs];
    for (std::int64_t done = 0; done < count;) {
        const std::int64_t index = first + done;
        const std::int64_t odd = index & 1;
        const std::int64_t n = std::min(count - done, 2 * kPairs - odd);
        normalPairs(block, (n + odd + 1) / 2, key, static_cast<std::uint64_t>(index / 2));
        for (std::int64_t i = 0; i < n; ++i)
            values[done + i] += sigma * block[i + odd];
        done += n;
    }
}

} // namespace spectra
