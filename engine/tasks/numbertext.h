// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spectra {

// Answers in generated text, found as lm-evaluation-harness's filters find them (their regular expressions, as scanners that take linear
// time on any text).

/// The first `#### NUMBER` (digits, dots, commas, an optional minus); nothing: there is none.
[[nodiscard]] std::optional<std::string> strictNumber(std::string_view text);
/// The last thing that looks like a number: (-?[$0-9.,]{2,})|(-?[0-9]+).
[[nodiscard]] std::optional<std::string> flexibleNumber(std::string_view text);
/// What is compared of a number as text: commas, dollar signs, everything up to "#### " and a full stop at the end go; lower case.
[[nodiscard]] std::string comparableNumber(std::string_view text);

} // namespace spectra
