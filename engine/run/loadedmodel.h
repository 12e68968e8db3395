// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/core/progress.h"
#include "engine/core/result.h"
#include "engine/model/model.h"
#include "engine/run/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/train/upcycle.h"

#include <cstdint>
#include <list>
#include <memory>
#include <stop_token>
#include <string>

namespace spectra {

/// A model with its tokenizer, ready to run.
struct LoadedModel {
    ModelHandle handle = 0;
    std::string key;                 ///< of the ModelSpec it was loaded for
    std::filesystem::path path;
    std::shared_ptr<const Checkpoint> checkpoint;
    std::shared_ptr<const Tokenizer> tokenizer;
    std::unique_ptr<Model> model;
    double loadSeconds = 0;          ///< 0 when it was held already
    std::string note;                ///< what a reader of its routing must know: "fresh router …"
};

/// Models held in memory: the least recently used one goes when memory is short. Engine thread only.
class ModelStore {
public:
    /// The held model of this spec, or loads it. Errors: input, usage, cancelled.
    [[nodiscard]] Result<std::shared_ptr<LoadedModel>> get(const ModelSpec &spec, const ProgressFunction &progress, std::stop_token stop);
    [[nodiscard]] bool drop(ModelHandle handle);
    void clear();

private:
    std::list<std::shared_ptr<LoadedModel>> m_models; ///< most recently used first
    ModelHandle m_next = 1;
};

/// The options JSON of a router named on the command line: defaults of the registry, 32 as SPECTRA's router_dim, then the
/// settings. Errors (usage).
[[nodiscard]] Result<std::string> routerJsonFor(const std::string &router, const std::vector<std::string> &settings);
/// Settings of the interface as options of engine/train. Errors (usage).
[[nodiscard]] Result<UpcycleOptions> upcycleOptions(const UpcycleSettings &settings, const ModelConfig &source, std::uint64_t seed);
/// "cpu", "cuda" or "auto". Errors (usage): cuda without a device.
[[nodiscard]] Result<torch::Device> resolveDevice(const std::string &name);
[[nodiscard]] Compute resolveCompute(const std::string &name);
/// The tokenizer that a checkpoint brings. Errors (input).
[[nodiscard]] Result<std::shared_ptr<const Tokenizer>> tokenizerOf(const Checkpoint &checkpoint);
/// What the interface says of a router that has not been trained; empty for a trained one.
[[nodiscard]] std::string routerNote(const ModelConfig &config);

} // namespace spectra
