// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/cpufeatures.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>

namespace spectra {
namespace {

std::string cpuFlags()
{
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);)
        if (line.starts_with("flags"))
            return line + " ";
    return {};
}

bool hasFlag(const std::string &name)
{
    static const std::string flags = cpuFlags();
    return flags.find(" " + name + " ") != std::string::npos;
}

} // namespace

bool amxUsable()
{
#if defined(__x86_64__)
    static const bool usable = [] {
        if (!hasFlag("amx_bf16") || !hasFlag("amx_tile"))
            return false;
        // Leaf 1D, palette 1 (Intel SDM, CPUID): bytes per tile in the upper half of EAX, number of tiles in that of EBX.
        unsigned a = 0, b = 0, c = 0, d = 0;
        return __get_cpuid_count(0x1D, 1, &a, &b, &c, &d) != 0 && (a >> 16) != 0 && (b >> 16) != 0;
    }();
    return usable;
#else
    return false;
#endif
}

void guardOneDnn()
{
    static std::once_flag once;
    std::call_once(once, [] {
        if (hasFlag("amx_tile") && !amxUsable())
            setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 0);
    });
}

bool cpuHasFastBf16()
{
    return hasFlag("avx512_bf16") || amxUsable();
}

} // namespace spectra
