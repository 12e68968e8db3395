// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/association.h"
#include "engine/study/claims.h"
#include "engine/study/effects.h"
#include "engine/study/figures.h"

namespace spectra::study {

/// Everything that follows from the runs' files, computed once.
struct StudyOutputs {
    std::vector<StudyTable> tables;
    std::vector<Effects> effects;
    std::vector<Association> associations;
    std::vector<FigureData> figures; ///< those of the specification, then the scaling laws
    std::vector<ClaimRow> claims;
};

/// Errors (usage): a table's baseline, a design's generators.
[[nodiscard]] Result<StudyOutputs> makeOutputs(const Study &study, const std::vector<Claim> &claims);

/// Writes into `folder`: table.csv, table.tex and table.json (all tables), tables/NN-TITLE.{csv,tex,json,html}, tables/effects.*,
/// tables/associations.{csv,json,html}, tables/scaling.json, tables/claims.{csv,json,html}, figures/NN-TITLE.csv. Each file appears
/// whole or not at all; files of an earlier call are replaced. Errors (work): not writable.
[[nodiscard]] Result<void> writeOutputs(const Study &study, const StudyOutputs &outputs, const std::filesystem::path &folder);

/// "01-main-table"
[[nodiscard]] std::string outputName(std::size_t index, const std::string &title);

} // namespace spectra::study
