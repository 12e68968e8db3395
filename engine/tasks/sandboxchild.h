// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>

namespace spectra {

// What happens between fork and exec of a sandboxed program. The parent has threads, so nothing here may allocate, lock or throw:
// system calls on memory made before the fork.

enum class SandboxStep : std::uint8_t { user, namespaces, identity, process, mounts, root, program, limits, filter, start, ended };
[[nodiscard]] const char *sandboxStepName(SandboxStep step);

/// What the guard tells the parent through a pipe: a step that failed, or how the program ended.
struct SandboxReport {
    SandboxStep step = SandboxStep::ended;
    std::uint8_t timedOut = 0;
    int error = 0;    ///< errno of a failed step
    int status = 0;   ///< of waitpid
};

struct SandboxPlan {
    const char *python = nullptr;
    const char *program = nullptr;
    std::size_t programSize = 0;
    double seconds = 0;
    std::uint64_t memory = 0, files = 0;
    char tmpfsOptions[96] = {}, uidMap[48] = {}, gidMap[48] = {};
    int report = -1, output = -1, control = -1; ///< descriptors; the program is killed when the control pipe's other end closes
    int controlOther = -1;                      ///< that end, which the guard must not hold itself
};

/// The guard: makes the namespaces, starts the program in them, waits with the deadline, kills, reports.
[[noreturn]] void runSandboxGuard(const SandboxPlan &plan);

} // namespace spectra
