// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/router/router.h"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <vector>

namespace spectra {

/// Which FFNs become experts.
struct LayerChoice {
    enum class Kind : std::uint8_t { all, every, from, list };
    Kind kind = Kind::all;
    std::int64_t number = 1;             ///< every: layers number−1, 2·number−1, …; from: first layer
    std::vector<std::int64_t> list;
    /// "all", "every:N", "from:N" or "0,3,5". Errors (usage).
    [[nodiscard]] static Result<LayerChoice> parse(const std::string &text);
    /// Decoder indices, ascending. Errors (usage): outside the model, or none.
    [[nodiscard]] Result<std::vector<std::int64_t>> resolve(std::int64_t layers) const;
};

/// Dense → Mixture of Experts, or another router for a model that has experts (method page, section 5).
struct UpcycleOptions {
    std::int64_t experts = 8, topK = 2;
    std::int64_t granularity = 1;        ///< G: each expert is 1/G of the FFN; expert = copy·G + slice
    std::int64_t shared = 0;             ///< shared experts, copies of the FFN side by side
    std::string routerJson = R"({"type":"spectra","router_dim":32})";
    double noise = 0.01;                 ///< N(0, (noise·rms(W))²) added to every routed expert's matrices
    LayerChoice layers;
    enum class Scaling : std::uint8_t { exact, nvidia };
    Scaling scaling = Scaling::exact;    ///< exact: `down` alone × G; nvidia: every matrix × s^(1/3) (arXiv 2410.07524)
    DType dtype = DType::f32;            ///< of the written folder: f32, bf16 or f16
    std::uint64_t seed = 0;
};

/// A checkpoint that presents `source` as a Mixture of Experts; tensors are made when they are read, so loading it and
/// loading the folder written from it give the same model. Dense source: FFNs become experts. Source with experts: its
/// experts stay, the router is replaced (experts, granularity, shared, layers and noise are then not used; topK 0 keeps the source's).
/// Errors: usage (options out of range, unknown router), input (the source lacks a tensor).
[[nodiscard]] Result<std::shared_ptr<const Checkpoint>> upcycled(std::shared_ptr<const Checkpoint> source, const UpcycleOptions &options);

/// `source` with the parameters and buffers that `router` has now, described by `config` (a calibrated or trained model).
[[nodiscard]] std::shared_ptr<const Checkpoint> withRouter(std::shared_ptr<const Checkpoint> source, const Router &router, ModelConfig config);

/// What goes into a written folder beside the tensors.
struct FolderOptions {
    std::filesystem::path place;
    bool overwrite = false;
    std::string tokenizerJson;           ///< text of tokenizer.json; empty: none is written
    std::string tokenizerConfigJson;     ///< text of tokenizer_config.json; empty: none is written
    DType dtype = DType::f32;
    std::uint64_t shardBytes = std::uint64_t(4) << 30;
    /// Adds files of the caller's own to the folder before it appears; optional.
    std::function<Result<void>(const std::filesystem::path &folder)> extra;
};

/// Writes any checkpoint as a safetensors folder by the method page's section 7, tensor after tensor (the model is never
/// whole in memory). The folder appears whole or not at all. Errors: work (exists, disk full), input, cancelled.
[[nodiscard]] Result<void> writeFolder(const Checkpoint &checkpoint, const FolderOptions &options, const ProgressFunction &progress,
                                       std::stop_token stop);

} // namespace spectra
