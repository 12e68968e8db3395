// SPDX-License-Identifier: GPL-3.0-or-later
// A tokenizer.json, and after the first byte 0 (which JSON cannot hold) a text: load, encode, decode, write, read again.
#include "engine/tokenizer/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size)
{
    const std::string_view input(reinterpret_cast<const char *>(data), size);
    const std::size_t end = input.find('\0');
    const std::string_view json = input.substr(0, end);
    const std::string_view text = end == std::string_view::npos ? std::string_view("Hello <s> world 42\xFF\n") : input.substr(end + 1);
    auto loaded = spectra::Tokenizer::fromJson(json, "fuzz");
    if (!loaded)
        return 0;
    const auto &tokenizer = **loaded;
    for (const bool parse : {false, true}) {
        auto encoded = tokenizer.encode(text, {true, parse});
        if (!encoded)
            continue;
        spectra::StreamDecoder stream(*loaded);
        std::string streamed;
        for (const std::int32_t id : encoded->ids) {
            if (id < 0 || id >= tokenizer.size())
                std::abort();
            streamed += stream.push(id);
        }
        streamed += stream.finish();
        if (streamed != tokenizer.decode(encoded->ids))
            std::abort();
        for (const std::int32_t place : encoded->byteOffsets) {
            if (place < 0 || std::size_t(place) > text.size())
                std::abort();
        }
    }
    const std::string written = tokenizer.toJson();
    auto again = spectra::Tokenizer::fromJson(written, "written");
    if (!again || (*again)->toJson() != written)
        std::abort();
    return 0;
}
