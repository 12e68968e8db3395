// SPDX-License-Identifier: GPL-3.0-or-later
// Prompt files: JSON lines when the first byte is even, a document otherwise.
#include "engine/run/prompts.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    if (size == 0)
        return 0;
    const std::string_view content(reinterpret_cast<const char *>(data) + 1, size - 1);
    const auto prompts = spectra::parsePrompts(content, "fuzz", data[0] % 2 == 0, "label");
    if (!prompts) {
        if (prompts.error().kind != spectra::ErrorKind::input || prompts.error().where.empty())
            std::abort();
        return 0;
    }
    if (prompts->empty())
        std::abort();
    for (const spectra::Prompt &p : *prompts)
        if (p.text.empty() || p.id.empty() || p.text.find('\0') != std::string::npos || p.domain.find('\0') != std::string::npos)
            std::abort();
    return 0;
}
