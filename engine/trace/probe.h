// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>

namespace spectra {

/// What the child process does with a file from outside, under its limits: opens every object and attribute, reads all
/// variable-length text and looks up every chunk by its coordinates, whose offset and stored size must lie inside the file
/// (raw data is not read). Above `fullBytes` only the first and last chunks of each dataset are looked up.
/// Errors (input): what is damaged, and where.
[[nodiscard]] Result<void> probeFile(const std::filesystem::path &path, std::int64_t fullBytes = std::int64_t(10) << 30);

/// Limits of this process: address space, processor seconds, no core file, hardly any output.
void limitThisProcess(std::int64_t memoryBytes, int seconds);

} // namespace spectra
