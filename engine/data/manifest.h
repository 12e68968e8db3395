// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <string>
#include <string_view>

namespace spectra {

/// Whether two manifests (Corpus::manifest()) describe the same tokens in the same order: names and order of domains, weights,
/// contents of the files, filters, split, tokenizer, token files. Where the files lie does not matter. Empty when they do;
/// otherwise the first difference, for a person: "domain wiki: file 2 has other contents (wiki2.txt)".
/// Errors (input): one of them is no manifest.
[[nodiscard]] Result<std::string> manifestDifference(std::string_view before, std::string_view now);

} // namespace spectra
