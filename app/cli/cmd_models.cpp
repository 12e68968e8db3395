// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/cli.h"
#include "engine/run/catalog.h"
#include "engine/run/engine.h"
#include "engine/run/prompts.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <memory>

namespace spectra::cli {
namespace {

using nlohmann::ordered_json;

struct Flags {
    bool routers = false, architectures = false, json = false;
};

ordered_json routersJson()
{
    ordered_json list = ordered_json::array();
    for (const RouterEntry &r : routerCatalog()) {
        ordered_json options = ordered_json::array();
        for (const RouterOptionEntry &o : r.options) {
            ordered_json value = ordered_json::parse(o.defaultValue, nullptr, false);
            options.push_back({{"name", o.name},
                               {"type", o.type},
                               {"default", value.is_discarded() ? ordered_json(o.defaultValue) : value},
                               {"range", o.range},
                               {"meaning", o.meaning}});
        }
        list.push_back({{"name", r.name},
                        {"title", r.title},
                        {"source", r.source},
                        {"causal", r.causal},
                        {"assumptions", r.assumptions},
                        {"options", options}});
    }
    return list;
}

Result<void> models(const Common &common, const Flags &flags)
{
    if (flags.json) {
        ordered_json document;
        document["models"] = ordered_json::array();
        for (const BundledModel &m : Engine::bundledModels())
            document["models"].push_back({{"name", m.name},
                                          {"title", m.title},
                                          {"source", m.source},
                                          {"licence", m.licence},
                                          {"path", m.path.string()},
                                          {"present", m.present}});
        document["architectures"] = ordered_json::array();
        for (const ArchitectureEntry &a : architectureCatalog())
            document["architectures"].push_back(
                {{"name", a.name}, {"title", a.title}, {"formats", a.formats}, {"source", a.source}});
        document["routers"] = routersJson();
        document["samples"] = ordered_json::array();
        for (const SampleSet &s : sampleSets())
            document["samples"].push_back({{"name", s.name}, {"file", s.file.string()}, {"texts", s.texts}});
        outJson(document);
        return {};
    }
    (void)common;
    const bool all = !flags.routers && !flags.architectures;
    std::string text;
    if (all) {
        text += "Bundled models\n";
        for (const BundledModel &m : Engine::bundledModels())
            text += fmt::format("  {:<18} {} ({}; {})\n", m.name, m.title, m.licence, m.present ? "here" : "fetched on first use");
        text += "\nSample prompts\n";
        for (const SampleSet &s : sampleSets())
            text += fmt::format("  {:<18} {} texts  {}\n", s.name, s.texts, s.file.string());
        text += "\n";
    }
    if (all || flags.architectures) {
        text += "Architectures\n";
        for (const ArchitectureEntry &a : architectureCatalog())
            text += fmt::format("  {:<18} {} ({})\n", a.name, a.title, a.formats);
        text += all ? "\n" : "";
    }
    if (all || flags.routers) {
        text += "Routers\n";
        for (const RouterEntry &r : routerCatalog()) {
            text += fmt::format("  {:<18} {}{}\n", r.name, r.title, r.causal ? "" : " (not causal)");
            if (!flags.routers)
                continue;
            text += fmt::format("    source: {}\n", r.source);
            if (!r.assumptions.empty())
                text += fmt::format("    assumed: {}\n", r.assumptions);
            for (const RouterOptionEntry &o : r.options)
                text += fmt::format("    {:<34} {:<6} default {:<18} {}\n      {}\n", o.name, o.type, o.defaultValue, o.range, o.meaning);
        }
    }
    out(text);
    return {};
}

} // namespace

Command modelsCommand()
{
    return {"models", "Lists bundled models, architectures, routers and sample prompts", "spectra models --routers --json",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_flag("--routers", flags->routers, "Routers with every option");
                app.add_flag("--architectures", flags->architectures, "Model families that can be loaded");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return models(common, *flags); };
            }};
}

} // namespace spectra::cli
