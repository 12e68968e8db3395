// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/runfolder.h"

#include "engine/core/files.h"
#include "engine/data/manifest.h"
#include "engine/run/environment.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cctype>
#include <fcntl.h>
#include <sys/file.h>
#include <system_error>
#include <unistd.h>
#include <vector>

namespace spectra {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::json;

Result<void> writeText(const fs::path &place, const std::string &text)
{
    SPECTRA_TRY(AtomicFile file, AtomicFile::create(place, true));
    file.stream() << text;
    return file.commit();
}

bool isRun(const fs::path &place)
{
    std::error_code error;
    return fs::exists(place / "config.json", error) && fs::exists(place / "manifest.json", error);
}

/// What a kill leaves of a file or folder that was to appear whole.
bool isLeftover(const std::string &name)
{
    return name.starts_with('.') && name.ends_with(".tmp");
}

/// A run's folder whose making was cut off: it holds nothing but what open() writes first.
bool isBegun(const fs::path &place)
{
    std::error_code error;
    if (!fs::exists(place / ".lock", error))
        return false;
    for (const auto &entry : fs::directory_iterator(place, error)) {
        const std::string name = entry.path().filename().string();
        if (name != ".lock" && name != "environment.json" && name != "tokenizer.json" && name != "config.json" && !isLeftover(name))
            return false;
    }
    return !error;
}

/// Only under the lock: no other process writes here.
void removeLeftovers(const fs::path &folder)
{
    std::error_code ignored;
    std::vector<fs::path> left;
    for (const auto &entry : fs::directory_iterator(folder, ignored))
        if (isLeftover(entry.path().filename().string()))
            left.push_back(entry.path());
    for (const fs::path &place : left)
        fs::remove_all(place, ignored);
}

/// Dotted key of the first difference, or empty.
std::string difference(const Json &a, const Json &b, const std::string &key = {})
{
    if (a.is_object() && b.is_object()) {
        for (const auto &item : a.items()) {
            const std::string inner = key.empty() ? item.key() : key + "." + item.key();
            if (!b.contains(item.key()))
                return inner;
            if (const std::string found = difference(item.value(), b[item.key()], inner); !found.empty())
                return found;
        }
        for (const auto &item : b.items())
            if (!a.contains(item.key()))
                return key.empty() ? item.key() : key + "." + item.key();
        return {};
    }
    return a == b ? std::string() : key;
}

/// Numbers of the checkpoints in a folder, ascending.
std::vector<std::int64_t> steps(const fs::path &folder)
{
    std::vector<std::int64_t> list;
    std::error_code error;
    for (const auto &entry : fs::directory_iterator(folder, error)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with("step-") || name.size() < 6 || name.size() > 20 || !entry.is_directory(error))
            continue;
        const std::string digits = name.substr(5);
        if (std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
            list.push_back(std::stoll(digits));
    }
    std::sort(list.begin(), list.end());
    return list;
}

/// A configuration as it stands in a run's folder. What a later version of the program added has its default there.
Json completed(const std::string &text)
{
    const auto config = TrainConfig::parse(text, "config.json");
    return Json::parse(config.ok() ? config->toJson() : text, nullptr, false);
}

/// Keys that may change between the parts of a run: they do not touch what is computed.
Json comparable(Json config)
{
    if (!config.is_object())
        return config;
    config.erase("name");
    for (const char *key : {"checkpoint", "evaluation"})
        config.erase(key);
    return config;
}

} // namespace

Result<void> RunFolder::check(const fs::path &place, bool resume, bool overwrite)
{
    std::error_code error;
    const bool exists = fs::exists(fs::symlink_status(place, error));
    if (resume) {
        // Killed before the folder was whole: there is nothing to go on with, and nothing to lose.
        if (exists && !isRun(place) && !fs::is_empty(place, error) && !isBegun(place))
            return inputError("is not the folder of a training run", place.string(), "name the folder that train -o made");
        return {};
    }
    if (!exists)
        return {};
    if (!overwrite)
        return workError("exists", place.string(), "--resume goes on with it, --overwrite replaces it");
    if (!isRun(place) && !(fs::is_directory(place, error) && fs::is_empty(place, error)) && !isBegun(place))
        return workError("exists and is not the folder of a training run", place.string(), "choose another place with -o");
    return {};
}

Result<std::unique_ptr<RunFolder>> RunFolder::open(const fs::path &place, const TrainConfig &config, const TrainSetup &setup, bool resume, bool overwrite,
                                                   const std::string &commandLine, int threads)
{
    SPECTRA_CHECK(check(place, resume, overwrite));
    std::error_code error;
    fs::create_directories(place, error);
    if (error)
        return workError("cannot be made: " + error.message(), place.string());
    std::unique_ptr<RunFolder> folder(new RunFolder);
    folder->m_place = place;
    // The lock goes with the process, however it ends.
    folder->m_lock = ::open((place / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (folder->m_lock < 0)
        return workError("cannot be written", (place / ".lock").string());
    if (::flock(folder->m_lock, LOCK_EX | LOCK_NB) != 0)
        return workError("another process trains in this folder", place.string(), "wait for it, or choose another place with -o");
    for (const fs::path &held : {place, place / "checkpoints"})
        removeLeftovers(held);
    const std::string manifest = setup.corpus->manifest();
    if (resume && isRun(place)) {
        SPECTRA_TRY(const std::string before, readTextFile(place / "config.json", 16 << 20));
        if (const std::string key = difference(comparable(completed(before)), comparable(Json::parse(config.toJson(), nullptr, false))); !key.empty())
            return inputError("the run was begun with another configuration: " + key + " differs", (place / "config.json").string(),
                              "continue with the configuration of the first run, or start a new one");
        SPECTRA_TRY(const std::string texts, readTextFile(place / "manifest.json", 64 << 20));
        SPECTRA_TRY(const std::string different, manifestDifference(texts, manifest));
        if (!different.empty())
            return inputError("the run was begun with other texts: " + different, (place / "manifest.json").string(),
                              "give the files of the first run, or start a new one");
    } else {
        if (overwrite)
            for (const char *name : {"checkpoints", "traces", "final", "log.jsonl", "metrics.h5", "result.json"})
                fs::remove_all(place / name, error);
        SPECTRA_CHECK(writeText(place / "environment.json", environmentJson(environmentAttributes(commandLine, threads))));
        SPECTRA_CHECK(writeText(place / "tokenizer.json", setup.tokenizerJson));
        SPECTRA_CHECK(writeText(place / "config.json", config.toJson()));
        SPECTRA_CHECK(writeText(place / "manifest.json", manifest));
    }
    for (const char *name : {"checkpoints", "traces"}) {
        fs::create_directories(place / name, error);
        if (error)
            return workError("cannot be made: " + error.message(), (place / name).string());
    }
    return folder;
}

RunFolder::~RunFolder()
{
    if (m_lock >= 0)
        ::close(m_lock);
}

fs::path RunFolder::checkpoint(std::int64_t step) const
{
    return m_place / "checkpoints" / fmt::format("step-{:06}", step);
}

fs::path RunFolder::trace(std::int64_t step) const
{
    return m_place / "traces" / fmt::format("step-{:06}.h5", step);
}

fs::path RunFolder::final() const
{
    return m_place / "final";
}

fs::path RunFolder::lastCheckpoint() const
{
    const auto list = steps(m_place / "checkpoints");
    return list.empty() ? fs::path() : checkpoint(list.back());
}

void RunFolder::keepCheckpoints(std::int64_t keep) const
{
    const auto list = steps(m_place / "checkpoints");
    if (keep <= 0)
        return;
    std::error_code ignored;
    for (std::size_t i = 0; i + static_cast<std::size_t>(keep) < list.size(); ++i)
        fs::remove_all(checkpoint(list[i]), ignored);
}

Result<void> RunFolder::writeResult(const std::string &json) const
{
    return writeText(m_place / "result.json", json + "\n");
}

} // namespace spectra
