// SPDX-License-Identifier: GPL-3.0-or-later
// Folders are the architecture: every #include line is held against the rules of what a module may know.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace {
namespace fs = std::filesystem;

struct Include {
    std::string file; ///< relative to the source tree
    int line = 0;
    std::string target;
    bool quoted = false;
};

std::vector<Include> scan(const fs::path &root, const std::vector<std::string> &folders)
{
    static const std::regex pattern(R"re(^\s*#\s*include\s*([<"])([^>"]+)[>"])re");
    std::vector<Include> all;
    for (const std::string &folder : folders)
        for (const auto &entry : fs::recursive_directory_iterator(root / folder)) {
            const std::string extension = entry.path().extension().string();
            if (extension != ".h" && extension != ".cpp" && extension != ".cu" && extension != ".cuh" && extension != ".in")
                continue;
            std::ifstream stream(entry.path());
            std::string line;
            for (int number = 1; std::getline(stream, line); ++number)
                if (std::smatch match; std::regex_search(line, match, pattern))
                    all.push_back({fs::relative(entry.path(), root).string(), number, match[2], match[1] == "\""});
        }
    return all;
}

/// Module of a path: "engine/core", "analysis", "views", "app/cli".
std::string moduleOf(const std::string &path)
{
    const std::size_t first = path.find('/');
    const std::string top = path.substr(0, first);
    if (top != "engine" && top != "app")
        return top;
    return path.substr(0, path.find('/', first + 1));
}

/// Which modules a module may include, itself apart.
const std::map<std::string, std::set<std::string>> &allowed()
{
    static const std::map<std::string, std::set<std::string>> table = {
        {"engine/core", {}},
        {"engine/trace", {"engine/core"}},
        {"engine/checkpoint", {"engine/core"}},
        {"engine/tokenizer", {"engine/core"}},
        {"engine/data", {"engine/core", "engine/tokenizer"}},
        {"engine/tasks", {"engine/core"}},
        {"engine/study", {"engine/core", "engine/trace", "analysis"}},
        {"engine/rule", {"engine/core"}},
        {"engine/cuda", {"engine/core", "engine/rule"}},
        {"engine/mpi", {}},
        {"engine/router", {"engine/core", "engine/rule"}},
        {"engine/model", {"engine/core", "engine/rule", "engine/router", "engine/checkpoint"}},
        {"engine/train", {"engine/core", "engine/rule", "engine/router", "engine/checkpoint", "engine/model", "engine/mpi", "analysis"}},
        {"engine/run",
         {"engine/core", "engine/rule", "engine/router", "engine/checkpoint", "engine/model", "engine/train", "engine/data", "engine/tasks", "engine/tokenizer", "engine/trace", "engine/cuda", "analysis"}},
        {"analysis", {"engine/core", "engine/rule"}},
        {"views", {"analysis", "engine/core", "engine/rule"}},
        {"app/probe", {"engine/core", "engine/trace"}},
        {"app/bridge", {"views", "analysis", "engine/core", "engine/run", "engine/trace", "engine/rule"}},
        {"app/workbench", {"app/bridge", "views", "analysis", "engine/core", "engine/run", "engine/trace", "engine/rule"}},
        {"app/cli", {"views", "analysis", "engine/core", "engine/run", "engine/study", "engine/trace", "engine/rule", "engine/tokenizer"}},
    };
    return table;
}

bool isQt(const std::string &target)
{
    static const std::regex pattern(R"(^(Q[A-Z]\w*|Qt\w*/.*|qcustomplot\.h)$)");
    return std::regex_match(target, pattern);
}
bool isTorch(const std::string &target)
{
    return target.starts_with("torch/") || target.starts_with("ATen/") || target.starts_with("c10/");
}

class Architecture : public ::testing::Test {
protected:
    const std::vector<Include> includes = scan(SPECTRA_SOURCE_DIR, {"engine", "analysis", "views", "app"});
};

TEST_F(Architecture, modulesKnowOnlyWhatTheyMay)
{
    ASSERT_GT(includes.size(), 500u) << "the scan found next to nothing: it proves nothing";
    for (const Include &i : includes) {
        const std::string from = moduleOf(i.file);
        const auto rule = allowed().find(from);
        ASSERT_NE(rule, allowed().end()) << i.file << ": module " << from << " has no rule";
        if (!i.quoted)
            continue;
        const std::string to = moduleOf(i.target);
        if (!allowed().contains(to))
            continue; // a file of its own folder that the build generates
        EXPECT_TRUE(to == from || rule->second.contains(to))
            << i.file << ":" << i.line << " includes " << i.target << ": " << from << " may not know " << to;
    }
}

TEST_F(Architecture, torchStaysInTheEngine)
{
    static const std::set<std::string> mayUse = {"engine/router", "engine/model", "engine/train", "engine/run"};
    static const std::regex publicOfRun(R"(^engine/run/(engine|prompts|catalog)\.h$)");
    for (const Include &i : includes)
        if (isTorch(i.target)) {
            EXPECT_TRUE(mayUse.contains(moduleOf(i.file))) << i.file << ":" << i.line << ": torch is not for this module";
            EXPECT_FALSE(std::regex_match(i.file, publicOfRun)) << i.file << ": no torch in a public header of run";
        }
}

TEST_F(Architecture, theDoorToTheEngineShowsNoTorch)
{
    static const std::set<std::string> open = {"engine/run/engine.h", "engine/run/prompts.h", "engine/run/catalog.h"};
    for (const Include &i : includes) {
        const std::string from = moduleOf(i.file);
        if (i.target.starts_with("engine/run/") && from != "engine/run") {
            EXPECT_TRUE(open.contains(i.target)) << i.file << ":" << i.line << " includes the private header " << i.target;
        }
    }
}

TEST_F(Architecture, qtStaysInViewsAndApp)
{
    for (const Include &i : includes)
        if (isQt(i.target)) {
            EXPECT_TRUE(i.file.starts_with("views/") || i.file.starts_with("app/")) << i.file << ":" << i.line << ": Qt below views";
            EXPECT_FALSE(i.file.starts_with("app/probe/")) << i.file << ":" << i.line << ": the probe is free of Qt";
        }
}

TEST_F(Architecture, torchAndQtNeverMeet)
{
    std::map<std::string, std::pair<bool, bool>> seen;
    for (const Include &i : includes) {
        seen[i.file].first |= isTorch(i.target);
        seen[i.file].second |= isQt(i.target);
    }
    for (const auto &[file, both] : seen)
        EXPECT_FALSE(both.first && both.second) << file << " includes torch and Qt";
}

TEST_F(Architecture, hdf5StaysInSourcesOfTrace)
{
    for (const Include &i : includes)
        if (i.target == "hdf5.h" || i.target == "hdf5_hl.h" || i.target.starts_with("H5")) {
            EXPECT_TRUE(i.file.starts_with("engine/trace/")) << i.file << ":" << i.line << ": HDF5 is for engine/trace";
        }
}

TEST_F(Architecture, everyFileNamesItsLicence)
{
    for (const std::string folder : {"engine", "analysis", "views", "app", "tests"})
        for (const auto &entry : fs::recursive_directory_iterator(fs::path(SPECTRA_SOURCE_DIR) / folder)) {
            const std::string extension = entry.path().extension().string();
            if (extension != ".h" && extension != ".cpp" && extension != ".cu")
                continue;
            std::ifstream stream(entry.path());
            std::string line;
            std::getline(stream, line);
            EXPECT_NE(line.find("SPDX-License-Identifier: GPL-3.0-or-later"), std::string::npos) << entry.path();
        }
}

TEST_F(Architecture, everyModuleExplainsItself)
{
    for (const auto &[module, rule] : allowed()) {
        const fs::path folder = fs::path(SPECTRA_SOURCE_DIR) / module;
        if (fs::exists(folder / "CMakeLists.txt")) {
            EXPECT_TRUE(fs::exists(folder / "README.md")) << module << " has no README.md";
        }
    }
}

} // namespace
