// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/model/cpufeatures.h"

#include "engine/model/model.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
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

#if defined(__x86_64__)
/// In the child: a product of two tiles of one row. Ends with 0, or by SIGILL. Only calls that are safe after fork.
[[noreturn]] void tryTiles()
{
    constexpr long kRequestPermission = 0x1023, kTileData = 18; // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) != 0)
        _exit(1);
    signal(SIGILL, SIG_DFL);
    alignas(64) std::uint8_t config[64] = {};
    alignas(64) std::uint8_t zeros[64] = {};
    config[0] = 1;                      // palette
    for (int t = 0; t < 3; ++t) {
        config[16 + 2 * t] = 4;         // bytes per row
        config[48 + t] = 1;             // rows
    }
    asm volatile("ldtilecfg %0\n\t"
                 "tilezero %%tmm0\n\t"
                 "tileloadd (%1,%2,1), %%tmm1\n\t"
                 "tileloadd (%1,%2,1), %%tmm2\n\t"
                 "tdpbf16ps %%tmm2, %%tmm1, %%tmm0\n\t"
                 "tilerelease"
                 :
                 : "m"(config), "r"(zeros), "r"(std::int64_t(4))
                 : "memory");
    _exit(0);
}
#endif

} // namespace

bool amxWorks()
{
#if defined(__x86_64__)
    static const bool works = [] {
        if (!hasFlag("amx_bf16") || !hasFlag("amx_tile"))
            return false;
        const pid_t child = fork();
        if (child == 0)
            tryTiles();
        int status = 0;
        return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }();
    return works;
#else
    return false;
#endif
}

void guardOneDnn()
{
    static std::once_flag once;
    std::call_once(once, [] {
        if (hasFlag("amx_bf16") && !amxWorks())
            setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", 0);
    });
}

bool cpuHasFastBf16()
{
    return hasFlag("avx512_bf16") || amxWorks();
}

} // namespace spectra
