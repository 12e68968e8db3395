// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/vocabulary.h"
#include "engine/tokenizer/tables.h"
#include "engine/tokenizer/utf8.h"

#include <string>
#include <vector>

namespace spectra {

/// A GGUF vocabulary as the tokenizer.json that says the same.
[[nodiscard]] Result<TokenizerSpec> specFromGguf(const GgufVocabulary &vocabulary);
[[nodiscard]] std::vector<std::string> ggufPreTokenizerNames();

} // namespace spectra
