// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/statefile.h"

#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/safetensors.h"
#include "engine/core/files.h"

#include <nlohmann/json.hpp>

#include <cstring>
#include <fstream>
#include <system_error>

namespace spectra {
namespace {

constexpr const char *kTensors = "model.safetensors", *kNumbers = "numbers.json";

} // namespace

Result<void> writeState(const std::filesystem::path &folder, const std::map<std::string, torch::Tensor> &tensors,
                        const std::map<std::string, std::int64_t> &numbers, std::stop_token stop)
{
    std::error_code error;
    if (!std::filesystem::create_directory(folder, error))
        return workError("cannot be made: " + (error ? error.message() : std::string("it exists")), folder.string());
    std::vector<TensorToWrite> list;
    for (const auto &[name, tensor] : tensors)
        list.push_back({name, DType::f32, tensor.sizes().vec(), [t = tensor](std::span<float> out) -> Result<void> {
                            const auto values = t.detach().to(torch::kCPU, torch::kFloat32).contiguous();
                            std::memcpy(out.data(), values.const_data_ptr<float>(), out.size_bytes());
                            return {};
                        }});
    // One shard: the state is read by our own reader only, which wants one file.
    SPECTRA_CHECK(writeSafetensors(folder, list, ~std::uint64_t(0), {}, std::move(stop)));
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    for (const auto &[name, number] : numbers)
        json[name] = number;
    std::ofstream file(folder / kNumbers, std::ios::binary);
    file << json.dump(2) << '\n';
    file.close();
    return file ? Result<void>() : Result<void>(workError("cannot be written: the disk may be full", (folder / kNumbers).string()));
}

Result<StoredState> readState(const std::filesystem::path &folder)
{
    StoredState state;
    const auto numbers = folder / kNumbers, tensors = folder / kTensors;
    SPECTRA_TRY(const std::string text, readTextFile(numbers, 1 << 20));
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object())
        return inputError("is not a JSON object", numbers.string(), "continue from an earlier checkpoint");
    for (const auto &[name, value] : json.items()) {
        if (!value.is_number_integer() || value.get<std::int64_t>() < 0)
            return inputError("\"" + name + "\" is not a whole number", numbers.string(), "continue from an earlier checkpoint");
        state.numbers[name] = value.get<std::int64_t>();
    }
    SPECTRA_TRY(const auto file, MappedFile::open(tensors));
    auto header = parseSafetensors(file->bytes());
    if (!header)
        return header.error().in(tensors.string());
    for (const StoredTensor &tensor : header->tensors) {
        if (tensor.dtype != DType::f32 || !tensor.unreadable.empty())
            return inputError("tensor \"" + tensor.name + "\" is not F32", tensors.string(), "continue from an earlier checkpoint");
        auto values = torch::empty(tensor.shape, torch::kFloat32);
        std::memcpy(values.data_ptr<float>(), file->bytes().data() + tensor.offset, tensor.bytes);
        state.tensors[tensor.name] = std::move(values);
    }
    return state;
}

} // namespace spectra
