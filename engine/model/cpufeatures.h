// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

namespace spectra {

/// True when the AMX BF16 tile instructions really run. Some virtual machines announce them and then fault on them; a
/// short-lived child process tries, once.
[[nodiscard]] bool amxWorks();

/// Keeps oneDNN off AMX where it faults. Must run before the first product of torch in bf16; does nothing twice.
void guardOneDnn();

} // namespace spectra
