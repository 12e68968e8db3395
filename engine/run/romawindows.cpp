// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/romawindows.h"

#include "engine/core/files.h"
#include "engine/core/jsontext.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <system_error>
#include <tuple>

namespace spectra {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char *kFormat = "spectra-roma-bank-1";

/// A whole number of the document in a range; `least` − 1 where it is none.
std::int64_t wholeNumber(const Json &value, std::int64_t least, std::int64_t most)
{
    const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<std::uint64_t>() <= static_cast<std::uint64_t>(most));
    const std::int64_t number = fits ? value.get<std::int64_t>() : least - 1;
    return number > most ? least - 1 : number;
}

std::string textOf(const Json &document, const char *key)
{
    const auto found = document.find(key);
    return found != document.end() && found->is_string() ? found->get<std::string>() : std::string();
}

} // namespace

std::int64_t RomaWindows::successes() const
{
    return std::count_if(windows.begin(), windows.end(), [](const RomaWindow &w) { return w.row >= 0; });
}

std::string RomaWindows::toJson() const
{
    Json domain = Json::array(), window = Json::array(), row = Json::array();
    for (const RomaWindow &w : windows) {
        domain.push_back(w.domain);
        window.push_back(w.number);
        row.push_back(w.row);
    }
    const Json document = {{"format", kFormat},         {"model", model},     {"success", success},         {"embedding", embedding}, {"sequence_length", sequenceLength},
                           {"layers", layers},          {"experts", experts}, {"domain", std::move(domain)}, {"window", std::move(window)}, {"row", std::move(row)}};
    return document.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<RomaWindows> RomaWindows::parse(const std::string &json, const std::string &where)
{
    const char *const mend = "make the bank anew with spectra roma-bank";
    SPECTRA_CHECK(checkJsonText(json, where));
    const Json document = Json::parse(json, nullptr, false);
    if (!document.is_object() || textOf(document, "format") != kFormat)
        return inputError("does not describe a bank that this version can read", where, mend);
    RomaWindows out;
    out.model = textOf(document, "model");
    out.success = textOf(document, "success");
    out.embedding = textOf(document, "embedding");
    for (const auto &[key, member] : {std::pair("sequence_length", &RomaWindows::sequenceLength), std::pair("layers", &RomaWindows::layers), std::pair("experts", &RomaWindows::experts)}) {
        out.*member = wholeNumber(document.value(key, Json()), 1, std::int64_t(1) << 32);
        if (out.*member < 1)
            return inputError(fmt::format("\"{}\" is no whole number of at least 1", key), where, mend);
    }
    const Json domain = document.value("domain", Json()), window = document.value("window", Json()), row = document.value("row", Json());
    if (!domain.is_array() || !window.is_array() || !row.is_array() || domain.empty() || domain.size() != window.size() || domain.size() != row.size())
        return inputError("\"domain\", \"window\" and \"row\" are not lists of one length", where, mend);
    std::int64_t rows = 0;
    for (std::size_t i = 0; i < domain.size(); ++i) {
        const std::int64_t d = wholeNumber(domain[i], 0, 1 << 20), n = wholeNumber(window[i], 0, std::int64_t(1) << 48), r = wholeNumber(row[i], -1, std::int64_t(1) << 48);
        const RomaWindow next{static_cast<std::size_t>(d), n, r};
        if (d < 0 || n < 0 || r < -1 || (r >= 0 && r != rows)
            || (!out.windows.empty() && std::tuple(out.windows.back().domain, out.windows.back().number) >= std::tuple(next.domain, next.number)))
            return inputError(fmt::format("window {} is out of order, or its row is", i), where, mend);
        rows += r >= 0;
        out.windows.push_back(next);
    }
    return out;
}

Result<RomaWindows> RomaWindows::read(const std::filesystem::path &folder)
{
    const std::filesystem::path file = folder / "windows.json";
    std::error_code error;
    if (!std::filesystem::exists(file, error))
        return inputError("is not a bank: it has no windows.json", folder.string(), "make one with spectra roma-bank MODEL CONFIG -o " + folder.string());
    SPECTRA_TRY(const std::string text, readTextFile(file));
    return parse(text, file.string());
}

} // namespace spectra
