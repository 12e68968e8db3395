// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>

// Sixteen floats worked on as one: a vector register where the machine has one that wide, several narrower ones else.
// Only for code inside SPECTRA_CLONES functions and what is inlined into them; never passed by value between real
// functions.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif

#define SPECTRA_INLINE inline __attribute__((always_inline))

namespace spectra::detail {

inline constexpr int kLanes = 16;
// The alignment is stated: without wide registers the compiler would settle for 16 bytes, and the clones for such
// registers read the same memory.
using Vector = float __attribute__((vector_size(64), aligned(64)));
using IntVector = int __attribute__((vector_size(64), aligned(64)));

/// Sixteen complex numbers.
struct alignas(64) Lanes {
    Vector re, im;
};

/// Transposes sixteen rows of sixteen in place: four perfect shuffles of the rows.
SPECTRA_INLINE void transpose(Vector (&rows)[kLanes])
{
    constexpr IntVector low{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
    constexpr IntVector high{8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    Vector other[kLanes];
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < 8; ++i) {
            other[2 * i] = __builtin_shuffle(rows[i], rows[i + 8], low);
            other[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 8], high);
        }
        for (int i = 0; i < 8; ++i) {
            rows[2 * i] = __builtin_shuffle(other[i], other[i + 8], low);
            rows[2 * i + 1] = __builtin_shuffle(other[i], other[i + 8], high);
        }
    }
}

} // namespace spectra::detail
