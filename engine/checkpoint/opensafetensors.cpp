// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/configreader.h"
#include "engine/checkpoint/family.h"
#include "engine/checkpoint/openedcheckpoint.h"
#include "engine/checkpoint/opening.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/checkpoint/spectraconfig.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <set>
#include <system_error>

namespace spectra {
namespace {

using Json = nlohmann::json;
constexpr std::uint64_t kConfigBytes = 16 << 20, kIndexBytes = 128 << 20;
constexpr std::size_t kMaxShards = 4096;

/// tensor name → shard. Errors (input).
Result<std::map<std::string, std::string>> weightMap(const std::string &indexText)
{
    SPECTRA_TRY(const Json index, parseJsonObject(indexText, "", kIndexBytes));
    const auto map = index.find("weight_map");
    if (map == index.end() || !map->is_object() || map->empty())
        return inputError("must be an object of tensor names and file names", "key weight_map");
    std::map<std::string, std::string> out;
    for (const auto &[tensor, file] : map->items()) {
        const std::string where = "key weight_map: tensor " + printableUtf8(tensor.substr(0, 300));
        if (!file.is_string() || !isPlainFileName(file.get_ref<const std::string &>()))
            return inputError("must name a file of the same folder, without a path", where);
        const auto &name = file.get_ref<const std::string &>();
        if (!name.ends_with(".safetensors"))
            return inputError("names '" + printableUtf8(name.substr(0, 200)) + "', which is no safetensors file", where);
        out.emplace(tensor, name);
    }
    return out;
}

} // namespace

Result<std::vector<std::string>> shardNames(const std::string &indexText)
{
    SPECTRA_TRY(const auto map, weightMap(indexText));
    std::set<std::string> names;
    for (const auto &[tensor, file] : map)
        names.insert(file);
    if (names.size() > kMaxShards)
        return inputError(fmt::format("names {} files; at most {} are possible", names.size(), kMaxShards), "key weight_map");
    return std::vector<std::string>(names.begin(), names.end());
}

namespace {

Result<std::vector<StoredTensor>> readHeaders(const std::vector<DataFile> &files, const std::string &indexText,
                                              std::vector<std::pair<std::string, std::string>> &metadata)
{
    std::map<std::string, std::string> map;
    if (!indexText.empty()) {
        auto read = weightMap(indexText);
        if (!read.ok())
            return std::move(read.error().in("model.safetensors.index.json"));
        map = std::move(*read);
    }
    std::vector<StoredTensor> stored;
    std::set<std::string> found;
    for (std::size_t i = 0; i < files.size(); ++i) {
        auto header = parseSafetensors(files[i].bytes);
        if (!header.ok())
            return std::move(header.error().in(files[i].name));
        for (StoredTensor &tensor : header->tensors) {
            if (!indexText.empty()) {
                const auto entry = map.find(tensor.name);
                if (entry == map.end() || entry->second != files[i].name)
                    continue; // the index says where each tensor is taken from
            }
            if (!found.insert(tensor.name).second)
                return inputError("occurs in two files", files[i].name + ": tensor " + printableUtf8(tensor.name));
            tensor.file = static_cast<int>(i);
            stored.push_back(std::move(tensor));
        }
        for (const auto &[key, value] : header->metadata)
            metadata.emplace_back(printableUtf8(key), printableUtf8(value.substr(0, 4000)));
    }
    for (const auto &[tensor, file] : map)
        if (!found.contains(tensor))
            return inputError("is missing, though the index says that it is there", file + ": tensor " + printableUtf8(tensor),
                              "fetch the file anew");
    return stored;
}

} // namespace

Result<std::shared_ptr<const Checkpoint>> openSafetensors(std::filesystem::path path, std::string configText, std::vector<DataFile> files,
                                                         const std::string &indexText)
{
    const std::string place = path.string();
    const auto at = [&](Error &error) { return std::move(error.in(place)); };
    OpenedCheckpoint::Parts out;
    out.format = Checkpoint::Format::safetensors;
    auto config = parseJsonObject(configText, "config.json", kConfigBytes);
    if (!config.ok())
        return at(config.error());
    ConfigReader reader(*config, "config.json");
    std::string modelType, baseType;
    reader.optional("model_type", modelType);
    reader.optional("base_model_type", baseType);
    const bool ours = modelType == "spectra";
    if (modelType.empty())
        reader.fail("model_type", "is missing", "name the folder of a model with its config.json");
    const Family *family = familyOfModelType(ours ? baseType : modelType);
    if (family == nullptr)
        reader.fail(ours ? "base_model_type" : "model_type",
                    fmt::format("the architecture '{}' is not supported", printableUtf8((ours ? baseType : modelType).substr(0, 100))),
                    "supported: " + familyNames());
    if (reader.has("quantization_config"))
        reader.fail("quantization_config", "quantised Hugging Face folders (GPTQ, AWQ, FP8 and the like) are not supported",
                    "use the model's F32, F16 or BF16 folder, or a GGUF file of it");
    if (auto result = reader.result(); !result.ok())
        return at(result.error());
    out.config.architecture = family->info.name;
    out.config.modelType = modelType;
    out.config.name = (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
    family->readConfig(reader, out.config);
    if (ours)
        readSpectraConfig(reader, out.config);
    if (auto result = reader.result(); !result.ok())
        return at(result.error());

    out.metadata.emplace_back("files", std::to_string(files.size()));
    auto stored = readHeaders(files, indexText, out.metadata);
    if (!stored.ok())
        return at(stored.error());
    TensorBinder binder(*stored, files, false, false);
    family->bindOuter(binder, out.config);
    for (std::int64_t layer = 0; layer < out.config.layers && binder.result().ok(); ++layer) {
        family->bindLayer(binder, out.config, layer);
        if (ours)
            bindSpectraFeedForward(binder, out.config, layer);
        else
            family->bindFeedForward(binder, out.config, layer);
    }
    if (ours)
        bindSpectraRouters(binder, out.config);
    if (auto result = binder.result(); !result.ok())
        return at(result.error());

    for (const auto &[key, value] : config->items())
        out.metadata.emplace_back("config." + printableUtf8(key), printableUtf8(value.is_string() ? value.get<std::string>()
                                      : value.dump(-1, ' ', false, Json::error_handler_t::replace)).substr(0, 4000));
    out.metadata.emplace_back("tensors not used", std::to_string(binder.unusedTensors()));
    std::error_code error;
    if (std::filesystem::exists(path / "tokenizer.json", error))
        out.tokenizer = path / "tokenizer.json";
    out.infos = binder.takeInfos();
    out.views = binder.takeViews();
    out.configJson = std::move(configText);
    out.files = std::move(files);
    out.path = std::move(path);
    return OpenedCheckpoint::make(std::move(out));
}

} // namespace spectra
