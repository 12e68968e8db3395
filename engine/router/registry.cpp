// SPDX-License-Identifier: GPL-3.0-or-later
// The explicit table of routers: self-registering statics would vanish from a static library.
#include "engine/router/denserouter.h"
#include "engine/router/router.h"
#include "engine/router/softmaxtopkrouter.h"
#include "engine/router/spectrarouter.h"

#include <algorithm>

namespace spectra {
namespace {

using Json = nlohmann::json;
/// Makes a router from checked JSON; with `lookup` its tensors come from a checkpoint, else they are fresh.
using Maker = Result<std::unique_ptr<Router>> (*)(const Json &, const RouterShape &, const TensorLookup *lookup, std::uint64_t seed);

struct Entry {
    RouterInfo info;
    Maker make;

};

template <typename R> Result<std::unique_ptr<Router>> filled(std::unique_ptr<R> router, const TensorLookup *lookup, std::uint64_t seed)
{
    if (lookup)
        SPECTRA_CHECK(router->load(*lookup));
    else
        router->initialise(seed);
    return std::unique_ptr<Router>(std::move(router));
}

Result<std::unique_ptr<Router>> makeSpectra(const Json &json, const RouterShape &shape, const TensorLookup *lookup, std::uint64_t seed)
{
    SPECTRA_TRY(auto options, readOptions(json, spectraOptionTable()));
    SPECTRA_CHECK(options.isValid());
    return filled(std::make_unique<SpectraRouter>(options, shape), lookup, seed);
}

Result<std::unique_ptr<Router>> makeSoftmaxTopK(const Json &json, const RouterShape &shape, const TensorLookup *lookup, std::uint64_t seed)
{
    SPECTRA_TRY(auto options, readOptions(json, softmaxTopKOptionTable()));
    return filled(std::make_unique<SoftmaxTopKRouter>(options, shape), lookup, seed);
}

Result<std::unique_ptr<Router>> makeDense(const Json &json, const RouterShape &shape, const TensorLookup *, std::uint64_t)
{
    for (const auto &item : json.items())
        if (item.key() != "type")
            return usageError("unknown option \"" + item.key() + "\"", "router dense", "this router has no options");
    return std::unique_ptr<Router>(std::make_unique<DenseRouter>(shape));
}

template <typename Options> Result<std::string> normalise(const std::string &type, const Json &json, const std::vector<OptionField<Options>> &table)
{
    SPECTRA_TRY(auto options, readOptions(json, table));
    if constexpr (requires { options.isValid(); })
        SPECTRA_CHECK(options.isValid());
    return writeOptions(type, options, table);
}

Result<std::string> normaliseAny(const std::string &type, const Json &json)
{
    if (type == "spectra")
        return normalise(type, json, spectraOptionTable());
    if (type == "softmax_topk")
        return normalise(type, json, softmaxTopKOptionTable());
    return std::string(R"({"type":"dense"})");
}

const std::vector<Entry> &entries()
{
    static const std::vector<Entry> table = [] {
        std::vector<Entry> list;
        list.push_back({{"spectra", "SPECTRA: Sinkhorn Projected Experts for Consistent Trajectory routing", "SPECTRA paper drafts, abstract to appendix", true,
                         "the drafts leave routing at inference open: causal scope with stored potentials is ours, as is the calibration of the potentials",
                         listOptions(spectraOptionTable())},
                        &makeSpectra});
        list.push_back({{"softmax_topk", "Softmax top-k (Mixtral, Switch)", "Jiang et al. 2024, arXiv 2401.04088, section 2.1; Fedus et al. 2021, arXiv 2101.03961, equations 4 to 6",
                         true, "", listOptions(softmaxTopKOptionTable())},
                        &makeSoftmaxTopK});
        list.push_back({{"dense", "No experts: the dense model as it is, a bound for comparisons", "", true, "", {}}, &makeDense});
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

Result<void> checkShape(const RouterShape &shape, const std::string &type)
{
    if (type == "dense")
        return {};
    if (shape.hidden < 1 || shape.experts < 1)
        return usageError("a router needs a hidden size and at least one expert", "router " + type);
    if (shape.experts > 65534)
        return usageError("more than 65534 experts", "router " + type, "use fewer experts");
    if (shape.topK < 1 || shape.topK > shape.experts)
        return usageError("top-k " + std::to_string(shape.topK) + " of " + std::to_string(shape.experts) + " experts", "router " + type,
                          "use 1 <= top-k <= experts");
    return {};
}

Result<std::unique_ptr<Router>> build(const std::string &text, const RouterShape &shape, const TensorLookup *lookup, std::uint64_t seed)
{
    SPECTRA_TRY(const auto json, parseOptions(text));
    const auto type = json["type"].get<std::string>();
    SPECTRA_TRY(const Entry *entry, findEntry(type));
    SPECTRA_CHECK(checkShape(shape, type));
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

Result<std::string> defaultRouterOptions(const std::string &name)
{
    SPECTRA_CHECK(findEntry(name));
    return normaliseAny(name, Json::object());
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
        if (onCheckpoint && type == "spectra" && key == "sinkhorn_epsilon" && json.contains(key) && json.value("calibrated_epsilon", Json(0)) == Json(0))
            json["calibrated_epsilon"] = json[key];
        json[key] = value;
    }
    return normaliseAny(type, json);
}

} // namespace spectra
