// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/checkpoint/ggufconfig.h"
#include "engine/checkpoint/openedcheckpoint.h"
#include "engine/checkpoint/opening.h"

#include "engine/core/files.h"

#include <fmt/format.h>

#include <set>

namespace spectra {
namespace {

/// Llama-3's RoPE scaling as llama.cpp stores it: one divisor per frequency.
Result<void> readFrequencyFactors(const std::vector<StoredTensor> &stored, const std::vector<DataFile> &files, nlohmann::json &config)
{
    for (const StoredTensor &tensor : stored) {
        if (tensor.name != "rope_freqs.weight")
            continue;
        if (tensor.dtype != DType::f32 || tensor.shape.size() != 1 || tensor.shape[0] > limits::kHeadDim)
            return inputError("must be a vector of F32", "tensor rope_freqs.weight");
        std::vector<float> factors(static_cast<std::size_t>(tensor.shape[0]));
        const auto bytes = files[static_cast<std::size_t>(tensor.file)].bytes.subspan(tensor.offset, tensor.bytes);
        std::copy(bytes.begin(), bytes.end(), std::as_writable_bytes(std::span(factors)).begin());
        config["rope_frequency_factors"] = factors;
    }
    return {};
}

} // namespace

Result<std::shared_ptr<const Checkpoint>> openGguf(std::filesystem::path path, std::vector<DataFile> parts)
{
    OpenedCheckpoint::Parts out;
    out.format = Checkpoint::Format::gguf;
    std::vector<StoredTensor> stored;
    GgufHeader first;
    std::set<std::string> names;
    for (std::size_t i = 0; i < parts.size(); ++i) {
        auto header = parseGguf(parts[i].bytes);
        if (!header.ok())
            return std::move(header.error().in(parts[i].name));
        const auto setting = [&](const char *key) {
            const GgufValue *v = header->find(key);
            const auto n = v != nullptr ? v->integer() : std::nullopt;
            return n.value_or(-1);
        };
        const std::int64_t count = setting("split.count");
        if (count > 1 || parts.size() > 1) {
            if (count != static_cast<std::int64_t>(parts.size()) || setting("split.no") != static_cast<std::int64_t>(i))
                return inputError(fmt::format("says that it is part {} of {}, but was found as part {} of {}", setting("split.no") + 1, count,
                                              i + 1, parts.size()),
                                  parts[i].name, "keep all parts in one folder under their original names");
        }
        for (StoredTensor &tensor : header->tensors) {
            if (!names.insert(tensor.name).second)
                return inputError("occurs in two parts", parts[i].name + ": tensor " + printableUtf8(tensor.name));
            tensor.file = static_cast<int>(i);
            stored.push_back(tensor);
        }
        if (i == 0)
            first = std::move(*header);
    }
    if (const GgufValue *v = first.find("split.tensors.count"); v != nullptr && parts.size() > 1) {
        const auto n = v->integer();
        if (!n || *n != static_cast<std::int64_t>(stored.size()))
            return inputError(fmt::format("the parts hold {} tensors together, but {} are announced", stored.size(), n.value_or(-1)),
                              parts.front().name);
    }
    const std::string place = parts.front().name;
    const auto at = [&](Error &error) { return std::move(error.in(place)); };

    const Family *family = nullptr;
    auto config = ggufConfig(first, stored, family);
    if (!config.ok())
        return at(config.error());
    if (auto factors = readFrequencyFactors(stored, parts, *config); !factors.ok())
        return at(factors.error());
    ConfigReader reader(*config, place + " (metadata)");
    out.config.architecture = family->info.name;
    const GgufValue *architecture = first.find("general.architecture");
    out.config.modelType = std::string(architecture->text);
    family->readConfig(reader, out.config);
    SPECTRA_CHECK(reader.result());
    const GgufValue *name = first.find("general.name");
    out.config.name = name != nullptr && !name->text.empty() ? printableUtf8(name->text.substr(0, 200)) : path.stem().string();

    TensorBinder binder(stored, parts, true, family->ggufPermutesQueryKey);
    family->bindOuter(binder, out.config);
    for (std::int64_t layer = 0; layer < out.config.layers && binder.result().ok(); ++layer) {
        family->bindLayer(binder, out.config, layer);
        family->bindFeedForward(binder, out.config, layer);
    }
    if (auto bound = binder.result(); !bound.ok())
        return at(bound.error());

    auto vocabulary = ggufVocabulary(first);
    if (!vocabulary.ok())
        return at(vocabulary.error());
    out.vocabulary = std::move(*vocabulary);
    out.metadata.emplace_back("GGUF version", std::to_string(first.version));
    out.metadata.emplace_back("files", std::to_string(parts.size()));
    for (const auto &[key, value] : first.values)
        out.metadata.emplace_back(printableUtf8(key), value.printable());
    out.metadata.emplace_back("tensors not used", std::to_string(binder.unusedTensors()));
    out.infos = binder.takeInfos();
    out.views = binder.takeViews();
    out.configJson = config->dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
    out.files = std::move(parts);
    out.path = std::move(path);
    return OpenedCheckpoint::make(std::move(out));
}

} // namespace spectra
