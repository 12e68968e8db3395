// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/train/upcycle.h"

#include <torch/torch.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

namespace spectra {

/// A checkpoint that presents another one with some tensors left out and others put in. Thread rule as Checkpoint.
class DerivedCheckpoint : public Checkpoint {
public:
    DerivedCheckpoint(std::shared_ptr<const Checkpoint> source, ModelConfig config) : m_source(std::move(source)), m_config(std::move(config)) {}

    [[nodiscard]] Format format() const override { return m_source->format(); }
    [[nodiscard]] const std::filesystem::path &path() const override { return m_source->path(); }
    [[nodiscard]] const ModelConfig &config() const override { return m_config; }
    [[nodiscard]] const std::vector<TensorInfo> &tensors() const override { return m_tensors; }
    [[nodiscard]] const TensorInfo *find(std::string_view name) const override;
    [[nodiscard]] Result<void> readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override;
    [[nodiscard]] std::span<const std::byte> raw(const TensorInfo &tensor) const override;
    void release(const TensorInfo &tensor) const override;
    [[nodiscard]] std::optional<std::filesystem::path> tokenizerFile() const override { return m_source->tokenizerFile(); }
    [[nodiscard]] std::optional<GgufVocabulary> vocabulary() const override { return m_source->vocabulary(); }
    /// Of the source's files: what is derived has none of its own.
    [[nodiscard]] Result<std::string> sha256(std::stop_token stop) const override { return m_source->sha256(std::move(stop)); }
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata() const override { return m_source->metadata(); }
    [[nodiscard]] std::string configJson() const override;

protected:
    /// Values of a tensor that the source does not have; rows ≥ 0.
    [[nodiscard]] virtual Result<void> make(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const = 0;
    void keep(const TensorInfo &sourceTensor);
    void put(const std::string &name, std::vector<std::int64_t> shape);

    std::shared_ptr<const Checkpoint> m_source;
    ModelConfig m_config;

private:
    void add(TensorInfo tensor, bool made);
    [[nodiscard]] bool isMade(const TensorInfo &tensor) const;
    std::vector<TensorInfo> m_tensors;
    std::vector<bool> m_made;                ///< per tensor: by make(), not by the source
    std::unordered_map<std::string, std::size_t> m_index;
};

/// FFNs of a dense checkpoint as experts (and shared experts), without a router.
class ExpertCheckpoint : public DerivedCheckpoint {
public:
    /// `config` already describes the model with experts.
    ExpertCheckpoint(std::shared_ptr<const Checkpoint> source, ModelConfig config, const UpcycleOptions &options);

protected:
    [[nodiscard]] Result<void> make(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override;

private:
    enum Matrix : std::uint8_t { gate, up, down };
    struct Origin {
        std::string source;
        std::int64_t layer = 0, expert = -1; ///< −1: shared
        Matrix matrix = gate;
        bool bias = false;
    };
    struct Whole {
        std::vector<float> values;
        double rms = 0;
    };
    void putFfn(const std::string &prefix, std::int64_t layer, std::int64_t expert, std::int64_t intermediate);
    [[nodiscard]] Result<std::shared_ptr<const Whole>> whole(const std::string &name) const;
    [[nodiscard]] double scaleOf(const Origin &origin) const;

    UpcycleOptions m_options;
    std::unordered_map<std::string, Origin> m_origins;
    mutable std::mutex m_mutex;
    /// The matrices of one layer: its experts ask for them one after the other.
    mutable std::vector<std::pair<std::string, std::shared_ptr<const Whole>>> m_cached;
};

/// A checkpoint with another router's parameters and buffers, copied now.
class RouterCheckpoint : public DerivedCheckpoint {
public:
    RouterCheckpoint(std::shared_ptr<const Checkpoint> source, ModelConfig config, const std::map<std::string, torch::Tensor> &tensors);

protected:
    [[nodiscard]] Result<void> make(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override;

private:
    std::unordered_map<std::string, torch::Tensor> m_values;
};

} // namespace spectra
