// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <QString>

namespace spectra {

/// What the workbench can do with a path that was opened, dropped or named on the command line.
enum class FileKind { trace, session, gguf, modelFolder, prompts };

/// Tells by name and first bytes, reading at most 4 KiB. Errors (input): missing, empty, unreadable, or nothing that this
/// program opens; `mend` says what to use instead. May be called on any thread.
[[nodiscard]] Result<FileKind> fileKind(const QString &path);

/// The filter of the Open dialog.
[[nodiscard]] QString openFilter();

} // namespace spectra
