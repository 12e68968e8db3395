// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <string_view>

namespace spectra {

/// A document of a JSON lines file, or a piece of a plain text.
struct TextPart {
    std::string_view text; ///< UTF-8; valid during the call only
    bool continues = false; ///< a piece that follows the one before without a gap
};

/// What was read of a file.
struct FileSum {
    std::string sha256;      ///< of the file as it lies on disk
    std::int64_t bytes = 0;
};

/// The way into a file that readDocuments() and the corpus share. The sum is empty when `part` stopped it. A line of JSON may
/// have `longestLine` bytes: so much of a file is held at once.
[[nodiscard]] Result<FileSum> readParts(const std::filesystem::path &file, const std::string &textField,
                                        const std::function<bool(const TextPart &)> &part, std::stop_token stop,
                                        std::size_t longestLine = std::size_t(256) << 20);

/// True for `.jsonl` and `.jsonl.zst`.
[[nodiscard]] bool isJsonLines(const std::filesystem::path &file);

} // namespace spectra
