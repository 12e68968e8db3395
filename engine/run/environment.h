// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/tracesource.h"

#include <cstdint>
#include <string>

namespace spectra {

/// Versions and machine, for traces and runs; no user or host name.
[[nodiscard]] EnvironmentAttributes environmentAttributes(const std::string &commandLine, int threads);
/// The same as JSON, for a run's folder.
[[nodiscard]] std::string environmentJson(const EnvironmentAttributes &environment);
/// Largest resident memory of this process so far, bytes.
[[nodiscard]] std::uint64_t peakMemory();
/// Joules that the processor packages have drawn since some time in the past (RAPL); < 0 where they cannot be read.
[[nodiscard]] double processorJoules();

} // namespace spectra
