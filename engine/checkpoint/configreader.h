// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/modelconfig.h"
#include "engine/core/result.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace spectra {

/// Largest values that a configuration may name. Far above any published model, small enough that products of three fit
/// in 64 bits.
namespace limits {
inline constexpr std::int64_t kHidden = 1 << 20, kLayers = 4096, kHeads = 1 << 16, kHeadDim = 1 << 16, kVocabulary = 1 << 24,
                              kIntermediate = 1 << 24, kContext = std::int64_t(1) << 40, kExperts = 16384;
} // namespace limits

/// Parses text from outside as a JSON object of limited size and depth. Errors (input).
[[nodiscard]] Result<nlohmann::json> parseJsonObject(std::string_view text, const std::string &where, std::uint64_t limit);

/// Typed, range-checked access to a JSON object. The first thing wrong is kept and later calls do nothing, so that a
/// reader of twenty keys needs one check at its end. `null` counts as absent. Errors are of kind input and name the key.
class ConfigReader {
public:
    /// `object` must outlive the reader. `where` is the place for messages ("config.json").
    ConfigReader(const nlohmann::json &object, std::string where) : m_object(object), m_where(std::move(where)) {}

    [[nodiscard]] bool has(const char *key) const;
    void required(const char *key, std::int64_t &out, std::int64_t low, std::int64_t high);
    void optional(const char *key, std::int64_t &out, std::int64_t low, std::int64_t high);
    void optional(const char *key, double &out, double low, double high);
    void optional(const char *key, bool &out);
    void optional(const char *key, std::string &out);
    void indices(const char *key, std::vector<std::int64_t> &out, std::int64_t below);
    /// One id, a list of ids, or null. Ids outside the vocabulary are refused.
    void tokenIds(const char *key, std::vector<std::int64_t> &out, std::int64_t vocabulary);
    /// rope_theta and rope_scaling, or transformers 5's rope_parameters. `context` is max_position_embeddings.
    void rope(RopeConfig &out, std::int64_t context, std::int64_t headDim);

    void fail(const std::string &key, std::string what, std::string mend = {});
    [[nodiscard]] bool ok() const { return m_result.ok(); }
    [[nodiscard]] Result<void> result() const { return m_result; }
    [[nodiscard]] const nlohmann::json &object() const { return m_object; }
    [[nodiscard]] const std::string &where() const { return m_where; }

private:
    [[nodiscard]] const nlohmann::json *value(const char *key) const;
    const nlohmann::json &m_object;
    std::string m_where;
    Result<void> m_result;
};

} // namespace spectra
