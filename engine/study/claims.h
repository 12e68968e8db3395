// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "analysis/statistics/inference.h"
#include "engine/study/results.h"

namespace spectra::study {

/// Where a figure of the claims file comes from. The three never share a column.
enum class ClaimKind { target, estimate, published };

struct Claim {
    ClaimKind kind = ClaimKind::target;
    std::string method, metric, text, unit, source, note;
    /// What `text` says as numbers: "0.94" is low = high; "8-20" a range; "<0.1" a high alone; ">=2.7" a low alone; a word neither.
    std::optional<double> low, high;
};

/// Errors (input): not readable, an entry without kind, method, metric, value or source, an unknown kind or key.
[[nodiscard]] Result<std::vector<Claim>> readClaims(const std::filesystem::path &file);
[[nodiscard]] Result<std::vector<Claim>> parseClaims(const Json &json, const std::string &where);

/// One method's metric: what was claimed, by kind, and what the study measured.
struct ClaimRow {
    std::string method, metric, unit;
    std::vector<Claim> targets, estimates, published;
    std::string row;                 ///< the study's row that stands for the method; empty: not in the study
    std::string path;                ///< of the number in result.json; empty: no run measures it
    std::optional<MeanInterval> measured;
    std::optional<double> chance;
    std::optional<TestResult> againstChance; ///< over seeds, value − chance
    std::vector<std::string> verdicts; ///< "target <0.1: met, p = 0.01"
    bool comparable = false;         ///< measured, by the same definition, and a target or of the same size
    std::vector<std::string> reasons; ///< why not, or what to bear in mind
};

[[nodiscard]] std::vector<ClaimRow> claimsBoard(const Study &study, const std::vector<Claim> &claims);

[[nodiscard]] Json claimsJson(const std::vector<ClaimRow> &rows);
[[nodiscard]] std::string claimsCsv(const std::vector<ClaimRow> &rows);
[[nodiscard]] std::string claimsHtml(const std::vector<ClaimRow> &rows);

} // namespace spectra::study
