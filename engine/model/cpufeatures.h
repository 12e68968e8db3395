// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

namespace spectra {

/// True when AMX BF16 is there and describes its tiles. Some virtual machines announce AMX but hide CPUID leaf 1D; oneDNN then
/// configures no tiles and its products end in an illegal instruction.
[[nodiscard]] bool amxUsable();

/// True when bf16 is worth its rounding on this CPU (model.h says more).
[[nodiscard]] bool cpuHasFastBf16();

/// Keeps oneDNN off AMX where it would fault. Must run before the first product of torch in bf16; does nothing twice.
void guardOneDnn();

} // namespace spectra
