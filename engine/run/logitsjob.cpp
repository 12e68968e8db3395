// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/core/files.h"
#include "engine/run/job.h"
#include "engine/run/sequences.h"
#include "engine/trace/arrayfile.h"

#include <fmt/format.h>

#include <chrono>
#include <map>

namespace spectra {
namespace {

/// What --layers keeps of one MoE layer, piece by piece.
struct RouterPieces {
    std::vector<torch::Tensor> input, logits, probabilities, experts, weights;
};

Result<void> writeTensor(ArrayFile &file, const std::string &name, const std::vector<torch::Tensor> &pieces)
{
    if (pieces.empty() || !pieces.front().defined())
        return {};
    const torch::Tensor whole = torch::cat(pieces, 0).to(torch::kCPU, torch::kFloat32).contiguous();
    return file.write(name, whole.sizes().vec(), std::span<const float>(whole.data_ptr<float>(), static_cast<std::size_t>(whole.numel())));
}

} // namespace

Result<Summary> runLogits(const JobContext &context, const LogitsRequest &request)
{
    const auto start = std::chrono::steady_clock::now();
    SPECTRA_CHECK(checkOutput(request.output, request.overwrite));
    SPECTRA_TRY(const auto loaded, context.models->get(request.spec, context.progress(), context.stop));
    Model &model = *loaded->model;
    SPECTRA_TRY(const CutResult cut, cutPrompts({request.prompt}, *loaded->tokenizer, model.config().vocabulary, {0, 0, request.parseSpecial, true, context.stop}));
    const TokenSequence &sequence = cut.sequences.front();
    const auto n = static_cast<std::int64_t>(sequence.ids.size());

    std::vector<torch::Tensor> residual(static_cast<std::size_t>(model.config().layers + 1));
    std::map<int, RouterPieces> routers;
    PassHooks hooks;
    hooks.stop = context.stop;
    hooks.onProgress = [&](std::int64_t done, std::int64_t total) { context.report({"running the model", done, total, "tokens"}); };
    if (request.layers) {
        hooks.capture.add(Field::logits).add(Field::probabilities);
        hooks.onHidden = [&](int layer, std::int64_t first, const torch::Tensor &hidden) {
            torch::Tensor &whole = residual[static_cast<std::size_t>(layer + 1)];
            if (!whole.defined())
                whole = torch::empty({n, hidden.size(1)}, torch::kFloat32);
            whole.narrow(0, first, hidden.size(0)).copy_(hidden);
        };
        hooks.onLayer = [&](const RoutingLayer &l) {
            RouterPieces &p = routers[l.decoderLayer];
            // clone(): the pass reuses its buffers.
            p.input.push_back(l.input.clone());
            if (l.step.logits.defined())
                p.logits.push_back(l.step.logits.clone());
            if (l.step.probabilities.defined())
                p.probabilities.push_back(l.step.probabilities.clone());
            p.experts.push_back(l.step.experts.clone());
            p.weights.push_back(l.step.weights.clone());
        };
    }
    PassInput input;
    input.sequences.push_back({sequence.ids, sequence.mask, nullptr});
    SPECTRA_TRY(const torch::Tensor hidden, model.forward(input, hooks));

    SPECTRA_TRY(auto file, ArrayFile::create(request.output, request.overwrite));
    SPECTRA_CHECK(file->write("/ids", {n}, std::span<const std::int32_t>(sequence.ids)));
    Result<void> written;
    const auto logged = model.logits(
        hidden,
        [&](std::int64_t, const torch::Tensor &logits) {
            const torch::Tensor rows = logits.contiguous();
            written = file->append("/logits", {rows.size(1)}, {rows.data_ptr<float>(), static_cast<std::size_t>(rows.numel())});
            return written.ok();
        },
        context.stop);
    if (!written.ok())
        return written.error();
    if (!logged.ok())
        return logged.error();
    if (request.layers) {
        std::vector<torch::Tensor> stacked;
        for (const torch::Tensor &t : residual)
            if (t.defined())
                stacked.push_back(t.unsqueeze(0));
        SPECTRA_CHECK(writeTensor(*file, "/hidden", stacked));
        for (const auto &[layer, p] : routers) {
            const std::string group = fmt::format("/router/{}/", layer);
            SPECTRA_CHECK(writeTensor(*file, group + "input", p.input));
            SPECTRA_CHECK(writeTensor(*file, group + "logits", p.logits));
            SPECTRA_CHECK(writeTensor(*file, group + "probabilities", p.probabilities));
            SPECTRA_CHECK(writeTensor(*file, group + "weights", p.weights));
            const torch::Tensor ids = torch::cat(p.experts, 0).to(torch::kCPU, torch::kLong).contiguous();
            std::vector<std::uint16_t> experts(static_cast<std::size_t>(ids.numel()));
            for (std::size_t i = 0; i < experts.size(); ++i) {
                const std::int64_t e = ids.data_ptr<std::int64_t>()[i];
                experts[i] = e < 0 ? kNoExpert : static_cast<std::uint16_t>(e);
            }
            SPECTRA_CHECK(file->write(group + "experts", ids.sizes().vec(), std::span<const std::uint16_t>(experts)));
        }
    }
    SPECTRA_CHECK(file->attribute("/", "model", model.config().name));
    if (!loaded->note.empty())
        SPECTRA_CHECK(file->attribute("/", "note", loaded->note));
    SPECTRA_CHECK(file->commit());
    Summary summary;
    summary.model = loaded->handle;
    summary.output = request.output;
    summary.tokens = n;
    summary.sequences = 1;
    summary.loadSeconds = loaded->loadSeconds;
    summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    summary.warnings = cut.warnings;
    return summary;
}

} // namespace spectra
