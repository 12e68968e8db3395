// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/files.h"
#include "engine/core/random.h"
#include "engine/model/model.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <torch/torch.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace spectra::test {

inline std::filesystem::path modelFixture(const std::string &name)
{
    return std::filesystem::path(SPECTRA_TEST_DIR) / "fixtures" / "models" / name;
}

inline std::filesystem::path sampleModel()
{
    return cacheFolder() / "models" / "smollm2-135m.gguf";
}

/// Every tensor of a safetensors file of f32 and i64 values.
inline std::map<std::string, torch::Tensor> readExpected(const std::filesystem::path &path)
{
    std::map<std::string, torch::Tensor> tensors;
    auto file = MappedFile::open(path);
    if (!file) {
        ADD_FAILURE() << path << ": " << file.error().what;
        return tensors;
    }
    const auto bytes = (*file)->bytes();
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const auto header = nlohmann::json::parse(std::string(reinterpret_cast<const char *>(bytes.data()) + 8, length));
    for (const auto &[name, entry] : header.items()) {
        if (name == "__metadata__")
            continue;
        const auto shape = entry["shape"].get<std::vector<std::int64_t>>();
        torch::Tensor t = torch::empty(shape, entry["dtype"] == "I64" ? torch::kInt64 : torch::kFloat32);
        const auto begin = entry["data_offsets"][0].get<std::uint64_t>();
        std::memcpy(t.data_ptr(), bytes.data() + 8 + length + begin, t.nbytes());
        tensors[name] = t;
    }
    return tensors;
}

inline std::vector<std::int32_t> idsOf(const torch::Tensor &t)
{
    std::vector<std::int32_t> ids;
    for (std::int64_t i = 0; i < t.numel(); ++i)
        ids.push_back(static_cast<std::int32_t>(t.data_ptr<std::int64_t>()[i]));
    return ids;
}

inline std::unique_ptr<Model> loadModel(const std::filesystem::path &path, const LoadOptions &options = {})
{
    auto checkpoint = Checkpoint::open(path);
    if (!checkpoint) {
        ADD_FAILURE() << path << ": " << checkpoint.error().what << ": " << checkpoint.error().where;
        return nullptr;
    }
    auto model = Model::load(*checkpoint, options);
    if (!model) {
        ADD_FAILURE() << path << ": " << model.error().what << ": " << model.error().where;
        return nullptr;
    }
    return std::move(*model);
}

/// Final hidden states of whole sequences.
inline torch::Tensor hiddenOf(Model &model, const std::vector<std::vector<std::int32_t>> &sequences, const PassHooks &hooks = {}, std::int64_t chunk = 512)
{
    PassInput input;
    input.chunk = chunk;
    for (const auto &s : sequences)
        input.sequences.push_back({s, {}, nullptr});
    auto hidden = model.forward(input, hooks);
    if (!hidden) {
        ADD_FAILURE() << hidden.error().what << ": " << hidden.error().where;
        return {};
    }
    return *hidden;
}

inline torch::Tensor logitsOf(Model &model, const std::vector<std::int32_t> &ids, const PassHooks &hooks = {}, std::int64_t chunk = 512)
{
    const torch::Tensor hidden = hiddenOf(model, {ids}, hooks, chunk);
    if (!hidden.defined())
        return {};
    auto logits = model.logits(hidden);
    if (!logits) {
        ADD_FAILURE() << logits.error().what;
        return {};
    }
    return *logits;
}

inline double maxDifference(const torch::Tensor &a, const torch::Tensor &b)
{
    EXPECT_EQ(a.sizes(), b.sizes());
    return a.sizes() == b.sizes() ? (a.to(torch::kFloat64) - b.to(torch::kFloat64)).abs().max().item<double>() : INFINITY;
}

inline std::vector<std::int32_t> greedy(Model &model, const std::vector<std::int32_t> &prompt, int count)
{
    SequenceState state = model.newSequence(static_cast<std::int64_t>(prompt.size()) + count);
    std::vector<std::int32_t> generated;
    std::vector<std::int32_t> next = prompt;
    for (int i = 0; i < count; ++i) {
        PassInput input;
        input.lastOnly = true;
        input.sequences.push_back({next, {}, &state});
        auto hidden = model.forward(input);
        if (!hidden) {
            ADD_FAILURE() << hidden.error().what;
            return generated;
        }
        auto logits = model.logits(*hidden);
        if (!logits) {
            ADD_FAILURE() << logits.error().what;
            return generated;
        }
        generated.push_back(static_cast<std::int32_t>(logits->argmax(1).item<std::int64_t>()));
        next = {generated.back()};
    }
    return generated;
}

} // namespace spectra::test
