// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/table.h"

#include <span>

namespace spectra::study {

/// "0.113 ± 0.012": as many digits as the interval has two of, or four significant ones without interval.
struct NumberText {
    std::string value, half;         ///< half empty: no interval
};
[[nodiscard]] NumberText numberText(const MeanInterval &mean, std::int64_t decimals);
[[nodiscard]] std::string number(double value, int significant = 4);

/// A booktabs table with a note below: best in bold, "ns" for what does not differ significantly from the baseline, "–" with
/// its reason in the note, † where inference is not causal.
[[nodiscard]] std::string tableLatex(const StudyTable &table);
/// One line a row and column, every statistic in a field of its own; the first field is the table's title. `header` false
/// leaves the first line out.
[[nodiscard]] std::string tableCsv(const StudyTable &table, bool header = true);
[[nodiscard]] Json tableJson(const StudyTable &table);
/// <table>, its note and the comparability block: a fragment that a page may hold.
[[nodiscard]] std::string tableHtml(const StudyTable &table);

[[nodiscard]] std::string latexText(const std::string &text);
[[nodiscard]] std::string htmlText(const std::string &text);
[[nodiscard]] std::string csvText(const std::string &text);

} // namespace spectra::study
