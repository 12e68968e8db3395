// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/tasks/jsonlines.h"

#include "engine/core/jsontext.h"
#include "engine/tasks/tasktext.h"

#include <fmt/format.h>

#include <charconv>

namespace spectra {
using nlohmann::json;
namespace {

std::string names(std::initializer_list<const char *> keys)
{
    std::string all;
    for (const char *key : keys)
        all += (all.empty() ? "\"" : " or \"") + std::string(key) + "\"";
    return all;
}

} // namespace

const json *JsonLine::find(std::initializer_list<const char *> keys) const
{
    for (const char *key : keys)
        if (const auto found = m_object->find(key); found != m_object->end() && !found->is_null())
            return &*found;
    return nullptr;
}

Error JsonLine::missing(std::initializer_list<const char *> keys) const
{
    return error("has no " + names(keys));
}

Result<std::string> JsonLine::text(std::initializer_list<const char *> keys) const
{
    const json *value = find(keys);
    if (value == nullptr)
        return missing(keys);
    if (!value->is_string())
        return error(fmt::format("{} is not a string", names(keys)));
    return value->get<std::string>();
}

Result<std::string> JsonLine::filledText(std::initializer_list<const char *> keys) const
{
    SPECTRA_TRY(auto value, text(keys));
    if (stripped(value).empty())
        return error(fmt::format("{} is empty", names(keys)));
    return value;
}

Result<std::vector<std::string>> JsonLine::texts(std::initializer_list<const char *> keys) const
{
    const json *value = find(keys);
    if (value == nullptr)
        return missing(keys);
    if (!value->is_array())
        return error(fmt::format("{} is not a list of strings", names(keys)));
    std::vector<std::string> list;
    for (const json &element : *value) {
        if (!element.is_string())
            return error(fmt::format("{} is not a list of strings", names(keys)));
        list.push_back(element.get<std::string>());
    }
    return list;
}

Result<std::int64_t> JsonLine::integer(std::initializer_list<const char *> keys) const
{
    const json *value = find(keys);
    if (value == nullptr)
        return missing(keys);
    if (value->is_number_unsigned() && value->get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX))
        return static_cast<std::int64_t>(value->get<std::uint64_t>());
    if (value->is_number_integer() && !value->is_number_unsigned())
        return value->get<std::int64_t>();
    if (value->is_string()) {
        const auto &text = value->get_ref<const std::string &>();
        std::int64_t number = 0;
        const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), number);
        if (failed == std::errc() && end == text.data() + text.size())
            return number;
    }
    return error(fmt::format("{} is not a whole number", names(keys)));
}

std::string JsonLine::id(std::initializer_list<const char *> keys) const
{
    if (const json *value = find(keys)) {
        if (value->is_string() && !value->get_ref<const std::string &>().empty())
            return value->get<std::string>();
        if (value->is_number_integer())
            return value->dump();
    }
    return std::to_string(m_number);
}

Result<void> forEachLine(std::string_view content, const std::string &name, const std::function<Result<void>(const JsonLine &)> &line)
{
    if (content.starts_with("\xEF\xBB\xBF"))
        content.remove_prefix(3); // a byte order mark is not JSON
    if (content.find('\0') != std::string_view::npos)
        return inputError("is binary (it holds a zero byte)", name, "task data are JSON lines");
    const auto one = [&](const json &object, const std::string &where, std::int64_t number) -> Result<void> {
        if (!object.is_object())
            return inputError("is not a JSON object", where, "each line is one item");
        return line(JsonLine(object, where, number));
    };
    if (const std::string_view start = stripped(content); !start.empty() && start.front() == '[') {
        SPECTRA_CHECK(checkJsonText(content, name));
        const json list = json::parse(content, nullptr, false);
        if (list.is_discarded())
            return inputError("is not JSON in UTF-8", name, "a list of items, or one item a line");
        if (list.empty())
            return inputError("holds no items", name);
        std::int64_t number = 0;
        for (const json &object : list) {
            ++number;
            SPECTRA_CHECK(one(object, fmt::format("{}: item {}", name, number), number));
        }
        return {};
    }
    std::int64_t number = 0;
    bool any = false;
    while (!content.empty()) {
        ++number;
        const std::size_t end = content.find('\n');
        const std::string_view text = content.substr(0, end);
        content = end == std::string_view::npos ? std::string_view{} : content.substr(end + 1);
        if (stripped(text).empty())
            continue;
        const std::string where = fmt::format("{}: line {}", name, number);
        SPECTRA_CHECK(checkJsonText(text, where));
        const json object = json::parse(text, nullptr, false);
        if (object.is_discarded())
            return inputError("is not a JSON object in UTF-8", where, "each line is one item; is the file whole?");
        SPECTRA_CHECK(one(object, where, number));
        any = true;
    }
    if (!any)
        return inputError("holds no items", name, "one JSON object a line");
    return {};
}

} // namespace spectra
