// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/checkpoint.h"

#include "engine/checkpoint/opening.h"
#include "engine/core/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace spectra {
namespace fs = std::filesystem;
namespace {

constexpr std::uint64_t kConfigBytes = 16 << 20;
constexpr std::uint64_t kIndexBytes = 128 << 20;
constexpr int kMaxParts = 4096;

Result<DataFile> mapFile(const fs::path &path)
{
    SPECTRA_TRY(auto file, MappedFile::open(path));
    return DataFile{path.filename().string(), file->bytes(), file, true};
}

/// Names of all parts when `name` is "…-00001-of-00003.gguf", else `name` alone.
Result<std::vector<std::string>> ggufParts(const std::string &name)
{
    // …-NNNNN-of-NNNNN.gguf: 20 characters from the dash on.
    constexpr std::size_t kTail = 20;
    const auto digits = [&](std::size_t at) {
        return std::all_of(name.begin() + static_cast<std::ptrdiff_t>(at), name.begin() + static_cast<std::ptrdiff_t>(at + 5),
                           [](unsigned char c) { return std::isdigit(c) != 0; });
    };
    if (name.size() <= kTail)
        return std::vector{name};
    const std::size_t dash = name.size() - kTail;
    if (name[dash] != '-' || !digits(dash + 1) || name.compare(dash + 6, 4, "-of-") != 0 || !digits(dash + 10))
        return std::vector{name};
    const int count = std::stoi(name.substr(dash + 10, 5));
    if (count < 1 || count > kMaxParts)
        return inputError(fmt::format("the name speaks of {} parts; 1 to {} are possible", count, kMaxParts), name);
    std::vector<std::string> parts;
    for (int i = 1; i <= count; ++i)
        parts.push_back(fmt::format("{}-{:05}-of-{:05}.gguf", name.substr(0, dash), i, count));
    return parts;
}

Result<std::shared_ptr<const Checkpoint>> openGgufFile(const fs::path &path)
{
    SPECTRA_TRY(const auto names, ggufParts(path.filename().string()));
    std::vector<DataFile> parts;
    for (const std::string &name : names) {
        SPECTRA_TRY(DataFile part, mapFile(path.parent_path() / name));
        parts.push_back(std::move(part));
    }
    return openGguf(path, std::move(parts));
}

constexpr const char *kPickle = "a Python pickle is never loaded, since it can run any program";
constexpr const char *kNoPickle = "save the model as safetensors (save_pretrained of transformers 4.35 or later does)";

bool isPickle(const fs::path &path)
{
    const fs::path extension = path.extension();
    return extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt" || extension == ".pkl";
}

bool isGguf(const fs::path &path)
{
    return path.extension() == ".gguf";
}

bool holdsFile(const fs::path &folder, bool (*wanted)(const fs::path &))
{
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
        if (wanted(it->path()))
            return true;
    return false;
}

Result<std::shared_ptr<const Checkpoint>> openFolder(const fs::path &folder)
{
    std::error_code error;
    const auto has = [&](const char *name) { return fs::exists(folder / name, error); };
    if (!has("config.json")) {
        if (holdsFile(folder, isGguf))
            return inputError("the folder has no config.json, but holds GGUF files", folder.string(), "name the .gguf file itself");
        return inputError("the folder has no config.json: it is not a model", folder.string(),
                          "name a Hugging Face model folder (config.json and model.safetensors) or a .gguf file");
    }
    SPECTRA_TRY(std::string config, readTextFile(folder / "config.json", kConfigBytes));
    std::vector<std::string> names;
    std::string index;
    if (has("model.safetensors")) {
        names = {"model.safetensors"};
    } else if (has("model.safetensors.index.json")) {
        SPECTRA_TRY(index, readTextFile(folder / "model.safetensors.index.json", kIndexBytes));
        auto shards = shardNames(index);
        if (!shards.ok())
            return std::move(shards.error().in((folder / "model.safetensors.index.json").string()));
        names = std::move(*shards);
    } else if (holdsFile(folder, isPickle)) {
        return inputError("the folder holds its weights as a Python pickle only: " + std::string(kPickle), folder.string(), kNoPickle);
    } else {
        return inputError("the folder has neither model.safetensors nor model.safetensors.index.json", folder.string());
    }
    std::vector<DataFile> files;
    for (const std::string &name : names) {
        SPECTRA_TRY(DataFile file, mapFile(folder / name));
        files.push_back(std::move(file));
    }
    return openSafetensors(folder, std::move(config), std::move(files), index);
}

} // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::open(const fs::path &path)
{
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status))
        return inputError(error && error != std::errc::no_such_file_or_directory ? "cannot be opened: " + error.message()
                                                                                 : "no such file or folder",
                          path.string());
    try {
        if (fs::is_directory(status))
            return openFolder(path);
        if (path.extension() == ".safetensors" || path.filename() == "config.json")
            return openFolder(path.has_parent_path() ? path.parent_path() : fs::path("."));
        if (isPickle(path))
            return inputError(kPickle, path.string(), kNoPickle);
        auto opened = openGgufFile(path);
        if (!opened.ok() && path.has_parent_path() && opened.error().where.find('/') == std::string::npos)
            opened.error().in(path.parent_path().string());
        return opened;
    } catch (const std::bad_alloc &) {
        return inputError("describes more than fits in memory", path.string());
    }
}

} // namespace spectra
