// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

// Text as Python's str sees it: reference implementations of task formats are written in Python, and equal numbers need equal text.

/// Bytes of the white-space character (Unicode, as str.isspace) at `at`; 0: none.
[[nodiscard]] std::size_t whiteSpaceAt(std::string_view text, std::size_t at);
/// str.strip(), rstrip(): without white space at both ends, at the end.
[[nodiscard]] std::string_view stripped(std::string_view text);
[[nodiscard]] std::string_view rightStripped(std::string_view text);
/// len(): code points; a byte that is not UTF-8 counts one.
[[nodiscard]] std::int64_t codePoints(std::string_view text);
/// str.capitalize(): the first character upper case, the others lower case.
[[nodiscard]] std::string capitalized(std::string_view text);
[[nodiscard]] std::string lowerCase(std::string_view text);
[[nodiscard]] std::string replaced(std::string text, std::string_view from, std::string_view to);
/// len(re.split(r"\s+", text)): runs of white space, and one.
[[nodiscard]] std::int64_t wordCount(std::string_view text);
[[nodiscard]] std::string joined(const std::vector<std::string> &parts, std::string_view between);

} // namespace spectra
