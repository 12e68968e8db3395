// SPDX-License-Identifier: GPL-3.0-or-later
// A training configuration and, after zero bytes, settings. What is accepted must read back from its own text.
#include "engine/train/trainconfig.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    std::string_view text(reinterpret_cast<const char *>(data), size);
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin <= text.size() && parts.size() < 16;) {
        const std::size_t end = std::min(text.find('\0', begin), text.size());
        parts.emplace_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    const std::string document = parts.empty() ? std::string() : parts.front();
    if (!parts.empty())
        parts.erase(parts.begin());
    const auto config = spectra::TrainConfig::parse(document, "fuzz", parts);
    if (!config.ok()) {
        const auto kind = config.error().kind;
        if ((kind != spectra::ErrorKind::input && kind != spectra::ErrorKind::usage) || config.error().what.empty() || config.error().where.empty())
            std::abort();
        return 0;
    }
    const auto again = spectra::TrainConfig::parse(config->toJson(), "fuzz");
    if (!again.ok() || !(*again == *config))
        std::abort();
    return 0;
}
