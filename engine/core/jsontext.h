// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <string>
#include <string_view>

namespace spectra {

/// Looks at JSON text from outside before a parser builds it: nesting deeper than `depth` would overflow the stack of
/// whatever walks the tree later. Brackets inside strings do not count. Errors (input): nested too deeply.
[[nodiscard]] Result<void> checkJsonText(std::string_view text, const std::string &where, int depth = 64);

} // namespace spectra
