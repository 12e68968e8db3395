// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QString>

#include <vector>

namespace spectra {

/// How well `pattern` fits `text` when its letters appear in order, case ignored. Word starts, runs of letters and an
/// early beginning score higher. `score` < 0: no match; an empty pattern matches everything with 0.
struct FuzzyMatch {
    int score = -1;
    std::vector<int> positions; ///< indices in text of the letters that matched
};
[[nodiscard]] FuzzyMatch fuzzyMatch(const QString &pattern, const QString &text);

} // namespace spectra
