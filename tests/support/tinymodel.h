// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace spectra::test {

/// A folder of its own below the system's temporary folder, removed at the end.
class TemporaryFolder {
public:
    explicit TemporaryFolder(const std::string &name);
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;

    [[nodiscard]] const std::filesystem::path &path() const { return m_path; }
    [[nodiscard]] std::filesystem::path operator/(const std::string &name) const { return m_path / name; }
    std::filesystem::path write(const std::string &name, const std::string &text) const;
    /// Plain names of all entries, sorted; hidden ones too.
    [[nodiscard]] std::vector<std::string> entries() const;

private:
    std::filesystem::path m_path;
};

struct TinyTokenizer {
    bool bos = true;          ///< a <s> before every text
    std::int32_t eos = 2;     ///< id of the end token; < 0: none
};

/// A byte-level tokenizer.json of 128 tokens for the tiny models of tests/fixtures/models: <unk>, <s>, </s>, printable ASCII,
/// space, line feed, tab, the bytes of é 日 本 😀 ж, a few merges, and fillers that no text becomes.
[[nodiscard]] std::string tinyTokenizerJson(const TinyTokenizer &options = {});

/// A copy of tests/fixtures/models/NAME in `place`, with that tokenizer.
std::filesystem::path tinyModel(const std::string &name, const std::filesystem::path &place, const TinyTokenizer &options = {});

/// Integer and float arrays of a safetensors file.
struct ExpectedArray {
    std::vector<std::int64_t> shape;
    std::vector<float> f32;
    std::vector<std::int64_t> i64;
};
[[nodiscard]] std::map<std::string, ExpectedArray> readExpectedArrays(const std::filesystem::path &file);

[[nodiscard]] std::string readText(const std::filesystem::path &file);

} // namespace spectra::test
