// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/trace/tracereader.h"
#include "tests/support/synthetictrace.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <unistd.h>

namespace spectra::test {

/// A folder that goes when the test ends.
class TraceTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        const auto *info = ::testing::UnitTest::GetInstance()->current_test_info();
        m_folder = std::filesystem::temp_directory_path() / ("spectra-trace-" + std::to_string(::getpid()) + "-" + info->name());
        std::filesystem::remove_all(m_folder);
        std::filesystem::create_directories(m_folder);
    }
    void TearDown() override
    {
        std::error_code ignored;
        std::filesystem::remove_all(m_folder, ignored);
    }
    [[nodiscard]] std::filesystem::path place(const std::string &name) const { return m_folder / name; }

private:
    std::filesystem::path m_folder;
};

template <typename T> std::string why(const Result<T> &result)
{
    return result.ok() ? "ok" : result.error().what + " | " + result.error().where + " | " + result.error().mend;
}

/// Compares every column, table and token of `source` with what the run stands for; tokens below `tokens` only.
void expectRun(const TraceSource &source, const SyntheticRun &run, std::int64_t tokens);
/// Compares all datasets of two finished traces bit for bit, times and uuid excepted.
void expectSameDatasets(const std::filesystem::path &a, const std::filesystem::path &b);

} // namespace spectra::test
