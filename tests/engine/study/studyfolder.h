// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/study/results.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <unistd.h>

namespace spectra::test {

using study::Json;
namespace fs = std::filesystem;

inline void write(const fs::path &file, const std::string &text)
{
    fs::create_directories(file.parent_path());
    std::ofstream(file, std::ios::binary) << text;
}

inline std::string read(const fs::path &file)
{
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// A folder of its own for each test.
class StudyTest : public ::testing::Test {
protected:
    void SetUp() override
    {
        const auto *info = ::testing::UnitTest::GetInstance()->current_test_info();
        m_folder = fs::temp_directory_path() / (std::string("spectra-study-") + info->test_suite_name() + "-" + info->name() + "-" + std::to_string(::getpid()));
        fs::remove_all(m_folder);
        fs::create_directories(m_folder);
    }
    void TearDown() override { fs::remove_all(m_folder); }
    [[nodiscard]] fs::path at(const std::string &name) const { return m_folder / name; }

    /// A study whose runs left these results; nullopt: the run left nothing.
    study::Study finished(const Json &spec, const std::function<std::optional<Json>(const study::StudySpec &, const study::Cell &)> &result)
    {
        const fs::path folder = at("study");
        write(folder / "study.json", Json{{"spec", spec}}.dump());
        auto opened = study::openStudy(folder);
        if (!opened) {
            ADD_FAILURE() << opened.error().what << ": " << opened.error().where;
            return {};
        }
        for (const study::Cell &cell : opened->cells)
            if (const auto json = result(opened->spec, cell))
                write(study::cellFolder(folder, cell) / "result.json", json->dump());
        return std::move(*study::openStudy(folder));
    }

    fs::path m_folder;
};

inline Json parsed(const char *text)
{
    return Json::parse(text);
}

} // namespace spectra::test
