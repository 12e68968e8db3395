// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/dequantize.h"
#include "engine/checkpoint/storage.h"

#include "engine/core/parallel.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <set>
#include <system_error>

namespace spectra {
namespace {

using Json = nlohmann::ordered_json;

/// Tensors [first, last) of one file.
struct Shard {
    std::size_t first = 0, last = 0;
    std::uint64_t bytes = 0;
    std::string name;
};

std::uint64_t bytesOf(const TensorToWrite &tensor)
{
    std::uint64_t n = static_cast<std::uint64_t>(blockSize(tensor.dtype).bytes);
    for (const std::int64_t d : tensor.shape)
        n *= static_cast<std::uint64_t>(d);
    return n;
}

Result<void> check(std::span<const TensorToWrite> tensors)
{
    std::set<std::string_view> names;
    for (const TensorToWrite &tensor : tensors) {
        std::int64_t elements = 0;
        if (tensor.dtype != DType::f32 && tensor.dtype != DType::f16 && tensor.dtype != DType::bf16)
            return bugError(fmt::format("safetensors files are written in F32, F16 or BF16, not {}", dtypeName(tensor.dtype)), tensor.name);
        if (!shapeProduct(tensor.shape, elements) || elements > (std::int64_t(1) << 58))
            return bugError("has an impossible shape " + shapeText(tensor.shape), tensor.name);
        if (!names.insert(tensor.name).second || tensor.name == "__metadata__")
            return bugError("is written twice or has a reserved name", tensor.name);
    }
    return {};
}

/// As few files as the limit allows, tensors in their order; a tensor above the limit has a file of its own.
std::vector<Shard> split(std::span<const TensorToWrite> tensors, std::uint64_t shardBytes)
{
    std::vector<Shard> shards(1);
    for (std::size_t i = 0; i < tensors.size(); ++i) {
        const std::uint64_t n = bytesOf(tensors[i]);
        if (shards.back().last > shards.back().first && shards.back().bytes + n > shardBytes)
            shards.push_back({i, i, 0, {}});
        shards.back().last = i + 1;
        shards.back().bytes += n;
    }
    for (std::size_t s = 0; s < shards.size(); ++s)
        shards[s].name = shards.size() == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", s + 1, shards.size());
    return shards;
}

std::string headerOf(std::span<const TensorToWrite> tensors)
{
    Json header = Json::object();
    header["__metadata__"] = {{"format", "pt"}};
    std::uint64_t at = 0;
    for (const TensorToWrite &tensor : tensors) {
        const std::uint64_t end = at + bytesOf(tensor);
        header[tensor.name] = {{"dtype", dtypeName(tensor.dtype)}, {"shape", tensor.shape}, {"data_offsets", {at, end}}};
        at = end;
    }
    std::string text = header.dump(-1, ' ', false, Json::error_handler_t::replace);
    text.resize((text.size() + 63) / 64 * 64 + 56, ' '); // 8 bytes of length before it: data begins at a multiple of 64
    return text;
}

Result<void> writeError(const std::filesystem::path &path)
{
    const int code = errno;
    return workError("cannot be written: " + (code != 0 ? std::generic_category().message(code) : std::string("is the disk full?")),
                     path.string());
}

} // namespace

Result<void> writeSafetensors(const std::filesystem::path &folder, std::span<const TensorToWrite> tensors, std::uint64_t shardBytes,
                              const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_CHECK(check(tensors));
    const std::vector<Shard> shards = split(tensors, std::max<std::uint64_t>(shardBytes, 1));
    std::vector<float> values;
    std::vector<std::uint16_t> halves;
    Json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", Json::object()}};
    std::uint64_t total = 0;
    for (const Shard &shard : shards) {
        const std::filesystem::path path = folder / shard.name;
        errno = 0;
        std::ofstream stream(path, std::ios::binary | std::ios::trunc);
        const auto mine = tensors.subspan(shard.first, shard.last - shard.first);
        const std::string header = headerOf(mine);
        const std::uint64_t length = header.size();
        stream.write(reinterpret_cast<const char *>(&length), sizeof length);
        stream.write(header.data(), static_cast<std::streamsize>(header.size()));
        if (!stream)
            return writeError(path);
        for (std::size_t i = shard.first; i < shard.last; ++i) {
            const TensorToWrite &tensor = tensors[i];
            if (stop.stop_requested())
                return cancelledError();
            if (progress)
                progress({"writing tensors", static_cast<std::int64_t>(i), static_cast<std::int64_t>(tensors.size()), "tensors"});
            const auto elements = static_cast<std::size_t>(bytesOf(tensor) / static_cast<std::uint64_t>(blockSize(tensor.dtype).bytes));
            values.resize(elements);
            SPECTRA_CHECK(tensor.fill(std::span<float>(values)));
            const char *bytes = reinterpret_cast<const char *>(values.data());
            if (tensor.dtype != DType::f32) {
                halves.resize(elements);
                const auto round = tensor.dtype == DType::f16 ? halfFromFloat : bfloatFromFloat;
                const int parts = static_cast<int>(std::min<std::size_t>(elements / (1 << 18) + 1, 64));
                parallelFor(static_cast<std::int64_t>(elements), parts, [&](std::int64_t begin, std::int64_t end, int) {
                    for (auto j = static_cast<std::size_t>(begin); j < static_cast<std::size_t>(end); ++j)
                        halves[j] = round(values[j]);
                });
                bytes = reinterpret_cast<const char *>(halves.data());
            }
            errno = 0;
            stream.write(bytes, static_cast<std::streamsize>(bytesOf(tensor)));
            if (!stream)
                return writeError(path);
            index["weight_map"][tensor.name] = shard.name;
        }
        errno = 0;
        stream.close();
        if (!stream)
            return writeError(path);
        total += shard.bytes;
    }
    if (progress)
        progress({"writing tensors", static_cast<std::int64_t>(tensors.size()), static_cast<std::int64_t>(tensors.size()), "tensors"});
    if (shards.size() == 1)
        return {};
    index["metadata"]["total_size"] = total;
    const std::filesystem::path path = folder / "model.safetensors.index.json";
    errno = 0;
    std::ofstream stream(path, std::ios::binary | std::ios::trunc);
    stream << index.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    stream.close();
    if (!stream)
        return writeError(path);
    return {};
}

} // namespace spectra
