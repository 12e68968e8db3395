// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/router/optionset.h"

#include <cmath>
#include <cstdio>

namespace spectra {

std::string numberText(double value)
{
    char text[32];
    for (int digits = 1; digits <= 17; ++digits) {
        std::snprintf(text, sizeof text, "%.*g", digits, value);
        if (std::strtod(text, nullptr) == value)
            break;
    }
    return text;
}

std::string rangeText(double low, double high, bool lowOpen)
{
    std::string text = "x";
    if (std::isfinite(low))
        text = numberText(low) + (lowOpen ? " < x" : " <= x");
    if (std::isfinite(high))
        text += " <= " + numberText(high);
    return text == "x" ? "any number" : text;
}

nlohmann::json settingValue(const std::string &text)
{
    auto json = nlohmann::json::parse(text, nullptr, false);
    if (json.is_discarded() || json.is_object() || json.is_array() || json.is_null())
        return text;
    return json;
}

} // namespace spectra
