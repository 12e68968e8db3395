// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/storage.h"
#include "engine/checkpoint/tensorbinder.h"

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace spectra {

/// A checkpoint whose tensors are views of mapped files: both formats end here.
class OpenedCheckpoint : public Checkpoint {
public:
    struct Parts {
        Format format = Format::safetensors;
        std::filesystem::path path;
        ModelConfig config;
        std::vector<DataFile> files;
        std::vector<TensorInfo> infos;
        std::vector<TensorView> views;
        std::optional<std::filesystem::path> tokenizer;
        std::optional<GgufVocabulary> vocabulary;
        std::vector<std::pair<std::string, std::string>> metadata;
        std::string configJson;
    };
    /// Errors (input): two tensors of one name.
    [[nodiscard]] static Result<std::shared_ptr<const Checkpoint>> make(Parts parts);

    [[nodiscard]] Format format() const override { return m.format; }
    [[nodiscard]] const std::filesystem::path &path() const override { return m.path; }
    [[nodiscard]] const ModelConfig &config() const override { return m.config; }
    [[nodiscard]] const std::vector<TensorInfo> &tensors() const override { return m.infos; }
    [[nodiscard]] const TensorInfo *find(std::string_view name) const override;
    [[nodiscard]] Result<void> readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override;
    [[nodiscard]] std::span<const std::byte> raw(const TensorInfo &tensor) const override;
    void release(const TensorInfo &tensor) const override;
    [[nodiscard]] std::optional<std::filesystem::path> tokenizerFile() const override { return m.tokenizer; }
    [[nodiscard]] std::optional<GgufVocabulary> vocabulary() const override { return m.vocabulary; }
    [[nodiscard]] Result<std::string> sha256(std::stop_token stop) const override;
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata() const override { return m.metadata; }
    [[nodiscard]] std::string configJson() const override { return m.configJson; }

private:
    explicit OpenedCheckpoint(Parts parts) : m(std::move(parts)) {}
    [[nodiscard]] const TensorView *viewOf(const TensorInfo &tensor) const;

    Parts m;
    std::map<std::string_view, std::size_t> m_index;
};

} // namespace spectra
