// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

/// Clones of a hot function for AVX-512, AVX2 with FMA, and the baseline, chosen when the program starts. The thread sanitizer is not
/// ready yet when that choice is made, so its builds keep to the baseline.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define SPECTRA_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SPECTRA_HOT
#endif
