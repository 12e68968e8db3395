// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/train/upcycle.h"

#include <nlohmann/json.hpp>

#include <fstream>

namespace spectra {
namespace {

Result<void> writeText(const std::filesystem::path &place, const std::string &text)
{
    std::ofstream file(place, std::ios::binary);
    file.write(text.data(), static_cast<std::streamsize>(text.size()));
    file.close();
    return file ? Result<void>() : Result<void>(workError("cannot be written: the disk may be full", place.filename().string()));
}

/// Norms, biases and all of a router stay in f32 whatever the matrices are stored in: they are small and decide much.
bool staysF32(const TensorInfo &tensor)
{
    return tensor.shape.size() < 2 || tensor.name.starts_with("model.router.") || tensor.name.find(".mlp.router.") != std::string::npos;
}

/// Other software loads a folder in the type that its configuration names.
std::string withDtype(const std::string &configJson, DType dtype)
{
    auto config = nlohmann::ordered_json::parse(configJson, nullptr, false);
    if (!config.is_object())
        return configJson;
    for (const char *key : {"torch_dtype", "dtype"})
        if (config.contains(key))
            config[key] = dtype == DType::f16 ? "float16" : dtype == DType::bf16 ? "bfloat16" : "float32";
    return config.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

} // namespace

Result<void> writeFolder(const Checkpoint &checkpoint, const FolderOptions &options, const ProgressFunction &progress, std::stop_token stop)
{
    if (options.dtype != DType::f32 && options.dtype != DType::f16 && options.dtype != DType::bf16)
        return usageError("a folder is written in f32, f16 or bf16", "--dtype " + std::string(dtypeName(options.dtype)));
    SPECTRA_TRY(AtomicFolder folder, AtomicFolder::create(options.place, options.overwrite));
    std::vector<TensorToWrite> tensors;
    for (const TensorInfo &tensor : checkpoint.tensors())
        tensors.push_back({tensor.name, staysF32(tensor) ? DType::f32 : options.dtype, tensor.shape, [&checkpoint, &tensor](std::span<float> out) {
                               Result<void> read = checkpoint.readF32(tensor, out);
                               checkpoint.release(tensor);
                               return read;
                           }});
    SPECTRA_CHECK(writeSafetensors(folder.temporary(), tensors, options.shardBytes, progress, std::move(stop)));
    SPECTRA_CHECK(writeText(folder.temporary() / "config.json", withDtype(folderConfigJson(checkpoint.config(), checkpoint.configJson()), options.dtype)));
    if (!options.tokenizerJson.empty())
        SPECTRA_CHECK(writeText(folder.temporary() / "tokenizer.json", options.tokenizerJson));
    if (!options.tokenizerConfigJson.empty())
        SPECTRA_CHECK(writeText(folder.temporary() / "tokenizer_config.json", options.tokenizerConfigJson));
    if (options.extra)
        SPECTRA_CHECK(options.extra(folder.temporary()));
    return folder.commit();
}

} // namespace spectra
