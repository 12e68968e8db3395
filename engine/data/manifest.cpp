// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/data/manifest.h"

#include "engine/core/files.h"
#include "engine/core/jsontext.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace spectra {
namespace {

using Json = nlohmann::json;

Result<Json> parsed(std::string_view text, const char *which)
{
    SPECTRA_CHECK(checkJsonText(text, which));
    Json json = Json::parse(text.begin(), text.end(), nullptr, false);
    if (!json.is_object() || json.value("format", Json()) != "spectra-corpus-1")
        return inputError("is not a manifest of a corpus", which);
    return json;
}

std::string shortText(const Json &value)
{
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
    return printableUtf8(text.size() > 80 ? text.substr(0, 80) + "…" : text);
}

/// "share 0.1, not 0.05", or nothing.
std::string valueDifference(const std::string &name, const Json &before, const Json &now)
{
    return before == now ? std::string() : fmt::format("{} is {}, not {} as before", name, shortText(now), shortText(before));
}

std::string objectDifference(const std::string &prefix, const Json &before, const Json &now)
{
    for (const auto &[name, value] : before.items()) {
        if (const std::string found = valueDifference(prefix + name, value, now.value(name, Json())); !found.empty())
            return found;
    }
    return before == now ? std::string() : prefix + "settings were added";
}

std::string domainDifference(const Json &before, const Json &now)
{
    const std::string place = "domain " + shortText(now.at("name")) + ": ";
    if (const std::string found = valueDifference(place + "the weight", before.at("weight"), now.at("weight")); !found.empty())
        return found;
    const Json &old = before.at("files"), &files = now.at("files");
    for (std::size_t k = 0; k < std::min(old.size(), files.size()); ++k) {
        if (old.at(k).at("sha256") != files.at(k).at("sha256"))
            return fmt::format("{}file {} has other contents ({})", place, k + 1, shortText(files.at(k).at("path")));
    }
    if (old.size() != files.size())
        return fmt::format("{}it has {} files, not {} as before", place, files.size(), old.size());
    return {};
}

std::string tokenDifference(const Json &before, const Json &now)
{
    for (const char *part : {"training", "held_out"}) {
        for (const char *what : {"tokens", "sha256"}) {
            if (before.at(part).at(what) != now.at(part).at(what))
                return fmt::format("domain {}: the {} tokens differ", shortText(now.at("name")), part == std::string_view("training") ? part : "held-out");
        }
    }
    return {};
}

std::string difference(const Json &before, const Json &now)
{
    const Json &old = before.at("domains"), &domains = now.at("domains");
    for (std::size_t i = 0; i < std::min(old.size(), domains.size()); ++i) {
        if (const std::string found = valueDifference(fmt::format("domain {}", i + 1), old.at(i).at("name"), domains.at(i).at("name")); !found.empty())
            return found;
        if (std::string found = domainDifference(old.at(i), domains.at(i)); !found.empty())
            return found;
    }
    if (old.size() != domains.size())
        return fmt::format("there are {} domains, not {} as before", domains.size(), old.size());
    for (const auto &[key, prefix] : {std::pair{"filters", "filter "}, {"split", "split: "}, {"tokenizer", "tokenizer: "}}) {
        if (std::string found = objectDifference(prefix, before.at(key), now.at(key)); !found.empty())
            return found;
    }
    for (std::size_t i = 0; i < old.size(); ++i) {
        if (std::string found = tokenDifference(old.at(i), domains.at(i)); !found.empty())
            return found;
    }
    return valueDifference("the order", before.at("order"), now.at("order"));
}

} // namespace

Result<std::string> manifestDifference(std::string_view before, std::string_view now)
{
    SPECTRA_TRY(const Json old, parsed(before, "the earlier manifest"));
    SPECTRA_TRY(const Json current, parsed(now, "the manifest"));
    try {
        return difference(old, current);
    } catch (const nlohmann::json::exception &) {
        return inputError("is not a complete manifest of a corpus", "the earlier manifest");
    }
}

} // namespace spectra
