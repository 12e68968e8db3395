// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/run/trainsetup.h"

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace spectra {

/// The folder of one training run: config.json, environment.json, manifest.json, tokenizer.json, log.jsonl, metrics.h5,
/// checkpoints/step-000100, traces/step-000100.h5, final, result.json. One process at a time holds it.
class RunFolder {
public:
    /// What can be said before anything is opened. Errors: work (exists and neither resume nor overwrite), input (nothing to
    /// go on with; an existing folder that is not a run is never overwritten).
    [[nodiscard]] static Result<void> check(const std::filesystem::path &place, bool resume, bool overwrite);
    /// Makes the folder, or opens it to go on. Errors: as check(); input (begun with another configuration or other texts: the
    /// first difference is named); work (another process trains in it).
    [[nodiscard]] static Result<std::unique_ptr<RunFolder>> open(const std::filesystem::path &place, const TrainConfig &config, const TrainSetup &setup,
                                                                 bool resume, bool overwrite, const std::string &commandLine, int threads);
    ~RunFolder();
    RunFolder(const RunFolder &) = delete;
    RunFolder &operator=(const RunFolder &) = delete;

    [[nodiscard]] std::filesystem::path checkpoint(std::int64_t step) const;
    [[nodiscard]] std::filesystem::path trace(std::int64_t step) const;
    [[nodiscard]] std::filesystem::path final() const;
    /// The newest checkpoint; empty: none yet.
    [[nodiscard]] std::filesystem::path lastCheckpoint() const;
    /// Removes all but the newest `keep` (0: none is removed).
    void keepCheckpoints(std::int64_t keep) const;
    [[nodiscard]] Result<void> writeResult(const std::string &json) const;

private:
    RunFolder() = default;
    std::filesystem::path m_place;
    int m_lock = -1;
};

} // namespace spectra
