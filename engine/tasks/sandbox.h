// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <stop_token>
#include <string>

namespace spectra {

/// What a program that a model wrote may use.
struct SandboxLimits {
    double seconds = 10;                                   ///< wall clock; CPU seconds are limited alike
    std::uint64_t memory = std::uint64_t(1) << 30;         ///< bytes of address space
    std::uint64_t files = std::uint64_t(16) << 20;         ///< bytes in its only writable folder, and of one file
};

/// How a program ended.
struct ProgramRun {
    bool passed = false;      ///< it ran to its last line and ended with code 0
    bool timedOut = false;
    int exitCode = -1;        ///< −1: it was killed
    int signal = 0;
    std::string output;       ///< the last 4 KB of what it printed
};

/// Runs Python code that nobody has read, contained: its own user, network, mount, process, IPC and host-name namespaces (no network,
/// not even loopback; other processes invisible); a root file system of the system's Python and libraries, read-only, and one small
/// tmpfs; no environment, no open files, no capabilities; seccomp without new processes, mounts, namespaces, tracing; rlimits
/// (CPU, memory, files, processes); killed with all it started at the wall-clock limit. `python3 -I` of /usr/bin. Linux only.
/// A program that ends early (sys.exit) has not passed: its last line is reached or it is not.
/// Errors: work (the sandbox cannot be set up: the step is named), cancelled.
[[nodiscard]] Result<ProgramRun> runPython(const std::string &program, const SandboxLimits &limits, std::stop_token stop = {});

/// Whether programs can be contained here: runs one. Errors (work): why not.
[[nodiscard]] Result<void> checkSandbox();

} // namespace spectra
