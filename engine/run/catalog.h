// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace spectra {

// What this program can run, torch-free: for `spectra models` and the workbench's choosers.

struct RouterOptionEntry {
    std::string name, type, defaultValue, range, meaning; ///< defaultValue is JSON text
};
struct RouterEntry {
    std::string name, title, source;
    bool causal = true;
    std::string assumptions;
    std::vector<RouterOptionEntry> options;
};
[[nodiscard]] std::vector<RouterEntry> routerCatalog();

struct ArchitectureEntry {
    std::string name, title, formats, source;
};
[[nodiscard]] std::vector<ArchitectureEntry> architectureCatalog();

/// What `spectra inspect` says of a checkpoint.
struct CheckpointDescription {
    std::string path, format, architecture, modelType, name, router, note, config;
    std::int64_t parameters = 0, storedBytes = 0, layers = 0, hidden = 0, vocabulary = 0, experts = 0, topK = 0, context = 0;
    std::vector<std::int64_t> moeLayers;
    std::uint64_t weightMemory = 0, cacheMemoryPerToken = 0; ///< bytes when loaded as f32
    struct Tensor {
        std::string name, sourceName, dtype, file;
        std::vector<std::int64_t> shape;
        std::uint64_t bytes = 0;
    };
    std::vector<Tensor> tensors;
    std::vector<std::pair<std::string, std::string>> metadata;
};
/// Opens and describes a model without loading it. Errors: input.
[[nodiscard]] Result<CheckpointDescription> describeCheckpoint(const std::filesystem::path &path);

struct TaskEntry {
    std::string name, title, source, layout; ///< layout: keys of its JSON lines
    int shots = 0;                           ///< default number of solved examples
    std::vector<std::string> metrics;
};
/// What `spectra eval` can score.
[[nodiscard]] std::vector<TaskEntry> taskCatalog();

/// A tokenizer of a model, torch-free. See engine/tokenizer.
class Tokenizer;
/// Errors: input (the model has no tokenizer, or one that is not supported).
[[nodiscard]] Result<std::shared_ptr<const Tokenizer>> openTokenizer(const std::filesystem::path &model);

} // namespace spectra
