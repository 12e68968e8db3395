// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

namespace spectra {

/// "0.1.0"
[[nodiscard]] const char *programVersion();
/// Twelve digits of the commit that was configured, or "unknown" outside a clone.
[[nodiscard]] const char *programCommit();
/// "GNU 12.2.0"
[[nodiscard]] const char *programCompiler();

} // namespace spectra
