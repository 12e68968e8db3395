// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/study/fields.h"

#include "engine/core/files.h"
#include "engine/core/jsontext.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace spectra::study {
namespace {

std::size_t distance(std::string_view a, std::string_view b)
{
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t(0));
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t change = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({change, row[j] + 1, diagonal + 1});
        }
    }
    return row.back();
}

void flatten(const Json &value, const std::string &prefix, std::vector<std::pair<std::string, Json>> &out)
{
    if (!value.is_object() || value.empty()) {
        out.emplace_back(prefix, value);
        return;
    }
    for (const auto &[key, inner] : value.items())
        flatten(inner, prefix.empty() ? key : prefix + "." + key, out);
}

} // namespace

std::string nearestName(std::string_view name, std::span<const std::string_view> names)
{
    std::string_view best;
    std::size_t least = std::max<std::size_t>(name.size() / 2, 2) + 1;
    for (const std::string_view candidate : names)
        if (const std::size_t d = distance(name.substr(0, 64), candidate); d < least) {
            least = d;
            best = candidate;
        }
    return std::string(best);
}

Result<Fields> Fields::of(const Json &value, const std::string &where, std::vector<std::string_view> keys)
{
    if (!value.is_object())
        return usageError("is not an object {…}", where);
    for (const auto &[key, inner] : value.items()) {
        if (std::find(keys.begin(), keys.end(), key) != keys.end())
            continue;
        const std::string near = nearestName(key, keys);
        std::string all;
        for (const std::string_view k : keys)
            all += (all.empty() ? "" : ", ") + std::string(k);
        return usageError(fmt::format("unknown key \"{}\"", printableUtf8(key.substr(0, 80))), where,
                          near.empty() ? "keys here: " + all : fmt::format("did you mean \"{}\"? Keys here: {}", near, all));
    }
    return Fields(value, where);
}

bool Fields::has(std::string_view key) const
{
    return m_value->contains(std::string(key));
}

const Json &Fields::at(std::string_view key) const
{
    return m_value->at(std::string(key));
}

std::string Fields::placeOf(std::string_view key) const
{
    return m_where + ": " + std::string(key);
}

Error Fields::wrong(std::string_view key, const std::string &what, const std::string &mend) const
{
    return usageError(what, placeOf(key), mend);
}

Result<void> Fields::text(std::string_view key, std::string &value, bool required) const
{
    if (!has(key))
        return required ? Result<void>(usageError(fmt::format("has no \"{}\"", key), m_where)) : Result<void>();
    if (!at(key).is_string())
        return wrong(key, "is not a text", "write it in quotes");
    value = at(key).get<std::string>();
    if (required && value.empty())
        return wrong(key, "is empty");
    return {};
}

Result<void> Fields::flag(std::string_view key, bool &value) const
{
    if (!has(key))
        return {};
    if (!at(key).is_boolean())
        return wrong(key, "is not true or false");
    value = at(key).get<bool>();
    return {};
}

Result<void> Fields::number(std::string_view key, double &value, double low, double high) const
{
    if (!has(key))
        return {};
    if (!at(key).is_number())
        return wrong(key, "is not a number");
    const double x = at(key).get<double>();
    if (!(x >= low && x <= high))
        return wrong(key, fmt::format("{} is out of range", x), fmt::format("use {} to {}", low, high));
    value = x;
    return {};
}

Result<void> Fields::whole(std::string_view key, std::int64_t &value, std::int64_t low, std::int64_t high) const
{
    if (!has(key))
        return {};
    const Json &j = at(key);
    if (!j.is_number_integer() || (j.is_number_unsigned() && j.get<std::uint64_t>() > static_cast<std::uint64_t>(INT64_MAX)))
        return wrong(key, "is not a whole number");
    const auto x = j.get<std::int64_t>();
    if (x < low || x > high)
        return wrong(key, fmt::format("{} is out of range", x), fmt::format("use {} to {}", low, high));
    value = x;
    return {};
}

Result<void> Fields::choice(std::string_view key, std::string &value, std::span<const std::string_view> choices) const
{
    SPECTRA_CHECK(text(key, value));
    if (!has(key) || std::find(choices.begin(), choices.end(), value) != choices.end())
        return {};
    std::string all;
    for (const std::string_view c : choices)
        all += (all.empty() ? "" : ", ") + std::string(c);
    return wrong(key, fmt::format("unknown value \"{}\"", printableUtf8(value.substr(0, 80))), "use one of " + all);
}

Result<void> Fields::texts(std::string_view key, std::vector<std::string> &values) const
{
    if (!has(key))
        return {};
    const Json &j = at(key);
    if (j.is_string()) {
        values = {j.get<std::string>()};
        return {};
    }
    if (!j.is_array())
        return wrong(key, "is not a text or a list of texts");
    values.clear();
    for (const Json &item : j) {
        if (!item.is_string())
            return wrong(key, "is not a list of texts");
        values.push_back(item.get<std::string>());
    }
    return {};
}

Result<const Json *> Fields::list(std::string_view key) const
{
    if (!has(key))
        return nullptr;
    if (!at(key).is_array())
        return wrong(key, "is not a list […]");
    return &at(key);
}

Result<Json> parseJson(std::string_view text, const std::string &where)
{
    SPECTRA_CHECK(checkJsonText(text, where));
    try {
        return Json::parse(text);
    } catch (const Json::parse_error &error) {
        const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(error.byte, text.size())), '\n');
        return inputError("is not JSON", fmt::format("{}: line {}", where, line), "a comma or a bracket may be missing there");
    } catch (const Json::exception &) {
        return inputError("is not JSON that can be read", where);
    }
}

Result<Json> readJson(const std::filesystem::path &file, std::uint64_t limit)
{
    SPECTRA_TRY(const std::string text, readTextFile(file, limit));
    return parseJson(text, file.string());
}

const Json *valueAt(const Json &document, std::string_view path)
{
    if (path.empty())
        return &document;
    if (document.is_array()) {
        const std::string_view head = path.substr(0, path.find('.'));
        if (head.empty() || head.size() > 9 || head.find_first_not_of("0123456789") != std::string_view::npos)
            return nullptr;
        const std::size_t index = std::stoul(std::string(head));
        if (index >= document.size())
            return nullptr;
        return valueAt(document[index], head.size() == path.size() ? std::string_view() : path.substr(head.size() + 1));
    }
    if (!document.is_object())
        return nullptr;
    for (std::size_t end = path.size(); end != std::string_view::npos && end > 0; end = path.rfind('.', end - 1)) {
        if (const auto found = document.find(std::string(path.substr(0, end))); found != document.end()) {
            const std::string_view rest = end == path.size() ? std::string_view() : path.substr(end + 1);
            if (const Json *value = valueAt(*found, rest))
                return value;
        }
    }
    return nullptr;
}

std::optional<double> numberAt(const Json &document, std::string_view path)
{
    const Json *value = valueAt(document, path);
    if (value == nullptr || !value->is_number())
        return std::nullopt;
    const double x = value->get<double>();
    return std::isfinite(x) ? std::optional(x) : std::nullopt;
}

std::vector<std::pair<std::string, Json>> flattened(const Json &document)
{
    std::vector<std::pair<std::string, Json>> out;
    flatten(document, {}, out);
    return out;
}

} // namespace spectra::study
