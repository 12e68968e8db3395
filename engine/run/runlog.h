// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/run/heldout.h"
#include "engine/train/trainer.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace spectra {

/// What a training run keeps of its steps and evaluations: `log.jsonl`, one object a line as they come, and `metrics.h5`, made
/// anew from it after every evaluation. Engine thread only.
class RunLog {
public:
    /// Opens `folder`/log.jsonl. Lines behind step `keep` (of a run that was cut off after its last checkpoint) are dropped, as is
    /// a torn last line. Errors: input (malformed), work (not writable).
    [[nodiscard]] static Result<RunLog> open(const std::filesystem::path &folder, std::int64_t keep);

    [[nodiscard]] Result<void> add(const StepReport &report);
    [[nodiscard]] Result<void> add(const Evaluation &evaluation, const std::vector<std::string> &domains);
    /// Writes metrics.h5, whole or not at all.
    [[nodiscard]] Result<void> writeMetrics() const;

    [[nodiscard]] bool hasEvaluation(std::int64_t step) const;
    [[nodiscard]] const std::vector<nlohmann::ordered_json> &steps() const { return m_steps; }
    [[nodiscard]] const std::vector<nlohmann::ordered_json> &evaluations() const { return m_evaluations; }

private:
    RunLog() = default;
    [[nodiscard]] Result<void> append(const nlohmann::ordered_json &line);

    std::filesystem::path m_folder;
    std::ofstream m_stream;
    std::vector<nlohmann::ordered_json> m_steps, m_evaluations;
};

/// Every metric of a report as an object by key: value, low, high, chance, unit, better, by_layer, by_domain, absent.
[[nodiscard]] nlohmann::ordered_json metricsJson(const MetricReport &report);

} // namespace spectra
