// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json.hpp>

#include <string>
#include <string_view>

namespace spectra {

/// JSON text of a person's file with keys in their order. Errors (input), with line and column: not JSON (comments are not),
/// more than 1 MiB, nested deeper than 16, a key twice in one object, more than 1024 keys in one.
[[nodiscard]] Result<nlohmann::ordered_json> parseStrictJson(std::string_view text, const std::string &where);

} // namespace spectra
