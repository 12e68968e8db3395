// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/files.h"
#include "engine/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace spectra::testing {

using TokenizerPtr = std::shared_ptr<const Tokenizer>;

inline std::filesystem::path fixture(const std::string &name)
{
    return std::filesystem::path(SPECTRA_TEST_DIR) / "fixtures" / "tokenizer" / name;
}

inline nlohmann::json readJson(const std::string &name)
{
    auto text = readTextFile(fixture(name));
    if (!text)
        throw std::runtime_error(text.error().what + ": " + text.error().where);
    return nlohmann::json::parse(*text);
}

inline const std::vector<std::string> &strings()
{
    static const auto all = readJson("strings.json").get<std::vector<std::string>>();
    return all;
}

inline TokenizerPtr load(const std::string &name)
{
    auto loaded = Tokenizer::fromJsonFile(fixture(name + ".json"));
    if (!loaded)
        throw std::runtime_error(loaded.error().what + ": " + loaded.error().where);
    return *loaded;
}

inline std::string shown(const Error &error)
{
    return error.what + ": " + error.where;
}

inline std::vector<std::int32_t> ids(const Tokenizer &tokenizer, std::string_view text, Tokenizer::EncodeOptions options = {false, false})
{
    auto encoded = tokenizer.encode(text, options);
    EXPECT_TRUE(encoded.ok()) << shown(encoded.error());
    return encoded.ok() ? encoded->ids : std::vector<std::int32_t>{-1};
}

/// The tokenizer keys of a GGUF file (ggml's gguf.md, version 3), read without the project's own reader.
inline GgufVocabulary readGgufVocabulary(const std::filesystem::path &path)
{
    auto mapped = MappedFile::open(path);
    if (!mapped)
        throw std::runtime_error(mapped.error().what + ": " + mapped.error().where);
    const auto bytes = (*mapped)->bytes();
    std::size_t at = 8;
    const auto number = [&](std::size_t size) {
        std::uint64_t value = 0;
        if (at + size > bytes.size())
            throw std::runtime_error("the GGUF ends early");
        std::memcpy(&value, bytes.data() + at, size);
        at += size;
        return value;
    };
    const auto text = [&] {
        const std::uint64_t length = number(8);
        if (length > bytes.size() - at)
            throw std::runtime_error("the GGUF ends early");
        std::string value(reinterpret_cast<const char *>(bytes.data() + at), length);
        at += length;
        return value;
    };
    constexpr std::size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    number(8); // tensors
    const std::uint64_t keys = number(8);
    GgufVocabulary v;
    v.bos = -1;
    for (std::uint64_t k = 0; k < keys; ++k) {
        const std::string key = text();
        auto type = number(4);
        std::uint64_t count = 1;
        if (type == 9) {
            type = number(4);
            count = number(8);
        }
        for (std::uint64_t i = 0; i < count; ++i) {
            if (type == 8) {
                std::string value = text();
                if (key == "tokenizer.ggml.tokens")
                    v.tokens.push_back(std::move(value));
                else if (key == "tokenizer.ggml.merges")
                    v.merges.push_back(std::move(value));
                else if (key == "tokenizer.ggml.model")
                    v.model = value;
                else if (key == "tokenizer.ggml.pre")
                    v.pre = value;
                else if (key == "tokenizer.chat_template")
                    v.chatTemplate = value;
                continue;
            }
            const std::uint64_t value = number(sizes[type]);
            if (key == "tokenizer.ggml.token_type")
                v.types.push_back(std::int32_t(value));
            else if (key == "tokenizer.ggml.bos_token_id")
                v.bos = std::int64_t(value);
            else if (key == "tokenizer.ggml.eos_token_id")
                v.eos = std::int64_t(value);
            else if (key == "tokenizer.ggml.unknown_token_id")
                v.unknown = std::int64_t(value);
            else if (key == "tokenizer.ggml.add_bos_token")
                v.addBos = int(value);
        }
    }
    return v;
}

} // namespace spectra::testing
