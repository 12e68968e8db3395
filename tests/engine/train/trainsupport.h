// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/train/upcycle.h"
#include "tests/engine/model/support.h"

#include <memory>
#include <numeric>
#include <string>
#include <vector>

namespace spectra::test {

inline std::shared_ptr<const Checkpoint> openCheckpoint(const std::filesystem::path &path)
{
    auto checkpoint = Checkpoint::open(path);
    if (!checkpoint) {
        ADD_FAILURE() << path << ": " << checkpoint.error().what << ": " << checkpoint.error().where;
        return nullptr;
    }
    return *checkpoint;
}

inline std::shared_ptr<const Checkpoint> upcycle(const std::shared_ptr<const Checkpoint> &source, const UpcycleOptions &options)
{
    auto result = upcycled(source, options);
    if (!result) {
        ADD_FAILURE() << result.error().what << ": " << result.error().where;
        return nullptr;
    }
    return *result;
}

inline std::unique_ptr<Model> load(const std::shared_ptr<const Checkpoint> &checkpoint)
{
    if (!checkpoint)
        return nullptr;
    auto model = Model::load(checkpoint, {});
    if (!model) {
        ADD_FAILURE() << model.error().what << ": " << model.error().where;
        return nullptr;
    }
    return std::move(*model);
}

/// Token ids without meaning, the same on every machine.
inline std::vector<std::int32_t> someIds(int count, int vocabulary, int seed = 1)
{
    Random random(static_cast<std::uint64_t>(seed), 9);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
    for (std::int32_t &id : ids)
        id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(vocabulary)));
    return ids;
}

inline constexpr const char *kSpectra = R"({"type":"spectra","router_dim":8})";
inline constexpr const char *kSoftmax = R"({"type":"softmax_topk"})";

/// A tiny SPECTRA model whose experts really differ.
inline std::unique_ptr<Model> tinySpectra(const std::string &router = kSpectra, std::int64_t shared = 0)
{
    UpcycleOptions options;
    options.experts = 6;
    options.topK = 2;
    options.shared = shared;
    options.noise = 0.5;
    options.routerJson = router;
    return load(upcycle(openCheckpoint(modelFixture("llama-gqa")), options));
}

} // namespace spectra::test
