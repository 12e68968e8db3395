// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/opening.h"
#include "engine/core/files.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <unistd.h>
#include <vector>

namespace spectra::test {

namespace fs = std::filesystem;

inline fs::path fixtures() { return fs::path(SPECTRA_TEST_DIR) / "fixtures"; }

/// A folder of its own for one test, removed at its end.
class TemporaryFolder {
public:
    TemporaryFolder()
    {
        static std::atomic<int> counter{0};
        m_path = fs::temp_directory_path() / ("spectra-test-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
        fs::create_directories(m_path);
    }
    ~TemporaryFolder()
    {
        std::error_code ignored;
        fs::remove_all(m_path, ignored);
    }
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;
    [[nodiscard]] fs::path operator/(const std::string &name) const { return m_path / name; }
    [[nodiscard]] const fs::path &path() const { return m_path; }

private:
    fs::path m_path;
};

inline void writeFile(const fs::path &path, std::string_view bytes)
{
    std::ofstream(path, std::ios::binary) << bytes;
}

inline std::string readFile(const fs::path &path)
{
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

inline std::span<const std::byte> bytesOf(std::string_view text)
{
    return std::as_bytes(std::span(text.data(), text.size()));
}

/// A DataFile over a copy of `bytes`, allocated to its exact size so that sanitizers see a read past its end.
inline DataFile dataFile(std::string name, std::string_view bytes)
{
    auto copy = std::make_shared<std::vector<char>>(bytes.begin(), bytes.end());
    return {std::move(name), std::as_bytes(std::span(copy->data(), copy->size())), copy, false};
}

/// "what | where | mend" of a failed result, for EXPECT_THAT.
template <typename T> std::string errorText(const Result<T> &result)
{
    return result.ok() ? "no error" : result.error().what + " | " + result.error().where + " | " + result.error().mend;
}

inline std::string little(std::uint64_t value, int bytes)
{
    std::string out;
    for (int i = 0; i < bytes; ++i)
        out += static_cast<char>(value >> (8 * i) & 0xFF);
    return out;
}

/// A safetensors file from a header text and data; the header's length is the text's unless said.
inline std::string safetensors(const std::string &header, const std::string &data)
{
    return little(header.size(), 8) + header + data;
}

inline std::string ggufString(const std::string &text) { return little(text.size(), 8) + text; }

/// Reads every tensor whole; the values themselves are what a sanitizer watches.
inline void readEverything(const Checkpoint &checkpoint)
{
    std::vector<float> values;
    for (const TensorInfo &tensor : checkpoint.tensors()) {
        values.resize(static_cast<std::size_t>(tensor.elements()));
        (void)checkpoint.readF32(tensor, values);
        (void)checkpoint.raw(tensor);
    }
    (void)checkpoint.vocabulary();
    (void)checkpoint.metadata();
}

} // namespace spectra::test
