// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/random.h"
#include "engine/data/corpus.h"
#include "engine/tokenizer/bpetrainer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

namespace spectra::testing {

/// A folder of its own for one test.
class DataTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        std::string pattern = (std::filesystem::temp_directory_path() / "spectra-data-XXXXXX").string();
        m_folder = ::mkdtemp(pattern.data());
    }
    void TearDown() override { std::filesystem::remove_all(m_folder); }

    std::filesystem::path write(const std::string &name, std::string_view text) const
    {
        const auto path = m_folder / name;
        std::ofstream(path, std::ios::binary).write(text.data(), std::streamsize(text.size()));
        return path;
    }
    [[nodiscard]] std::filesystem::path cache() const { return m_folder / "cache"; }

    std::filesystem::path m_folder;
};

/// Words by Zipf's law, in lines; the domain's own letters, so that domains differ.
inline std::string words(std::size_t bytes, std::uint64_t seed, char first = 'a')
{
    Random random(seed);
    std::vector<std::string> vocabulary;
    for (int i = 0; i < 300; ++i) {
        std::string word;
        for (std::uint64_t n = 2 + random.below(6); n > 0; --n)
            word += char(first + char(random.below(10)));
        vocabulary.push_back(word);
    }
    std::string text;
    while (text.size() < bytes) {
        text += vocabulary[std::size_t(300 * random.uniform() * random.uniform() * random.uniform())];
        text += random.below(12) == 0 ? '\n' : ' ';
    }
    return text + "\n";
}

inline std::shared_ptr<const Tokenizer> byteTokenizer()
{
    BpeTrainer trainer({300, {"<|endoftext|>"}, 2});
    trainer.add(words(20000, 3));
    auto json = trainer.train({}, {});
    auto loaded = Tokenizer::fromJson(*json, "test", corpusTokenizerConfig());
    return *loaded;
}

inline std::string shown(const Error &error)
{
    return error.what + " | " + error.where + " | " + error.mend;
}

} // namespace spectra::testing
