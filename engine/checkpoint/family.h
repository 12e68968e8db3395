// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/configreader.h"

#include <string>
#include <string_view>
#include <vector>

namespace spectra {

class TensorBinder;

/// A model family: how its config.json is read and where its tensors are. One file family_NAME.cpp defines one, and one
/// line in families.cpp lists it. GGUF metadata is turned into the keys of config.json first (ggufconfig.h), so a family
/// reads one form only.
struct Family {
    ArchitectureInfo info;
    std::vector<std::string_view> modelTypes;        ///< values of config.json's model_type
    std::string_view ggufArchitecture;               ///< value of general.architecture
    bool ggufExperts = false;                        ///< the GGUF form has expert_count > 0
    bool ggufPermutesQueryKey = false;               ///< the converter reordered the rows of Q and K for interleaved RoPE
    void (*readConfig)(ConfigReader &reader, ModelConfig &config) = nullptr;
    void (*bindLayer)(TensorBinder &binder, const ModelConfig &config, std::int64_t layer) = nullptr; ///< attention, norms
    void (*bindFeedForward)(TensorBinder &binder, const ModelConfig &config, std::int64_t layer) = nullptr;
    void (*bindOuter)(TensorBinder &binder, const ModelConfig &config) = nullptr; ///< embedding, last norm, head
};

[[nodiscard]] const std::vector<Family> &families();
/// nullptr: unknown.
[[nodiscard]] const Family *familyOfModelType(std::string_view modelType);
[[nodiscard]] const Family *familyOfGguf(std::string_view architecture, bool experts);
/// "llama, mixtral", for messages.
[[nodiscard]] std::string familyNames();

// The families, each in its own file.
[[nodiscard]] Family llamaFamily();
[[nodiscard]] Family mixtralFamily();

// Parts that Llama-like families share.
/// hidden_size, layers, heads, vocabulary, norm, RoPE, token ids.
void readLlamaLikeConfig(ConfigReader &reader, ModelConfig &config);
void bindLlamaLikeLayer(TensorBinder &binder, const ModelConfig &config, std::int64_t layer);
void bindLlamaLikeOuter(TensorBinder &binder, const ModelConfig &config);
/// mlp.{gate,up,down}_proj of a dense layer.
void bindGatedFeedForward(TensorBinder &binder, const ModelConfig &config, std::int64_t layer);

} // namespace spectra
