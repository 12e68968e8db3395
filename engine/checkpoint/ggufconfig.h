// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/family.h"
#include "engine/checkpoint/gguf.h"

#include <nlohmann/json.hpp>

namespace spectra {

/// GGUF metadata under the names that config.json uses, so that a family reads one form and upcycling has a config.json
/// to start from. `stored` are the tensors of all parts (the head is tied when there is no output.weight).
/// Errors (input): no general.architecture, unsupported architecture, a setting that we cannot honour.
[[nodiscard]] Result<nlohmann::json> ggufConfig(const GgufHeader &header, const std::vector<StoredTensor> &stored, const Family *&family);

} // namespace spectra
