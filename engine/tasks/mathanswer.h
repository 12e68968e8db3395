// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spectra {

/// What the last \boxed{…} (or \fbox) of a solution holds, braces balanced.
[[nodiscard]] std::optional<std::string> lastBoxed(std::string_view text);
/// The answer after "Final Answer: The final answer is", up to "I hope it is correct".
[[nodiscard]] std::optional<std::string> finalAnswer(std::string_view text);
/// The normal form of an answer in LaTeX by which answers are compared (Lewkowycz et al. 2022, arXiv 2206.14858, appendix D, with the
/// repairs of lm-evaluation-harness 0.4.13: units at word boundaries, thousands separators, roots with an index).
[[nodiscard]] std::string normalizedMathAnswer(std::string_view answer);
/// Equal normal forms, or numbers of equal value (integers, decimals, a/b, \frac{a}{b}, with sign). lm-evaluation-harness also asks a
/// computer algebra system about other expressions; this program does not, so that it can only find fewer answers right.
[[nodiscard]] bool sameMathAnswer(std::string_view a, std::string_view b);

} // namespace spectra
