// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "tests/support/tinymodel.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <csignal>
#include <cstdint>
#include <filesystem>
#include <fcntl.h>
#include <functional>
#include <string>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace spectra::test {

inline constexpr int kNoNamespace = 125;

/// How a run of the program ended.
struct Ran {
    int code = -1;            ///< exit code; −signal when it was killed
    std::string out, err, left;
    double seconds = 0;
};

struct RunOptions {
    std::string input = {};               ///< standard input
    std::string outputPath = {};          ///< standard output goes here instead of into `out`
    std::uint64_t fileLimit = 0;          ///< RLIMIT_FSIZE, bytes; 0: none
    /// In this folder the program sees an empty file system of `smallBytes` instead, in a mount namespace of its own; afterwards
    /// `left` holds the names in it. Where that is not allowed the code is kNoNamespace.
    std::filesystem::path smallFolder = {};
    std::uint64_t smallBytes = 0;
    std::function<void(pid_t)> whileRunning = {};
};

/// Runs build/bin/spectra with these arguments in `folder`.
Ran runProgram(const std::vector<std::string> &arguments, const std::filesystem::path &folder, const RunOptions &options = {});

/// One .npy file of float32 [rows, columns].
void writeArray(const std::filesystem::path &file, std::int64_t rows, std::int64_t columns, const std::vector<float> &values);

/// A folder with a tiny mixture of experts ("moe"), a dense model ("dense"), some prompts and a trace of them ("t.h5"), made once for
/// all tests by the program.
class Program : public testing::Test {
protected:
    static void SetUpTestSuite();
    static void TearDownTestSuite();
    void SetUp() override { ASSERT_TRUE(s_ready); }

    [[nodiscard]] static std::filesystem::path at(const std::string &name) { return *s_folder / name; }
    static Ran run(const std::vector<std::string> &arguments, const RunOptions &options = {}) { return runProgram(arguments, s_folder->path(), options); }
    /// Runs with --json and parses the one document that must come.
    static nlohmann::json json(std::vector<std::string> arguments);
    /// The run must end with this code and say "error: …" (unless the code is 0).
    static Ran expect(int code, const std::vector<std::string> &arguments, const RunOptions &options = {});
    /// Names in the folder that begin with `stem`, hidden ones too.
    [[nodiscard]] static std::vector<std::string> named(const std::string &stem);

private:
    static TemporaryFolder *s_folder;
    static bool s_ready;
};

} // namespace spectra::test
