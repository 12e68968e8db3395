// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <filesystem>
#include <string>

namespace spectra::cli {

/// The text with what HTML would take for markup escaped.
[[nodiscard]] std::string html(const std::string &text);
/// A whole page in the reports' style. `title` and `note` are plain text, `body` is HTML.
[[nodiscard]] std::string htmlPage(const std::string &title, const std::string &note, const std::string &body);
/// Errors (work): not writable.
[[nodiscard]] Result<void> writeText(const std::filesystem::path &place, const std::string &text);

} // namespace spectra::cli
