// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/cli/cli.h"

#include <string>

namespace spectra {
enum class ThemeKind;
}

namespace spectra::cli {

/// `spectra report STUDY_DIR`: OUTPUT/index.html with every table, the factorial effects, the claims board and the figures of
/// the study, OUTPUT/figures as PDF, SVG, PNG and CSV, OUTPUT/tables. Only what the runs measured is shown. Errors: input (no
/// study), work (OUTPUT exists without overwrite, not writable), cancelled.
[[nodiscard]] Result<void> reportStudy(const Common &common, const std::string &folder, const std::string &output, ThemeKind theme);

} // namespace spectra::cli
