// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <vector>

namespace spectra::test {

/// The same uniform numbers as make_embedding.py draws.
inline std::vector<double> uniforms(std::uint64_t seed, std::size_t n)
{
    std::vector<double> u(n);
    std::uint64_t x = seed;
    for (double &v : u) {
        std::uint64_t z = (x += 0x9E3779B97F4A7C15ull);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        v = static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
    }
    return u;
}

/// Points [n,d] around cluster centres of two levels, as in make_embedding.py.
inline std::vector<float> clusteredPoints(std::size_t n, std::size_t d, std::size_t clusters, std::uint64_t seed)
{
    const std::vector<double> u = uniforms(seed, clusters * d + 4 * d + n * d * 4);
    const double *noise = u.data() + (clusters + 4) * d;
    std::vector<float> x(n * d);
    for (std::size_t i = 0; i < n; ++i)
        for (std::size_t j = 0; j < d; ++j) {
            const std::size_t c = i % clusters;
            const double centre = (u[c * d + j] - 0.5) * 4 + (u[(clusters + c % 4) * d + j] - 0.5) * 12;
            const double *e = noise + (i * d + j) * 4;
            x[i * d + j] = static_cast<float>(centre + (((e[0] + e[1]) + e[2]) + e[3] - 2.0));
        }
    return x;
}

} // namespace spectra::test
