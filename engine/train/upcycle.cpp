// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine/train/upcycle.h"

#include "engine/core/files.h"
#include "engine/train/derivedcheckpoint.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <set>

namespace spectra {
namespace {

Result<std::int64_t> parseNumber(std::string_view text, const std::string &where)
{
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 0)
        return usageError("not a layer number: '" + std::string(text) + "'", where, "Use all, every:N, from:N or a list such as 0,3,5");
    return value;
}

Result<void> checkOptions(const ModelConfig &source, const UpcycleOptions &o)
{
    if (o.experts < 1 || o.experts > 16384)
        return usageError("the number of experts must be between 1 and 16384", "--experts " + std::to_string(o.experts));
    if (o.topK < 1 || o.topK > o.experts)
        return usageError("top-k must be between 1 and the number of experts", "--top-k " + std::to_string(o.topK));
    if (o.shared < 0 || o.shared > 64)
        return usageError("the number of shared experts must be between 0 and 64", "--shared " + std::to_string(o.shared));
    if (!(o.noise >= 0 && o.noise <= 10))
        return usageError("noise must be between 0 and 10", "--noise");
    const std::string granularity = "--granularity " + std::to_string(o.granularity);
    if (o.granularity < 1 || source.intermediate % o.granularity != 0)
        return usageError("granularity must divide the FFN size of " + std::to_string(source.intermediate), granularity);
    if (o.experts % o.granularity != 0)
        return usageError("granularity must divide the number of experts", granularity);
    return {};
}

/// Gives the G slices of a copy the same routing parameters, so that a fresh router chooses them together (the virtual
/// groups of arXiv 2410.07524). Rows of a parameter run [gate blocks, E, rows per expert].
void tieGroups(const Router &router, std::int64_t experts, std::int64_t granularity)
{
    const torch::NoGradGuard noGrad;
    for (const auto &[name, tensor] : router.parameters()) {
        const std::int64_t blocks = name.find(".gru.") != std::string::npos ? 3 : 1;
        if (!tensor.defined() || tensor.dim() == 0 || tensor.size(0) % (blocks * experts) != 0)
            continue;
        const std::int64_t rows = tensor.size(0) / (blocks * experts);
        std::vector<std::int64_t> view = {blocks, experts / granularity, granularity, rows};
        for (std::int64_t i = 1; i < tensor.dim(); ++i)
            view.push_back(tensor.size(i));
        torch::Tensor grouped = tensor.detach().view(view);
        for (std::int64_t g = 1; g < granularity; ++g)
            grouped.select(2, g).copy_(grouped.select(2, 0));
    }
}

std::string note(const UpcycleOptions &o, const std::string &router)
{
    char noise[32];
    std::snprintf(noise, sizeof(noise), "%g", o.noise);
    std::string text = "upcycled: " + std::to_string(o.experts) + " experts, top-" + std::to_string(o.topK);
    if (o.granularity > 1)
        text += ", granularity " + std::to_string(o.granularity);
    if (o.shared > 0)
        text += ", " + std::to_string(o.shared) + " shared";
    return text + ", noise " + noise + ", router " + router + ", seed " + std::to_string(o.seed);
}

/// An undefined tensor when there is none of this name.
Result<torch::Tensor> storedAsF32(const Checkpoint &source, const std::string &name)
{
    const TensorInfo *const info = source.find(name);
    if (!info)
        return torch::Tensor();
    torch::Tensor values = torch::empty(info->shape, torch::kFloat32);
    SPECTRA_CHECK(source.readF32(*info, {values.data_ptr<float>(), static_cast<std::size_t>(values.numel())}));
    return values;
}

std::map<std::string, torch::Tensor> tensorsOf(const Router &router)
{
    std::map<std::string, torch::Tensor> tensors = router.parameters();
    tensors.merge(router.buffers());
    return tensors;
}

} // namespace

Result<LayerChoice> LayerChoice::parse(const std::string &text)
{
    const std::string where = "--layers " + text;
    LayerChoice choice;
    if (text == "all" || text.empty())
        return choice;
    if (text.starts_with("every:")) {
        choice.kind = Kind::every;
        SPECTRA_TRY(choice.number, parseNumber(std::string_view(text).substr(6), where));
        if (choice.number < 1)
            return usageError("every:N needs N of at least 1", where);
        return choice;
    }
    if (text.starts_with("from:")) {
        choice.kind = Kind::from;
        SPECTRA_TRY(choice.number, parseNumber(std::string_view(text).substr(5), where));
        return choice;
    }
    choice.kind = Kind::list;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find(',', begin), text.size());
        SPECTRA_TRY(const std::int64_t layer, parseNumber(std::string_view(text).substr(begin, end - begin), where));
        choice.list.push_back(layer);
        begin = end + 1;
    }
    return choice;
}

Result<std::vector<std::int64_t>> LayerChoice::resolve(std::int64_t layers) const
{
    std::vector<std::int64_t> chosen;
    switch (kind) {
    case Kind::all:
        chosen.resize(static_cast<std::size_t>(layers));
        std::iota(chosen.begin(), chosen.end(), 0);
        break;
    case Kind::every:
        for (std::int64_t l = number - 1; l >= 0 && l < layers; l += number)
            chosen.push_back(l);
        break;
    case Kind::from:
        for (std::int64_t l = number; l < layers; ++l)
            chosen.push_back(l);
        break;
    case Kind::list:
        chosen.assign(list.begin(), list.end());
        std::sort(chosen.begin(), chosen.end());
        chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
        break;
    }
    if (chosen.empty() || chosen.back() >= layers)
        return usageError(chosen.empty() ? "no layer is chosen" : "there is no layer " + std::to_string(chosen.back()), "--layers",
                          "The model has layers 0 to " + std::to_string(layers - 1));
    return chosen;
}

std::shared_ptr<const Checkpoint> withRouter(std::shared_ptr<const Checkpoint> source, const Router &router, ModelConfig config)
{
    config.routerJson = router.options();
    return std::make_shared<RouterCheckpoint>(std::move(source), std::move(config), tensorsOf(router));
}

Result<std::shared_ptr<const Checkpoint>> upcycled(std::shared_ptr<const Checkpoint> source, const UpcycleOptions &options)
{
    ModelConfig c = source->config();
    c.modelType = "spectra";
    c.routerTrained = false;
    c.routerCalibrated = false;
    c.trainingStep = 0;
    const bool hasExperts = c.moe();
    if (hasExperts) {
        if (options.topK > 0)
            c.topK = options.topK;
        if (c.topK > c.experts)
            return usageError("top-k is larger than the number of experts", std::to_string(c.topK) + " of " + std::to_string(c.experts));
    } else {
        SPECTRA_CHECK(checkOptions(c, options));
        SPECTRA_TRY(c.moeLayers, options.layers.resolve(c.layers));
        c.experts = options.experts;
        c.topK = options.topK;
        c.expertIntermediate = c.intermediate / options.granularity;
        c.sharedExperts = options.shared;
        c.sharedIntermediate = options.shared * c.intermediate;
        // Routed and shared parts add up to the dense FFN.
        c.routedScalingFactor = c.sharedScalingFactor = options.shared > 0 ? 1.0 / static_cast<double>(options.shared + 1) : 1;
        c.normalizeTopK = true;
    }
    const RouterShape shape{c.hidden, c.experts, c.topK, c.moeLayers, c.vocabulary};
    std::unique_ptr<Router> router;
    if (hasExperts) {
        const TensorLookup lookup = [&](const std::string &name, const std::vector<std::int64_t> &) { return storedAsF32(*source, name); };
        SPECTRA_TRY(router, adoptRouter(options.routerJson, c.routerJson.empty() ? R"({"type":"softmax_topk"})" : c.routerJson, shape, lookup, options.seed));
        if (router) {
            c.routerTrained = source->config().routerTrained;
            c.trainingStep = source->config().trainingStep;
        }
    }
    const bool adopted = router != nullptr;
    if (!adopted) {
        SPECTRA_TRY(router, makeRouter(options.routerJson, shape, options.seed));
    }
    c.routerJson = router->options();
    // Weights that sum to another number than 1 are brought back, so that the experts together still are the dense FFN.
    if (!hasExperts && router->weightSum() > 0)
        c.routedScalingFactor /= router->weightSum();
    if (hasExperts) {
        c.upcyclingNote = "router replaced: " + router->name() + ", top-" + std::to_string(c.topK)
            + (adopted ? ", with the weights it had" : ", seed " + std::to_string(options.seed));
        return std::shared_ptr<const Checkpoint>(std::make_shared<RouterCheckpoint>(std::move(source), c, tensorsOf(*router)));
    }
    if (options.granularity > 1)
        tieGroups(*router, c.experts, options.granularity);
    c.upcyclingNote = note(options, router->name());
    auto experts = std::make_shared<ExpertCheckpoint>(std::move(source), c, options);
    return std::shared_ptr<const Checkpoint>(std::make_shared<RouterCheckpoint>(std::move(experts), c, tensorsOf(*router)));
}

} // namespace spectra
