// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// Fewest insertions, deletions, replacements and swaps of neighbours (each once at a place) that turn one word into the other.
[[nodiscard]] std::size_t editDistance(std::string_view a, std::string_view b);

/// The name nearest to `name`, the first of equals; empty without names.
[[nodiscard]] std::string closestName(std::string_view name, const std::vector<std::string> &names);

} // namespace spectra
