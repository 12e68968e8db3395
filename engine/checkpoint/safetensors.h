// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/storage.h"

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace spectra {

struct SafetensorsHeader {
    std::vector<StoredTensor> tensors;                ///< in order of their place in the file
    std::map<std::string, std::string> metadata;      ///< "__metadata__"
};

/// Parses the header of one safetensors file and checks it against the file's size: header of at most 100 MB, data
/// contiguous without holes or overlaps up to the last byte, no duplicate names, sizes equal to shape × type.
/// Errors (input) name the tensor. (safetensors README, "Format".)
[[nodiscard]] Result<SafetensorsHeader> parseSafetensors(std::span<const std::byte> bytes);

} // namespace spectra
