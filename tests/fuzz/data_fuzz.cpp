// SPDX-License-Identifier: GPL-3.0-or-later
// The first byte chooses: a JSON lines file, a plain text, each also as zstd, or two manifests with a byte 0 between; the rest
// is the content.
#include "engine/core/files.h"
#include "engine/data/corpus.h"
#include "engine/data/manifest.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <unistd.h>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    if (size == 0)
        return 0;
    const std::string_view content(reinterpret_cast<const char *>(data) + 1, size - 1);
    if (data[0] % 5 == 4) {
        const std::size_t middle = content.find('\0');
        const std::string_view first = content.substr(0, middle);
        const auto found = spectra::manifestDifference(first, middle == std::string_view::npos ? first : content.substr(middle + 1));
        if (found.ok() && middle == std::string_view::npos && !found->empty())
            std::abort(); // a manifest differs from itself
        return 0;
    }
    constexpr const char *names[] = {"jsonl", "txt", "jsonl.zst", "txt.zst"};
    const auto path = std::filesystem::temp_directory_path() / ("spectra-data-fuzz-" + std::to_string(::getpid()) + "." + names[data[0] % 5]);
    std::ofstream(path, std::ios::binary).write(content.data(), std::streamsize(content.size()));
    std::size_t bytes = 0;
    const auto take = [&](std::string_view text) {
        for (std::size_t at = 0; at < text.size();) {
            const int length = spectra::utf8Length(text, at);
            if (length == 0)
                std::abort();
            at += std::size_t(length);
        }
        bytes += text.size();
        return bytes < (std::size_t(16) << 20); // a bomb may go on for long: it is read as long as it is asked for
    };
    const auto read = spectra::readDocuments(path, "text", take);
    if (!read && read.error().where.find(path.string()) == std::string::npos)
        std::abort();
    if (read && data[0] % 5 == 1 && bytes > content.size())
        std::abort();
    std::filesystem::remove(path);
    return 0;
}
