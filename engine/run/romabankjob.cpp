// SPDX-License-Identifier: GPL-3.0-or-later
// The bank of RoMA (Li et al. 2025, arXiv 2511.07419, section 3.1): which training windows a model succeeds on, and how it routes there.
#include "engine/core/files.h"
#include "engine/core/npy.h"
#include "engine/core/random.h"
#include "engine/run/job.h"
#include "engine/run/romawindows.h"
#include "engine/run/trainsetup.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <tuple>

namespace spectra {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// Rows of a pass.
constexpr std::int64_t kRows = 2048;

constexpr const char *kSuccess = "the model's most likely next token after the window's last token is the one that follows in the text";
constexpr const char *kOwnEmbedding = "the model's final hidden state (after the last norm), mean over the window's tokens";

Result<void> writeText(const fs::path &place, const std::string &text)
{
    SPECTRA_TRY(AtomicFile file, AtomicFile::create(place, false));
    file.stream() << text;
    return file.commit();
}

/// A model whose routing can be aligned with what the configuration trains. Errors (input).
Result<void> checkModel(const LoadedModel &loaded, const TrainSetup &setup, const RomaBankRequest &request)
{
    const Model &model = *loaded.model;
    const std::string name = model.router() ? model.router()->name() : "dense";
    for (const RouterInfo &info : routerRegistry())
        if (info.name == "roma_like" && name != info.name && std::find(info.adopts.begin(), info.adopts.end(), name) == info.adopts.end())
            return inputError(fmt::format("has router \"{}\", whose routing is none that roma_like could be drawn to", name), request.spec.model,
                              fmt::format("take a model with one of roma_like, {}", fmt::join(info.adopts, ", ")));
    if (model.config().experts != setup.model.experts || model.config().moeLayers != setup.model.moeLayers)
        return inputError("has other experts or mixture-of-experts layers than the model that the configuration trains", request.spec.model, "take the model that model.checkpoint names");
    if (loaded.tokenizer->sha256() != setup.tokenizer->sha256())
        return inputError("has another tokenizer than the configuration's texts", request.spec.model, "take the model that model.checkpoint names, or set tokenizer.file");
    return {};
}

/// The windows to run, ascending: all of the text, or some of them drawn without repetition.
std::vector<RomaWindow> chosenWindows(const TrainSetup &setup, const BatchSampler &sampler, std::int64_t count, std::uint64_t seed, std::int64_t &all)
{
    std::vector<RomaWindow> windows;
    for (std::size_t d = 0; d < setup.corpus->domains().size(); ++d)
        for (std::int64_t w = 0; w < sampler.windows(d); ++w)
            windows.push_back({d, w, -1});
    all = static_cast<std::int64_t>(windows.size());
    if (count > 0 && count < all) {
        Random(seed).shuffle(windows);
        windows.resize(static_cast<std::size_t>(count));
        std::sort(windows.begin(), windows.end(), [](const RomaWindow &a, const RomaWindow &b) { return std::tuple(a.domain, a.number) < std::tuple(b.domain, b.number); });
    }
    return windows;
}

/// Windows [first, first + count) through the model.
struct Pass {
    torch::Tensor routing;               ///< [count, M, E]: softmax over all experts at the last token
    torch::Tensor embedding;             ///< [count, H]: mean of the final hidden states
    std::vector<std::int32_t> top1, next; ///< most likely next token, and the text's
};

Result<Pass> runWindows(Model &model, const BatchSampler &sampler, std::span<const RomaWindow> windows, std::int64_t length, std::int64_t layers, std::stop_token stop)
{
    const auto count = static_cast<std::int64_t>(windows.size());
    const auto before = static_cast<std::int64_t>(model.config().moeLayers.size()) - layers;
    Pass pass;
    pass.routing = torch::zeros({count, layers, model.config().experts});
    PassInput input;
    for (const RomaWindow &w : windows) {
        const auto tokens = sampler.window(w.domain, w.number).tokens;
        input.sequences.push_back({tokens.first(static_cast<std::size_t>(length)), {}, nullptr});
        pass.next.push_back(tokens.back());
    }
    PassHooks hooks;
    hooks.stop = stop;
    hooks.capture.add(Field::logits);
    hooks.onLayer = [&](const RoutingLayer &l) {
        if (l.ordinal < before)
            return;
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t row = (i + 1) * length - 1 - l.firstRow;
            if (row >= 0 && row < l.step.logits.size(0))
                pass.routing[i][l.ordinal - before].copy_(torch::softmax(l.step.logits[row].to(torch::kCPU, torch::kFloat32), -1));
        }
    };
    SPECTRA_TRY(const torch::Tensor hidden, model.forward(input, hooks));
    const torch::Tensor whole = hidden.view({count, length, hidden.size(1)});
    pass.embedding = whole.mean(1).to(torch::kCPU).contiguous();
    SPECTRA_TRY(const TokenScores scores, model.score(whole.select(1, length - 1).contiguous(), pass.next, stop));
    pass.top1 = scores.top1;
    return pass;
}

/// What is gathered over all windows.
struct Gathered {
    RomaBank bank;
    RomaWindows told;
    std::vector<float> queries;          ///< [windows, D]
    std::int64_t dimension = 0;
};

Result<Gathered> gather(const JobContext &context, Model &model, const BatchSampler &sampler, std::vector<RomaWindow> windows, std::int64_t length, std::int64_t layers)
{
    Gathered g;
    g.told.sequenceLength = length;
    g.told.layers = g.bank.layers = layers;
    g.told.experts = g.bank.experts = model.config().experts;
    g.dimension = model.config().hidden;
    const auto all = static_cast<std::int64_t>(windows.size()), width = layers * g.bank.experts, step = std::max<std::int64_t>(1, kRows / length);
    for (std::int64_t first = 0; first < all; first += step) {
        if (context.stop.stop_requested())
            return cancelledError();
        const auto part = std::span(windows).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(std::min(step, all - first)));
        SPECTRA_TRY(const Pass pass, runWindows(model, sampler, part, length, layers, context.stop));
        const float *const embedding = pass.embedding.const_data_ptr<float>(), *const routing = pass.routing.const_data_ptr<float>();
        g.queries.insert(g.queries.end(), embedding, embedding + pass.embedding.numel());
        for (std::size_t i = 0; i < part.size(); ++i)
            if (pass.top1[i] == pass.next[i]) {
                part[i].row = g.bank.samples++;
                const auto at = static_cast<std::ptrdiff_t>(i) * width;
                g.bank.routing.insert(g.bank.routing.end(), routing + at, routing + at + width);
            }
        context.report({"running the model", std::min(first + step, all), all, "windows"});
    }
    g.told.windows = std::move(windows);
    return g;
}

/// Embeddings from outside in the place of the model's own. Errors (input).
Result<void> takeEmbeddings(Gathered &g, const fs::path &file)
{
    SPECTRA_TRY(NpyArray array, readNpy(file));
    const auto count = static_cast<std::int64_t>(g.told.windows.size());
    if (array.shape.size() != 2 || array.shape[0] != count || array.shape[1] < 1)
        return inputError(fmt::format("is not [{}, size]: an embedding for each of the windows", count), file.string(),
                          "make the bank without --embeddings first: its texts.jsonl holds the texts to embed, in order");
    g.dimension = array.shape[1];
    g.queries = std::move(array.values);
    return {};
}

Result<void> write(const Gathered &g, const TrainSetup &setup, const BatchSampler &sampler, const RomaBankRequest &request)
{
    SPECTRA_TRY(AtomicFolder folder, AtomicFolder::create(request.output, request.overwrite));
    const fs::path place = folder.temporary();
    SPECTRA_CHECK(g.bank.write(place, false));
    {
        SPECTRA_TRY(AtomicFile file, AtomicFile::create(place / "queries.npy", false));
        const std::vector<std::int64_t> shape = {static_cast<std::int64_t>(g.told.windows.size()), g.dimension};
        writeNpy(file.stream(), shape, g.queries);
        SPECTRA_CHECK(file.commit());
    }
    SPECTRA_TRY(AtomicFile texts, AtomicFile::create(place / "texts.jsonl", false));
    for (const RomaWindow &w : g.told.windows) {
        const auto tokens = sampler.window(w.domain, w.number).tokens;
        const Json line = {{"domain", setup.corpus->domains()[w.domain].name},
                           {"window", w.number},
                           {"success", w.row >= 0},
                           {"text", setup.tokenizer->decode(tokens.first(static_cast<std::size_t>(g.told.sequenceLength)))}};
        texts.stream() << line.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
    }
    SPECTRA_CHECK(texts.commit());
    SPECTRA_CHECK(writeText(place / "manifest.json", setup.corpus->manifest()));
    SPECTRA_CHECK(writeText(place / "windows.json", g.told.toJson()));
    return folder.commit();
}

} // namespace

Result<Summary> runRomaBank(const JobContext &context, const RomaBankRequest &request)
{
    const auto start = std::chrono::steady_clock::now();
    SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
    std::error_code error;
    // --overwrite replaces a bank, not whatever else has that name.
    if (fs::exists(fs::symlink_status(request.output, error)) && !fs::exists(request.output / "windows.json", error))
        return workError("exists and is not a bank", request.output.string(), "choose another place with -o");
    TrainRequest texts;
    texts.config = request.config;
    texts.where = request.where;
    texts.folder = request.folder;
    texts.set = request.set;
    SPECTRA_TRY(const TrainSetup setup, openTrainSetup(context, texts));
    const std::string router = nlohmann::json::parse(setup.config.routerJson, nullptr, false).value("type", "");
    if (router != "roma_like")
        return usageError(fmt::format("a bank is for router roma_like, and the configuration trains \"{}\"", router), request.where + ": router.type",
                          "give the configuration of the run that is to use the bank");
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    SPECTRA_CHECK(checkModel(*loaded, setup, request));

    const std::int64_t length = setup.config.sequenceLength, layers = romaRequest(setup, request.folder).layers;
    const BatchSampler sampler(setup.corpus, length, 0, BatchSampler::Cut::fixed);
    std::int64_t all = 0;
    SPECTRA_TRY(Gathered g, gather(context, *loaded->model, sampler, chosenWindows(setup, sampler, request.windows, request.spec.seed, all), length, layers));
    const auto windows = static_cast<std::int64_t>(g.told.windows.size());
    if (g.bank.samples == 0)
        return inputError(fmt::format("succeeds on none of {} windows: the bank would be empty", windows), request.spec.model, "take a better model, or more windows");
    g.told.model = loaded->model->config().name;
    g.told.success = kSuccess;
    g.told.embedding = request.embeddings.empty() ? kOwnEmbedding : "given: " + request.embeddings.filename().string();
    if (!request.embeddings.empty())
        SPECTRA_CHECK(takeEmbeddings(g, request.embeddings));
    g.bank.dimension = g.dimension;
    for (std::int64_t w = 0; w < windows; ++w)
        if (g.told.windows[static_cast<std::size_t>(w)].row >= 0)
            g.bank.embeddings.insert(g.bank.embeddings.end(), g.queries.begin() + w * g.dimension, g.queries.begin() + (w + 1) * g.dimension);
    SPECTRA_CHECK(write(g, setup, sampler, request));

    Summary summary;
    summary.model = loaded->handle;
    summary.output = request.output;
    summary.tokens = windows * length;
    summary.sequences = windows;
    summary.loadSeconds = loaded->loadSeconds;
    summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (g.bank.samples <= setup.config.romaNeighbours)
        summary.warnings.push_back(fmt::format("{} samples are too few for roma.neighbours {}", g.bank.samples, setup.config.romaNeighbours));
    const Json document = {{"output", request.output.string()}, {"model", g.told.model},      {"windows", windows},         {"of", all},
                           {"samples", g.bank.samples},         {"layers", layers},           {"experts", g.bank.experts},  {"dimension", g.dimension},
                           {"success", g.told.success},         {"embedding", g.told.embedding}, {"sequence_length", length}, {"seconds", summary.seconds}};
    summary.document = document.dump(-1, ' ', false, Json::error_handler_t::replace);
    return summary;
}

} // namespace spectra
