// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/model/weights.h"

#include <torch/torch.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace spectra {

/// Weights in memory as a checkpoint in the layout of the method page, section 7: one tensor per matrix and expert, views of the
/// fused ones that a model holds. Thread rule as Checkpoint.
class TrainedCheckpoint : public Checkpoint {
public:
    /// `baseConfigJson`: config.json that the model came from, empty for a fresh one. `extra`: the router's tensors by name.
    TrainedCheckpoint(ModelConfig config, const std::string &baseConfigJson, const Weights &weights,
                      const std::map<std::string, torch::Tensor> &extra, bool copy);

    [[nodiscard]] Format format() const override { return Format::safetensors; }
    [[nodiscard]] const std::filesystem::path &path() const override { return m_path; }
    [[nodiscard]] const ModelConfig &config() const override { return m_config; }
    [[nodiscard]] const std::vector<TensorInfo> &tensors() const override { return m_tensors; }
    [[nodiscard]] const TensorInfo *find(std::string_view name) const override;
    [[nodiscard]] Result<void> readF32(const TensorInfo &tensor, std::span<float> out, std::int64_t firstRow, std::int64_t rows) const override;
    [[nodiscard]] std::span<const std::byte> raw(const TensorInfo &tensor) const override;
    void release(const TensorInfo & /*tensor*/) const override {}
    [[nodiscard]] std::optional<std::filesystem::path> tokenizerFile() const override { return {}; }
    [[nodiscard]] std::optional<GgufVocabulary> vocabulary() const override { return {}; }
    /// Of all values in the order of tensors(). Errors: cancelled.
    [[nodiscard]] Result<std::string> sha256(std::stop_token stop) const override;
    [[nodiscard]] std::vector<std::pair<std::string, std::string>> metadata() const override;
    [[nodiscard]] std::string configJson() const override { return m_configJson; }

private:
    void put(const std::string &name, const torch::Tensor &values);
    void putFfn(const std::string &prefix, const torch::Tensor &gateUp, const torch::Tensor &down, const torch::Tensor &gateUpBias,
                const torch::Tensor &downBias);
    void putLayer(const std::string &prefix, const LayerWeights &w);

    std::filesystem::path m_path;
    ModelConfig m_config;
    std::string m_configJson;
    bool m_copy;
    std::vector<TensorInfo> m_tensors;
    std::vector<torch::Tensor> m_values;     ///< per tensor, contiguous
    std::unordered_map<std::string, std::size_t> m_index;
};

/// config.json of a plain Llama with these sizes, as transformers writes its keys.
[[nodiscard]] std::string llamaConfigJson(const ModelConfig &config);

} // namespace spectra
