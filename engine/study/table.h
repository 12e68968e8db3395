// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/statistics/inference.h"
#include "engine/study/results.h"

namespace spectra::study {

/// One figure of one method: over its seeds, and against the baseline's.
struct TableCell {
    std::vector<double> values;      ///< per seed that measured it, scaled
    std::vector<std::uint64_t> seeds;
    std::optional<MeanInterval> mean; ///< absent: no run measured it, `reason` says why
    std::string reason;
    std::vector<std::string> missing; ///< "seed 2: failed (exit 1): …" beside values that are there
    std::optional<double> chance;    ///< mean of the chance levels beside it
    std::optional<TestResult> test;  ///< against the baseline
    std::string testName;            ///< "paired t" on the seeds both have, "Welch t" without two such
    std::optional<double> adjusted;  ///< Holm over every test of the table
    std::optional<double> difference, relative; ///< of the means, on the seeds compared; relative to |baseline|, a share
    std::optional<double> cohensD, cliffsDelta;
    bool best = false;

    [[nodiscard]] bool significant() const { return adjusted && *adjusted < 0.05; }
};

struct TableRow {
    std::string label;
    bool baseline = false;
    std::vector<TableCell> cells;    ///< per column
    bool causal = true;              ///< false: a run says that its inference is not
};

/// A line below the methods: the mean over them, or an improvement in per cent.
struct SummaryRow {
    std::string label;
    bool percent = false;
    std::vector<std::optional<MeanInterval>> values;
    std::vector<std::string> notes;  ///< why a value is absent, or which method was the best
};

/// Whether the rows may be compared at all: what else than the method differs.
struct Difference {
    std::string key;                 ///< "model.top_k"
    std::string question;            ///< the question of the block that it answers with no
    bool declared = false;           ///< an axis of the study sets it
    std::vector<std::pair<std::string, std::string>> values; ///< row → value
};
struct Comparability {
    /// "same base model", "same expert architecture", "same data order", "same steps", "same hyper-parameters", "same evaluation", "same
    /// seeds".
    std::vector<std::pair<std::string, bool>> answers;
    std::vector<Difference> differences;
};

struct StudyTable {
    std::string title, baseline, rowsTitle;
    std::vector<Quantity> columns;
    std::vector<TableRow> rows;
    std::vector<SummaryRow> summary; ///< average, improvement over the others' average, over the best other
    Comparability comparability;
    std::size_t tests = 0;           ///< that Holm's correction counts
};

/// Errors (usage): the baseline or the focus is no row.
[[nodiscard]] Result<StudyTable> makeTable(const Study &study, const TableSpec &spec);
[[nodiscard]] Comparability compareConfigs(const Study &study, const std::vector<Study::Row> &rows);

/// False when a run of the row says that its inference is not causal.
[[nodiscard]] bool isCausal(const Study &study, const Study::Row &row);
/// The values of a row by seed, and why there are none.
[[nodiscard]] TableCell gather(const Study &study, const Study::Row &row, const Quantity &quantity);

} // namespace spectra::study
