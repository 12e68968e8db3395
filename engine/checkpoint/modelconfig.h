// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace spectra {

/// Rotary position embedding: base and scaling (Llama-3, linear, YaRN as in transformers' rope_utils).
struct RopeConfig {
    double theta = 10000;
    std::string scaling = "none";        ///< none, linear, dynamic, yarn, llama3
    double factor = 1;
    double lowFrequencyFactor = 1, highFrequencyFactor = 4;
    double originalContext = 0;          ///< 0: the context length
    std::optional<double> attentionFactor; ///< yarn
    double betaFast = 32, betaSlow = 1;  ///< yarn
    bool yarnTruncate = true;            ///< yarn: the ramp's ends are rounded to whole dimensions
    double partialFactor = 1;            ///< share of head_dim that rotates
    std::vector<float> frequencyFactors; ///< GGUF rope_freqs.weight, divides each frequency; empty: none
};

/// A decoder's configuration, family-neutral. Zero or empty where a family has no such thing.
struct ModelConfig {
    std::string architecture;            ///< registry name: "llama", "mixtral"
    std::string modelType;               ///< config.json's model_type ("spectra" for upcycled folders), or GGUF's architecture
    std::string name;                    ///< for a person: folder or file name, or general.name
    std::int64_t vocabulary = 0, hidden = 0, intermediate = 0, layers = 0, heads = 0, kvHeads = 0, headDim = 0, context = 0;
    double normEpsilon = 1e-5;
    bool tiedHead = false, attentionBias = false, mlpBias = false;
    std::int64_t slidingWindow = 0;      ///< 0: none
    std::string activation = "silu";
    RopeConfig rope;
    std::vector<std::int64_t> bosIds, eosIds;

    // Mixture of experts
    std::int64_t experts = 0, topK = 0, sharedExperts = 0, expertIntermediate = 0, sharedIntermediate = 0;
    std::vector<std::int64_t> moeLayers; ///< decoder indices with experts; empty: dense
    double routedScalingFactor = 1, sharedScalingFactor = 1;
    bool normalizeTopK = true;
    std::string routerJson;              ///< the "router" object of config.json as text; for Mixtral {"type":"softmax_topk"}; empty: dense
    std::string upcyclingNote;           ///< how the experts came to be, for the interface; empty: not upcycled
    std::int64_t trainingStep = 0;
    bool routerTrained = true;           ///< false for a fresh router of an upcycled model
    bool routerCalibrated = false;

    [[nodiscard]] bool moe() const { return experts > 0 && !moeLayers.empty(); }
};

/// Bytes in f32 of a model's weights (router parameters of SPECTRA routers aside) and of the keys and values of one
/// sequence. From the configuration alone, without opening a weight file; saturates instead of overflowing.
struct SizeEstimate {
    std::uint64_t weights = 0, kvCache = 0;
};
[[nodiscard]] SizeEstimate estimateMemory(const ModelConfig &config, std::int64_t sequenceLength);

/// config.json of a folder in the layout of the method page, section 7: `baseConfigJson` (the source's config.json or what
/// Checkpoint::configJson() made of GGUF metadata) with model_type "spectra" and every key that readers of such a folder
/// ask for (listed in the module's README), taken from `config`. A dense `config` gives the base family's own config back.
[[nodiscard]] std::string folderConfigJson(const ModelConfig &config, const std::string &baseConfigJson);

} // namespace spectra
