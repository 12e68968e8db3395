// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/train/trainconfig.h"

#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace spectra {

/// One key of a training configuration: where it stands, where it lives and what it may be. Reading, writing, `--set` and hints
/// all go through the table, so that they cannot disagree.
struct ConfigField {
    using Member = std::variant<std::string TrainConfig::*, std::int64_t TrainConfig::*, std::uint64_t TrainConfig::*, double TrainConfig::*,
                                bool TrainConfig::*>;
    /// Keys whose value is more than one plain value; each is read by its own code.
    enum class Special : std::uint8_t { none, router, domains, dataSeed, targetLosses, learningRate };

    std::string section = {}, key;       ///< section "": at the top
    Member member = &TrainConfig::name;
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool lowOpen = false, highOpen = false;
    std::vector<std::string> values = {}; ///< of a name; empty: any text
    Special special = Special::none;

    [[nodiscard]] std::string path() const { return section.empty() ? key : section + "." + key; }
    /// "1 <= x <= 64"
    [[nodiscard]] std::string range() const;
};

/// In the order in which they are written.
[[nodiscard]] const std::vector<ConfigField> &trainConfigFields();
/// Full dotted names of every key there is, the parts of learning_rate too.
[[nodiscard]] const std::vector<std::string> &trainConfigKeys();
/// nullptr: unknown.
[[nodiscard]] const ConfigField *findConfigField(const std::string &path);
/// Nearest valid key to a dotted one, by the whole name or by its last part in another object.
[[nodiscard]] std::string nearestConfigKey(const std::string &path);

/// Settings that do not go together. Errors (usage); `place` names a key for a person.
[[nodiscard]] Result<void> checkTrainConfig(const TrainConfig &config, const std::string &where);

} // namespace spectra
