// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <filesystem>

namespace spectra {

/// Files that this process wrote or has had probed, as they were then (device, inode, size, times): they need no probe.
/// Thread-safe.
void rememberFile(const std::filesystem::path &path);
[[nodiscard]] bool isKnownFile(const std::filesystem::path &path);

} // namespace spectra
