// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

// One function, compiled for the instruction sets that matter and chosen at load time (an ifunc): the program runs on
// any x86-64 and is quick on a new one. For plain functions with external or internal linkage, not for templates or
// lambdas; what they call must be inlined to be compiled the same way. Sanitizers cannot run before their own start-up,
// which is when ifuncs are resolved, so their builds take the plain form.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) &&                \
    !defined(__SANITIZE_ADDRESS__)
#define SPECTRA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SPECTRA_CLONES
#endif
