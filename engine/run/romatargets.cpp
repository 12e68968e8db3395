// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/run/romatargets.h"

#include "engine/core/files.h"
#include "engine/core/npy.h"
#include "engine/data/manifest.h"
#include "engine/run/romawindows.h"
#include "engine/run/trainsetup.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <system_error>
#include <tuple>

namespace spectra {
namespace fs = std::filesystem;
namespace {

/// What the run and the bank must have in common. Errors (input).
Result<void> checkFits(const RomaWindows &stored, const RomaBank &bank, const RomaRequest &request, const Corpus &corpus, const BatchSampler &sampler, std::int64_t length)
{
    const std::string where = request.bank.string(), mend = "make a bank with the run's own configuration: spectra roma-bank MODEL CONFIG -o DIR";
    if (stored.sequenceLength != length)
        return inputError(fmt::format("the bank's windows have {} tokens, those of the run {} (training.sequence_length)", stored.sequenceLength, length), where, mend);
    SPECTRA_TRY(const std::string manifest, readTextFile(request.bank / "manifest.json", 64 << 20));
    auto different = manifestDifference(manifest, corpus.manifest());
    if (!different)
        return different.error().in((request.bank / "manifest.json").string());
    if (!different->empty())
        return inputError("the bank was made of other texts than the run's: " + *different, where, mend);
    if (stored.layers != bank.layers || stored.experts != bank.experts || stored.successes() != bank.samples)
        return inputError("windows.json and routing.npy do not belong together", where, mend);
    if (bank.layers != request.layers)
        return inputError(fmt::format("the bank holds routing of {} MoE layers, and the run aligns {} (router.manifold_layers, or all there are)", bank.layers, request.layers), where, mend);
    if (bank.experts != request.experts)
        return inputError(fmt::format("the bank holds routing over {} experts, and the model has {}", bank.experts, request.experts), where, mend);
    for (const RomaWindow &w : stored.windows)
        if (w.domain >= corpus.domains().size() || w.number >= sampler.windows(w.domain))
            return inputError(fmt::format("the bank names window {} of domain {}, which the texts do not have", w.number, w.domain), where, mend);
    return {};
}

/// Embeddings of all windows, and with them those of the bank's samples. Errors (input).
Result<std::vector<float>> queriesOf(const RomaWindows &stored, RomaBank &bank, const RomaRequest &request)
{
    const bool own = request.embeddings.empty();
    const fs::path file = own ? request.bank / "queries.npy" : request.embeddings;
    SPECTRA_TRY(NpyArray array, readNpy(file));
    const auto count = static_cast<std::int64_t>(stored.windows.size());
    if (array.shape.size() != 2 || array.shape[0] != count || array.shape[1] < 1)
        return inputError(fmt::format("is not [{}, size]: an embedding for each window of the bank's windows.json, in that order", count), file.string());
    if (own && array.shape[1] != bank.dimension)
        return inputError(fmt::format("embeddings of {} numbers, those of the samples have {}", array.shape[1], bank.dimension), file.string());
    if (own)
        return std::move(array.values);
    const std::int64_t d = array.shape[1];
    bank.dimension = d;
    bank.embeddings.clear();
    for (std::int64_t w = 0; w < count; ++w)
        if (stored.windows[static_cast<std::size_t>(w)].row >= 0)
            bank.embeddings.insert(bank.embeddings.end(), array.values.begin() + w * d, array.values.begin() + (w + 1) * d);
    SPECTRA_CHECK(bank.check(file.string()));
    return std::move(array.values);
}

Result<std::string> sumOf(const RomaRequest &request, std::stop_token stop)
{
    Sha256 sum;
    std::vector<fs::path> files = {request.bank / "windows.json", request.bank / "routing.npy"};
    if (request.embeddings.empty())
        files.insert(files.end(), {request.bank / "embeddings.npy", request.bank / "queries.npy"});
    else
        files.push_back(request.embeddings);
    for (const fs::path &file : files) {
        SPECTRA_TRY(const std::string one, sha256File(file, stop));
        sum.add(std::as_bytes(std::span(one)));
    }
    return sum.hex();
}

} // namespace

RomaRequest romaRequest(const TrainSetup &setup, const fs::path &folder)
{
    const TrainConfig &config = setup.config;
    RomaRequest request;
    if (!config.romaBank.empty())
        request.bank = folder / config.romaBank;
    if (!config.romaEmbeddings.empty())
        request.embeddings = folder / config.romaEmbeddings;
    request.neighbours = config.romaNeighbours;
    request.sigma = config.romaSigma;
    // A source that has this router already keeps its own options.
    const auto options = nlohmann::json::parse(setup.model.routerJson, nullptr, false);
    const auto moeLayers = static_cast<std::int64_t>(setup.model.moeLayers.size());
    const auto asked = options.is_object() ? options.find("manifold_layers") : options.end();
    request.layers = options.is_object() && asked != options.end() && asked->is_number_integer() ? std::min(moeLayers, asked->get<std::int64_t>()) : moeLayers;
    request.experts = setup.model.experts;
    return request;
}

Result<RomaTargets> RomaTargets::open(const RomaRequest &request, const Corpus &corpus, const BatchSampler &sampler, std::int64_t length, std::stop_token stop)
{
    RomaTargets targets;
    SPECTRA_TRY(const RomaWindows stored, RomaWindows::read(request.bank));
    SPECTRA_TRY(targets.m_bank, RomaBank::open(request.bank));
    SPECTRA_CHECK(checkFits(stored, targets.m_bank, request, corpus, sampler, length));
    SPECTRA_TRY(const std::vector<float> queries, queriesOf(stored, targets.m_bank, request));
    if (request.neighbours >= targets.m_bank.samples)
        return inputError(fmt::format("the bank has {} samples: too few for {} neighbours of each (roma.neighbours)", targets.m_bank.samples, request.neighbours), request.bank.string(),
                          targets.m_bank.samples > 1 ? fmt::format("use roma.neighbours <= {}, or a bank of more windows", targets.m_bank.samples - 1)
                                                     : "make a bank of more windows, with a better model");
    SPECTRA_TRY(targets.m_sha256, sumOf(request, stop));
    std::vector<std::int64_t> own;
    for (const RomaWindow &w : stored.windows) {
        own.push_back(w.row);
        targets.m_windows.push_back({w.domain, w.number * length});
    }
    for (std::size_t d = 0; d < corpus.domains().size(); ++d)
        targets.m_allWindows += sampler.windows(d);
    if (stop.stop_requested())
        return cancelledError();
    auto found = romaNeighbours(targets.m_bank, queries, request.neighbours, request.sigma, own);
    if (!found)
        return found.error().in((request.embeddings.empty() ? request.bank / "queries.npy" : request.embeddings).string());
    targets.m_neighbours = std::move(*found);
    return targets;
}

std::int64_t RomaTargets::find(std::size_t domain, std::int64_t begin) const
{
    const auto at = std::lower_bound(m_windows.begin(), m_windows.end(), std::tuple(domain, begin),
                                     [](const Place &a, const std::tuple<std::size_t, std::int64_t> &b) { return std::tuple(a.domain, a.begin) < b; });
    return at != m_windows.end() && at->domain == domain && at->begin == begin ? at - m_windows.begin() : -1;
}

Result<ManifoldTargets> RomaTargets::of(std::span<const BatchSampler::Sequence> sequences) const
{
    std::vector<std::int64_t> queries;
    for (const BatchSampler::Sequence &s : sequences)
        queries.push_back(find(s.domain, s.begin));
    return romaTargets(m_bank, m_neighbours, queries);
}

Result<void> keepRomaBank(const fs::path &run, const RomaTargets &targets, bool resume)
{
    const fs::path file = run / "roma_bank.sha256";
    std::error_code error;
    if (resume && fs::exists(file, error)) {
        SPECTRA_TRY(const std::string before, readTextFile(file, 4096));
        if (before != targets.sha256() + "\n")
            return inputError("the run was begun with another bank", file.string(), "give it the first run's bank (roma.bank, roma.embeddings), or start a new run");
        return {};
    }
    SPECTRA_TRY(AtomicFile out, AtomicFile::create(file, true));
    out.stream() << targets.sha256() << '\n';
    return out.commit();
}

} // namespace spectra
