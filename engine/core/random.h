// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace spectra {

/// xoshiro256** seeded by splitmix64 (Blackman and Vigna, 2018): the same numbers on every machine for one seed.
/// `stream` gives independent sequences of one seed. Satisfies UniformRandomBitGenerator; std distributions are not
/// reproducible across libraries, so draws are made by the members here.
class Random {
public:
    using result_type = std::uint64_t;

    explicit Random(std::uint64_t seed = 0, std::uint64_t stream = 0)
    {
        std::uint64_t x = seed ^ (stream * 0xD1342543DE82EF95ull + 0x632BE59BD9B4E019ull * (stream != 0));
        for (std::uint64_t &s : m_state)
            s = splitmix(x);
    }

    static constexpr result_type min() { return 0; }
    static constexpr result_type max() { return ~result_type(0); }

    result_type operator()()
    {
        const std::uint64_t result = rotate(m_state[1] * 5, 7) * 9;
        const std::uint64_t t = m_state[1] << 17;
        m_state[2] ^= m_state[0];
        m_state[3] ^= m_state[1];
        m_state[1] ^= m_state[2];
        m_state[0] ^= m_state[3];
        m_state[2] ^= t;
        m_state[3] = rotate(m_state[3], 45);
        return result;
    }

    /// Uniform in [0, 1).
    double uniform() { return static_cast<double>((*this)() >> 11) * 0x1.0p-53; }
    double uniform(double low, double high) { return low + (high - low) * uniform(); }
    /// Uniform in [0, n), without bias (Lemire's method).
    std::uint64_t below(std::uint64_t n)
    {
        if (n == 0)
            return 0;
        for (;;) {
            __extension__ using Wide = unsigned __int128; // ISO C++ has no such type, g++ and clang++ do
            const Wide product = static_cast<Wide>((*this)()) * n;
            const auto low = static_cast<std::uint64_t>(product);
            if (low >= n || low >= (0 - n) % n)
                return static_cast<std::uint64_t>(product >> 64);
        }
    }
    /// Standard normal (polar method).
    double normal()
    {
        if (m_haveSpare) {
            m_haveSpare = false;
            return m_spare;
        }
        double u, v, s;
        do {
            u = 2 * uniform() - 1;
            v = 2 * uniform() - 1;
            s = u * u + v * v;
        } while (s >= 1 || s == 0);
        const double f = std::sqrt(-2 * std::log(s) / s);
        m_spare = v * f;
        m_haveSpare = true;
        return u * f;
    }
    /// Fisher–Yates.
    template <typename Range> void shuffle(Range &range)
    {
        for (std::size_t i = range.size(); i > 1; --i)
            std::swap(range[i - 1], range[below(i)]);
    }

private:
    static std::uint64_t rotate(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
    static std::uint64_t splitmix(std::uint64_t &x)
    {
        std::uint64_t z = (x += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }
    std::uint64_t m_state[4];
    double m_spare = 0;
    bool m_haveSpare = false;
};

} // namespace spectra
