// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/storage.h"

#include <filesystem>
#include <string>
#include <vector>

namespace spectra {

/// The steps of Checkpoint::open() behind the file system, so that tests and fuzzers can feed bytes in memory.

/// `parts` are the files of one GGUF model in order (one, when it is not split).
[[nodiscard]] Result<std::shared_ptr<const Checkpoint>> openGguf(std::filesystem::path path, std::vector<DataFile> parts);

/// `indexText` is the text of model.safetensors.index.json, empty when there is one file only.
[[nodiscard]] Result<std::shared_ptr<const Checkpoint>> openSafetensors(std::filesystem::path path, std::string configText,
                                                                       std::vector<DataFile> files, const std::string &indexText);

/// Plain file names of the shards that an index lists, sorted, each once. Errors (input): malformed, a name with a separator.
[[nodiscard]] Result<std::vector<std::string>> shardNames(const std::string &indexText);

} // namespace spectra
