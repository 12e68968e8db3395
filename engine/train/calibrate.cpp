// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/calibrate.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace spectra {
namespace {

/// What calibration moves: the two buffers of each MoE layer.
struct LayerBuffers {
    torch::Tensor meanExpression, potential;
};

Result<std::vector<LayerBuffers>> buffersOf(const Model &model)
{
    const auto refuse = [](const std::string &what) {
        return usageError(what, "calibrate", "Calibration finds the column potentials of causal SPECTRA routing: scoring osr, sinkhorn_scope causal");
    };
    const Router *const router = model.router();
    if (!router || router->family() != "spectra")
        return refuse("only a SPECTRA router can be calibrated");
    const nlohmann::json options = nlohmann::json::parse(router->options(), nullptr, false);
    if (options.value("scoring", "") != "osr")
        return refuse("the router scores by '" + options.value("scoring", "") + "', which has no potentials");
    if (options.value("sinkhorn_scope", "") != "causal")
        return refuse("the router's scope is '" + options.value("sinkhorn_scope", "") + "', which uses no stored potentials");
    const auto stored = router->buffers();
    std::vector<LayerBuffers> buffers;
    for (const std::int64_t layer : model.config().moeLayers) {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.router.";
        const auto mean = stored.find(prefix + "mean_expression");
        const auto potential = stored.find(prefix + "potential");
        if (potential == stored.end())
            return bugError("the router has no potentials", prefix + "potential");
        buffers.push_back({mean == stored.end() ? torch::Tensor() : mean->second, potential->second});
    }
    return buffers;
}

/// Deals the sequences out in batches, over and over.
class Batches {
public:
    explicit Batches(std::span<const CalibrationSequence> sequences) : m_sequences(sequences) {}

    /// Whole sequences until `counted` counted tokens are there; the last is cut behind its last token needed.
    struct Batch {
        PassInput input;
        std::int64_t counted = 0;
    };
    Batch next(std::int64_t counted)
    {
        Batch batch;
        while (batch.counted < counted) {
            const CalibrationSequence &s = m_sequences[m_next];
            m_next = (m_next + 1) % m_sequences.size();
            std::size_t length = 0;
            while (length < s.tokens.size() && batch.counted < counted) {
                batch.counted += s.mask.empty() || s.mask[length] ? 1 : 0;
                ++length;
            }
            if (length > 0)
                batch.input.sequences.push_back({std::span(s.tokens).first(length), s.mask.empty() ? std::span<const std::uint8_t>() : std::span(s.mask).first(length), nullptr});
        }
        return batch;
    }
    void rewind() { m_next = 0; }

private:
    std::span<const CalibrationSequence> m_sequences;
    std::size_t m_next = 0;
};

/// Mask of the rows of a batch, in order.
std::vector<std::uint8_t> rowMask(const PassInput &input)
{
    std::vector<std::uint8_t> mask;
    for (const SequenceInput &s : input.sequences)
        for (std::size_t i = 0; i < s.tokens.size(); ++i)
            mask.push_back(s.mask.empty() || s.mask[i] ? 1 : 0);
    return mask;
}

double variation(const std::vector<double> &load)
{
    double mean = 0, square = 0;
    for (const double v : load)
        mean += v / static_cast<double>(load.size());
    for (const double v : load)
        square += (v - mean) * (v - mean) / static_cast<double>(load.size());
    return mean > 0 ? std::sqrt(square) / mean : 0;
}

std::vector<double> variations(const std::vector<std::vector<double>> &loads)
{
    std::vector<double> cv;
    for (const auto &load : loads)
        cv.push_back(variation(load));
    return cv;
}

/// Runs a batch and counts each layer's assignments of counted tokens.
Result<std::vector<std::vector<double>>> loadsOf(Model &model, const Batches::Batch &batch, const std::stop_token &stop)
{
    const std::vector<std::uint8_t> mask = rowMask(batch.input);
    std::vector<std::vector<double>> loads(model.config().moeLayers.size(), std::vector<double>(static_cast<std::size_t>(model.config().experts), 0));
    PassHooks hooks;
    hooks.stop = stop;
    hooks.onLayer = [&](const RoutingLayer &layer) {
        const torch::Tensor experts = layer.step.experts.cpu().contiguous();
        const std::int64_t k = experts.size(1);
        const std::int64_t *const ids = experts.const_data_ptr<std::int64_t>();
        std::vector<double> &load = loads[static_cast<std::size_t>(layer.ordinal)];
        for (std::int64_t r = 0; r < experts.size(0); ++r)
            if (mask[static_cast<std::size_t>(layer.firstRow + r)])
                for (std::int64_t s = 0; s < k; ++s)
                    if (ids[r * k + s] >= 0)
                        ++load[static_cast<std::size_t>(ids[r * k + s])];
    };
    PassInput input = batch.input;
    input.lastOnly = true;
    SPECTRA_TRY([[maybe_unused]] const torch::Tensor hidden, model.forward(input, hooks));
    return loads;
}

/// One pass over all sequences: the mean raw expression vector of every expert and layer.
Result<void> findMeans(Model &model, std::span<const CalibrationSequence> sequences, std::int64_t tokens, std::vector<LayerBuffers> &buffers,
                       const ProgressFunction &progress, const std::stop_token &stop)
{
    std::vector<torch::Tensor> sums(buffers.size());
    std::int64_t counted = 0, done = 0;
    for (const CalibrationSequence &s : sequences) {
        PassInput input;
        input.lastOnly = true;
        input.sequences.push_back({s.tokens, s.mask, nullptr});
        const std::vector<std::uint8_t> rows = rowMask(input);
        PassHooks hooks;
        hooks.stop = stop;
        hooks.capture.add(Field::vectors);
        hooks.onLayer = [&](const RoutingLayer &layer) {
            const torch::Tensor &e = layer.step.expressionVectors;
            if (!e.defined())
                return;
            const torch::Tensor weight = torch::from_blob(const_cast<std::uint8_t *>(rows.data()) + layer.firstRow, {e.size(0)}, torch::kUInt8)
                                             .to(torch::kFloat64);
            const torch::Tensor sum = (e.cpu().to(torch::kFloat64) * weight.view({-1, 1, 1})).sum(0);
            torch::Tensor &total = sums[static_cast<std::size_t>(layer.ordinal)];
            total = total.defined() ? total + sum : sum;
        };
        SPECTRA_TRY([[maybe_unused]] const torch::Tensor hidden, model.forward(input, hooks));
        for (const std::uint8_t m : rows)
            counted += m;
        done += static_cast<std::int64_t>(s.tokens.size());
        if (progress)
            progress({"mean expressions", done, tokens, "tokens"});
    }
    const torch::NoGradGuard noGrad;
    for (std::size_t l = 0; l < buffers.size(); ++l)
        if (buffers[l].meanExpression.defined() && sums[l].defined())
            buffers[l].meanExpression.copy_(sums[l] / static_cast<double>(counted));
    return {};
}

} // namespace

Result<CalibrationResult> calibrate(Model &model, std::span<const CalibrationSequence> sequences, const CalibrateOptions &options,
                                    const ProgressFunction &progress, std::stop_token stop)
{
    SPECTRA_TRY(std::vector<LayerBuffers> buffers, buffersOf(model));
    if (options.batches < 1 || options.batchTokens < 1 || !(options.firstStep > 0) || !(options.lastStep > 0))
        return usageError("calibration needs at least one batch and positive steps", "calibrate");
    std::vector<CalibrationSequence> usable;
    std::int64_t tokens = 0, counted = 0;
    for (const CalibrationSequence &s : sequences) {
        if (s.tokens.empty())
            continue;
        if (!s.mask.empty() && s.mask.size() != s.tokens.size())
            return bugError("the mask is not as long as its sequence", "calibrate");
        tokens += static_cast<std::int64_t>(s.tokens.size());
        for (std::size_t i = 0; i < s.tokens.size(); ++i)
            counted += s.mask.empty() || s.mask[i] ? 1 : 0;
        usable.push_back(s);
    }
    if (counted == 0)
        return usageError("the prompts have no tokens to calibrate on", "calibrate");

    const auto begin = std::chrono::steady_clock::now();
    std::vector<LayerBuffers> before;
    for (const LayerBuffers &b : buffers)
        before.push_back({b.meanExpression.defined() ? b.meanExpression.clone() : torch::Tensor(), b.potential.clone()});
    const auto restore = [&] {
        const torch::NoGradGuard noGrad;
        for (std::size_t l = 0; l < buffers.size(); ++l) {
            if (buffers[l].meanExpression.defined())
                buffers[l].meanExpression.copy_(before[l].meanExpression);
            buffers[l].potential.copy_(before[l].potential);
        }
    };

    const auto work = [&]() -> Result<CalibrationResult> {
        // Potentials found at another ε are in use as g·ε₀/ε: steps are taken in what is in use, and stored so in the end.
        const nlohmann::json routerOptions = nlohmann::json::parse(model.router()->options(), nullptr, false);
        const double epsilon = routerOptions.value("sinkhorn_epsilon", 0.05), found = routerOptions.value("calibrated_epsilon", 0.0);
        const double inUse = found > 0 ? found / epsilon : 1;
        const double experts = static_cast<double>(model.config().experts), k = static_cast<double>(model.config().topK);
        CalibrationResult result;
        Batches batches(usable);
        SPECTRA_TRY(const auto loadsBefore, loadsOf(model, batches.next(options.batchTokens), stop));
        result.cvBefore = variations(loadsBefore);
        SPECTRA_CHECK(findMeans(model, usable, tokens, buffers, progress, stop));
        batches.rewind();
        for (std::int64_t b = 0; b < options.batches; ++b) {
            const double share = options.batches > 1 ? static_cast<double>(b) / static_cast<double>(options.batches - 1) : 0;
            const double step = options.firstStep * std::pow(options.lastStep / options.firstStep, share);
            const Batches::Batch batch = batches.next(options.batchTokens);
            SPECTRA_TRY(const auto loads, loadsOf(model, batch, stop));
            const torch::NoGradGuard noGrad;
            for (std::size_t l = 0; l < buffers.size(); ++l) {
                const torch::Tensor load = torch::tensor(loads[l], torch::kFloat64);
                torch::Tensor g = buffers[l].potential.cpu().to(torch::kFloat64);
                g = g + step / inUse * (1 - load * (experts / (static_cast<double>(batch.counted) * k)));
                buffers[l].potential.copy_(g - g.mean());
            }
            result.countedTokens += batch.counted;
            if (progress)
                progress({"potentials", b + 1, options.batches, "batches"});
        }
        batches.rewind();
        SPECTRA_TRY(const auto loadsAfter, loadsOf(model, batches.next(options.batchTokens), stop));
        result.cvAfter = variations(loadsAfter);
        result.batches = options.batches;
        {
            const torch::NoGradGuard noGrad;
            for (LayerBuffers &b : buffers)
                b.potential.mul_(inUse);
        }
        model.router()->setCalibrated();
        return result;
    };
    Result<CalibrationResult> result = work();
    if (!result) {
        restore();
        return result;
    }
    result->seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return result;
}

} // namespace spectra
