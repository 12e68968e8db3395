// SPDX-License-Identifier: GPL-3.0-or-later
// The explicit table of routers: self-registering statics would vanish from a static library.
#include "engine/router/denserouter.h"
#include "engine/router/registration.h"
#include "engine/router/router.h"
#include "engine/router/spectrarouter.h"

#include <algorithm>
#include <iterator>

namespace spectra {

// One line per router: each is defined in its own file, the presets of a method beside it.
#define SPECTRA_ROUTERS(X)                                                                                                                \
    X(spectraEntry)                                                                                                                       \
    X(switchTop1Entry)                                                                                                                    \
    X(switchTop2Entry)                                                                                                                    \
    X(gshardEntry)                                                                                                                        \
    X(glamEntry)                                                                                                                          \
    X(noisyTopKEntry)                                                                                                                     \
    X(softmaxTopKEntry)                                                                                                                   \
    X(lossFreeEntry)                                                                                                                      \
    X(deepSeekV3Entry)                                                                                                                    \
    X(glm4MoeEntry)                                                                                                                       \
    X(kimiK2Entry)                                                                                                                        \
    X(minimaxEntry)                                                                                                                       \
    X(qwen3MoeEntry)                                                                                                                      \
    X(llama4Entry)                                                                                                                        \
    X(gptOssEntry)                                                                                                                        \
    X(quantileEntry)                                                                                                                      \
    X(expertChoiceEntry)                                                                                                                  \
    X(hashEntry)                                                                                                                          \
    X(sbaseEntry)                                                                                                                         \
    X(baseEntry)                                                                                                                          \
    X(sparseMixerEntry)                                                                                                                   \
    X(lprEntry)                                                                                                                           \
    X(ermoeLikeEntry)                                                                                                                     \
    X(emoeLikeEntry)                                                                                                                      \
    X(domainGmmEntry)                                                                                                                     \
    X(maxScoreLikeEntry)                                                                                                                  \
    X(stableMoeEntry)                                                                                                                     \
    X(specializationEntry)                                                                                                                \
    X(romaEntry)                                                                                                                          \
    X(laserEntry)                                                                                                                         \
    X(denseEntry)

#define SPECTRA_DECLARE(ENTRY) RouterRegistration ENTRY();
SPECTRA_ROUTERS(SPECTRA_DECLARE)
#undef SPECTRA_DECLARE
std::vector<RouterRegistration> spectraPresetEntries();

RouterRegistration spectraEntry()
{
    return registration<SpectraRouter>({"spectra", "SPECTRA: Sinkhorn Projected Experts for Consistent Trajectory routing", "SPECTRA paper drafts, abstract to appendix", true,
                                        "the drafts leave routing at inference open: causal scope with stored potentials is ours, as is the calibration of the potentials",
                                        {}});
}

RouterRegistration denseEntry()
{
    RouterRegistration entry;
    entry.info = {"dense", "No experts: the dense model as it is, a bound for comparisons", "", true, "", {}};
    entry.info.family = "dense";
    const auto check = [](const nlohmann::json &json) -> Result<void> {
        for (const auto &item : json.items())
            if (item.key() != "type")
                return usageError("unknown option \"" + item.key() + "\"", "router dense", "this router has no options");
        return {};
    };
    entry.make = [check](const nlohmann::json &json, const RouterShape &shape, const TensorLookup *, std::uint64_t) -> Result<std::unique_ptr<Router>> {
        SPECTRA_CHECK(check(json));
        return std::unique_ptr<Router>(std::make_unique<DenseRouter>(shape));
    };
    entry.normalise = [](const nlohmann::json &) -> Result<std::string> { return std::string(R"({"type":"dense"})"); };
    return entry;
}

namespace {

using Json = nlohmann::json;
using Entry = RouterRegistration;

const std::vector<Entry> &entries()
{
    static const std::vector<Entry> table = [] {
        std::vector<Entry> list = {
#define SPECTRA_LIST(ENTRY) ENTRY(),
            SPECTRA_ROUTERS(SPECTRA_LIST)
#undef SPECTRA_LIST
        };
        std::vector<Entry> presets = spectraPresetEntries();
        list.insert(list.begin() + 1, std::make_move_iterator(presets.begin()), std::make_move_iterator(presets.end()));
        return list;
    }();
    return table;
}

Result<const Entry *> findEntry(const std::string &name)
{
    std::string all;
    for (const Entry &entry : entries()) {
        if (entry.info.name == name)
            return &entry;
        all += (all.empty() ? "" : ", ") + entry.info.name;
    }
    return usageError("unknown router \"" + name + "\"", "--router", "use one of " + all);
}

Result<Json> parseOptions(const std::string &text)
{
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object() || !json.contains("type") || !json["type"].is_string())
        return usageError("router options are not a JSON object with a \"type\"", "router");
    return json;
}

Result<void> checkShape(const RouterShape &shape, const RouterInfo &info)
{
    const std::string &type = info.name;
    if (type == "dense")
        return {};
    if (shape.hidden < 1 || shape.experts < 1)
        return usageError("a router needs a hidden size and at least one expert", "router " + type);
    if (shape.experts > 65534)
        return usageError("more than 65534 experts", "router " + type, "use fewer experts");
    if (shape.topK < 1 || shape.topK > shape.experts)
        return usageError("top-k " + std::to_string(shape.topK) + " of " + std::to_string(shape.experts) + " experts", "router " + type,
                          "use 1 <= top-k <= experts");
    if (info.topK > 0 && shape.topK != info.topK)
        return usageError("this method takes " + std::to_string(info.topK) + (info.topK == 1 ? " expert" : " experts") + " per token, not "
                              + std::to_string(shape.topK),
                          "router " + type, "use --top-k " + std::to_string(info.topK));
    return {};
}

Result<std::unique_ptr<Router>> build(const std::string &text, const RouterShape &shape, const TensorLookup *lookup, std::uint64_t seed)
{
    SPECTRA_TRY(const auto json, parseOptions(text));
    const auto type = json["type"].get<std::string>();
    SPECTRA_TRY(const Entry *entry, findEntry(type));
    SPECTRA_CHECK(checkShape(shape, entry->info));
    try {
        return entry->make(json, shape, lookup, seed);
    } catch (const std::exception &error) {
        return workError(std::string("could not build the router: ") + error.what(), "router " + type);
    }
}

} // namespace

RouterState RouterState::clone() const
{
    RouterState copy;
    if (token.defined())
        copy.token = token.clone();
    if (depth.defined())
        copy.depth = depth.clone();
    if (ahead.defined())
        copy.ahead = ahead.clone();
    copy.aheadLayer = aheadLayer;
    return copy;
}

const std::vector<RouterInfo> &routerRegistry()
{
    static const std::vector<RouterInfo> list = [] {
        std::vector<RouterInfo> infos;
        for (const Entry &entry : entries())
            infos.push_back(entry.info);
        return infos;
    }();
    return list;
}

Result<std::unique_ptr<Router>> makeRouter(const std::string &optionsJson, const RouterShape &shape, std::uint64_t seed)
{
    return build(optionsJson, shape, nullptr, seed);
}

Result<std::unique_ptr<Router>> loadRouter(const std::string &optionsJson, const RouterShape &shape, const TensorLookup &lookup)
{
    return build(optionsJson, shape, &lookup, 0);
}

Result<std::unique_ptr<Router>> adoptRouter(const std::string &optionsJson, const std::string &ownJson, const RouterShape &shape, const TensorLookup &lookup,
                                            std::uint64_t seed)
{
    SPECTRA_TRY(const auto wanted, parseOptions(optionsJson));
    SPECTRA_TRY(const auto own, parseOptions(ownJson));
    SPECTRA_TRY(const Entry *entry, findEntry(wanted["type"].get<std::string>()));
    const auto &adopts = entry->info.adopts;
    if (std::find(adopts.begin(), adopts.end(), own["type"].get<std::string>()) == adopts.end())
        return std::unique_ptr<Router>();
    SPECTRA_TRY(auto router, makeRouter(optionsJson, shape, seed));
    const torch::NoGradGuard noGrad;
    for (auto &[name, tensor] : router->parameters()) {
        SPECTRA_TRY(const auto stored, lookup(name, tensor.sizes().vec()));
        if (!stored.defined() || stored.sizes() != tensor.sizes())
            return inputError("the checkpoint's router has no tensor of this name and shape", name);
        tensor.detach().copy_(stored);
    }
    return router;
}

Result<std::string> defaultRouterOptions(const std::string &name)
{
    SPECTRA_TRY(const Entry *entry, findEntry(name));
    return entry->normalise(Json::object());
}

Result<std::string> applyRouterSettings(const std::string &optionsJson, const std::vector<std::string> &settings, bool onCheckpoint)
{
    SPECTRA_TRY(auto json, parseOptions(optionsJson));
    const auto type = json["type"].get<std::string>();
    SPECTRA_TRY(const Entry *entry, findEntry(type));
    for (const std::string &setting : settings) {
        const auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            return usageError("a setting must look like key=value", "--set " + setting);
        std::string key = setting.substr(0, equals);
        if (key.rfind("router.", 0) == 0)
            key.erase(0, 7);
        const auto option = std::find_if(entry->info.options.begin(), entry->info.options.end(), [&](const RouterOption &o) { return o.name == key; });
        if (option == entry->info.options.end())
            return usageError("unknown option \"" + key + "\" of router " + type, "--set " + setting, "`spectra models --routers` lists the options");
        const Json value = option->type == "enum" ? Json(setting.substr(equals + 1)) : settingValue(setting.substr(equals + 1));
        if (onCheckpoint && option->fixesShapes && !(json.contains(key) && json[key] == value))
            return usageError("option \"" + key + "\" fixes tensor shapes and cannot be changed on a checkpoint", "--set " + setting,
                              "give the router by name to replace it");
        // Stored potentials belong to the ε they were found at: remember it when another one is asked for.
        if (onCheckpoint && entry->info.family == "spectra" && key == "sinkhorn_epsilon" && json.contains(key) && json.value("calibrated_epsilon", Json(0)) == Json(0))
            json["calibrated_epsilon"] = json[key];
        json[key] = value;
    }
    return entry->normalise(json);
}

} // namespace spectra
