// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/router/router.h"

#include <nlohmann/json.hpp>

#include <limits>
#include <string>
#include <variant>
#include <vector>

namespace spectra {

/// One field of a router's option struct: where it lives, what it may be and what it means. The struct stays plain; listing,
/// reading, writing and checking all go through such a table, so that they cannot disagree.
template <typename Options> struct OptionField {
    using Member = std::variant<int Options::*, double Options::*, bool Options::*, std::string Options::*>;

    std::string name;
    Member member;
    std::string meaning;
    double low = -std::numeric_limits<double>::infinity(), high = std::numeric_limits<double>::infinity();
    bool lowOpen = false;                ///< `low` itself is out of range
    std::vector<std::string> values = {}; ///< of an enum
    bool fixesShapes = false;
};

/// "0 < x <= 1", "a | b", "true | false".
[[nodiscard]] std::string rangeText(double low, double high, bool lowOpen);
[[nodiscard]] std::string numberText(double value);
/// A setting's text as the JSON value that the option wants: 0.1, true, "causal". Text that is no JSON is a string.
[[nodiscard]] nlohmann::json settingValue(const std::string &text);

/// Sets one option from JSON. Errors (usage): wrong type, out of range; they name the option.
template <typename Options>
[[nodiscard]] Result<void> setOption(Options &options, const OptionField<Options> &field, const nlohmann::json &value)
{
    const std::string where = "router option " + field.name;
    const auto number = [&](double x) -> Result<void> {
        if (!(x >= field.low && x <= field.high) || (field.lowOpen && x == field.low) || !(x - x == 0))
            return usageError("value " + value.dump() + " is out of range", where, "use " + rangeText(field.low, field.high, field.lowOpen));
        return {};
    };
    if (const auto *m = std::get_if<bool Options::*>(&field.member)) {
        if (!value.is_boolean())
            return usageError("value " + value.dump() + " is not true or false", where, "use true or false");
        options.**m = value.template get<bool>();
    } else if (const auto *i = std::get_if<int Options::*>(&field.member)) {
        if (!value.is_number_integer())
            return usageError("value " + value.dump() + " is not a whole number", where, "use " + rangeText(field.low, field.high, field.lowOpen));
        SPECTRA_CHECK(number(value.template get<double>()));
        options.**i = value.template get<int>();
    } else if (const auto *d = std::get_if<double Options::*>(&field.member)) {
        if (!value.is_number())
            return usageError("value " + value.dump() + " is not a number", where, "use " + rangeText(field.low, field.high, field.lowOpen));
        SPECTRA_CHECK(number(value.template get<double>()));
        options.**d = value.template get<double>();
    } else if (const auto *s = std::get_if<std::string Options::*>(&field.member)) {
        std::string all;
        for (const std::string &v : field.values)
            all += (all.empty() ? "" : ", ") + v;
        if (!value.is_string())
            return usageError("value " + value.dump() + " is not a name", where, "use one of " + all);
        const auto text = value.template get<std::string>();
        bool known = false;
        for (const std::string &v : field.values)
            known = known || v == text;
        if (!known)
            return usageError("unknown value \"" + text + "\"", where, "use one of " + all);
        options.**s = text;
    }
    return {};
}

template <typename Options> [[nodiscard]] nlohmann::json optionValue(const Options &options, const OptionField<Options> &field)
{
    return std::visit([&](auto member) { return nlohmann::json(options.*member); }, field.member);
}

/// Reads {"type": …, options…}; missing ones keep what `options` holds. Errors (usage): an unknown option, a bad value.
template <typename Options>
[[nodiscard]] Result<Options> readOptions(const nlohmann::json &json, const std::vector<OptionField<Options>> &table, Options options = {})
{
    for (const auto &[key, value] : json.items()) {
        if (key == "type")
            continue;
        const OptionField<Options> *found = nullptr;
        for (const auto &field : table)
            if (field.name == key)
                found = &field;
        if (!found)
            return usageError("unknown option \"" + key + "\"", "router " + json.value("type", std::string()),
                              "`spectra models --routers` lists the options");
        SPECTRA_CHECK(setOption(options, *found, value));
    }
    return options;
}

/// Every option as an ordered JSON object with "type" first.
template <typename Options>
[[nodiscard]] std::string writeOptions(const std::string &type, const Options &options, const std::vector<OptionField<Options>> &table)
{
    nlohmann::ordered_json json;
    json["type"] = type;
    for (const auto &field : table)
        json[field.name] = optionValue(options, field);
    return json.dump();
}

/// The table as `models --routers` lists it.
template <typename Options>
[[nodiscard]] std::vector<RouterOption> listOptions(const std::vector<OptionField<Options>> &table, const Options &defaults = {})
{
    std::vector<RouterOption> list;
    for (const auto &field : table) {
        RouterOption option;
        option.name = field.name;
        option.meaning = field.meaning;
        option.fixesShapes = field.fixesShapes;
        const nlohmann::json value = optionValue(defaults, field);
        option.defaultValue = value.is_string() ? value.get<std::string>() : value.is_number_float() ? numberText(value.get<double>()) : value.dump();
        if (std::holds_alternative<bool Options::*>(field.member)) {
            option.type = "bool";
            option.range = "true | false";
        } else if (std::holds_alternative<std::string Options::*>(field.member)) {
            option.type = "enum";
            for (const std::string &v : field.values)
                option.range += (option.range.empty() ? "" : " | ") + v;
        } else {
            option.type = std::holds_alternative<int Options::*>(field.member) ? "int" : "float";
            option.range = rangeText(field.low, field.high, field.lowOpen);
        }
        list.push_back(std::move(option));
    }
    return list;
}

} // namespace spectra
