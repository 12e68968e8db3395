// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <torch/torch.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <stop_token>
#include <string>

namespace spectra {

/// What a run keeps beside its model: f32 tensors by name and whole numbers.
struct StoredState {
    std::map<std::string, torch::Tensor> tensors;
    std::map<std::string, std::int64_t> numbers;
};

/// Writes a folder that must not exist yet: model.safetensors with the tensors (as f32) and numbers.json. Not atomic by itself:
/// the caller's AtomicFolder is. Errors: work (disk full), cancelled.
[[nodiscard]] Result<void> writeState(const std::filesystem::path &folder, const std::map<std::string, torch::Tensor> &tensors,
                                      const std::map<std::string, std::int64_t> &numbers, std::stop_token stop);
/// Errors (input): missing, malformed, a tensor that is not f32.
[[nodiscard]] Result<StoredState> readState(const std::filesystem::path &folder);

} // namespace spectra
