// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace spectra::study {

/// Objects keep the order of their file: rows and columns stand as they were written.
using Json = nlohmann::ordered_json;

/// The name with the least edit distance (Levenshtein 1966); empty when none is near.
[[nodiscard]] std::string nearestName(std::string_view name, std::span<const std::string_view> names);

/// Reads an object strictly: every key must be known, every value of its type. Errors are of kind usage and name the place
/// ("spec.json: tables[1]: column") and the nearest valid key.
class Fields {
public:
    [[nodiscard]] static Result<Fields> of(const Json &value, const std::string &where, std::vector<std::string_view> keys);

    [[nodiscard]] bool has(std::string_view key) const;
    [[nodiscard]] const Json &at(std::string_view key) const;
    [[nodiscard]] std::string placeOf(std::string_view key) const;
    /// Missing keys leave `value` as it is, unless `required`.
    [[nodiscard]] Result<void> text(std::string_view key, std::string &value, bool required = false) const;
    [[nodiscard]] Result<void> flag(std::string_view key, bool &value) const;
    [[nodiscard]] Result<void> number(std::string_view key, double &value, double low, double high) const;
    [[nodiscard]] Result<void> whole(std::string_view key, std::int64_t &value, std::int64_t low, std::int64_t high) const;
    [[nodiscard]] Result<void> choice(std::string_view key, std::string &value, std::span<const std::string_view> choices) const;
    /// A list of texts, or one text.
    [[nodiscard]] Result<void> texts(std::string_view key, std::vector<std::string> &values) const;
    /// nullptr when missing. Errors: not a list.
    [[nodiscard]] Result<const Json *> list(std::string_view key) const;
    [[nodiscard]] Error wrong(std::string_view key, const std::string &what, const std::string &mend = {}) const;

private:
    Fields(const Json &value, std::string where) : m_value(&value), m_where(std::move(where)) {}
    const Json *m_value;
    std::string m_where;
};

/// A JSON file from outside. Errors (input): missing, larger than `limit`, nested too deeply, not JSON (line named).
[[nodiscard]] Result<Json> readJson(const std::filesystem::path &file, std::uint64_t limit = std::uint64_t(64) << 20);
[[nodiscard]] Result<Json> parseJson(std::string_view text, const std::string &where);

/// The value at a dotted path: "metrics.load_cv.value", "by_layer.0". Names that contain dots themselves are found too
/// ("metrics.gram_orthogonality.expert_input.value"): the longest name that exists is tried first. nullptr: nothing there.
[[nodiscard]] const Json *valueAt(const Json &document, std::string_view path);
/// The finite number there.
[[nodiscard]] std::optional<double> numberAt(const Json &document, std::string_view path);
/// Every leaf of nested objects as dotted path and value; lists are leaves.
[[nodiscard]] std::vector<std::pair<std::string, Json>> flattened(const Json &document);

} // namespace spectra::study
