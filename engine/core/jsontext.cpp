// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/jsontext.h"

#include <fmt/format.h>

namespace spectra {

Result<void> checkJsonText(std::string_view text, const std::string &where, int depth)
{
    int open = 0;
    bool inString = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (inString) {
            if (c == '\\')
                ++i;
            else if (c == '"')
                inString = false;
        } else if (c == '"') {
            inString = true;
        } else if (c == '{' || c == '[') {
            if (++open > depth)
                return inputError(fmt::format("is JSON nested more than {} levels deep", depth),
                                  fmt::format("{}: byte {}", where, i));
        } else if (c == '}' || c == ']') {
            --open;
        }
    }
    return {};
}

} // namespace spectra
