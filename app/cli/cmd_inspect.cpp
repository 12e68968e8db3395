// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/cli.h"
#include "engine/core/files.h"
#include "engine/core/jsontext.h"
#include "engine/run/catalog.h"
#include "engine/run/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/trace/arrayfile.h"
#include "engine/trace/tracereader.h"
#include "engine/trace/validator.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>

namespace spectra::cli {
namespace fs = std::filesystem;
using nlohmann::ordered_json;
namespace {

struct Flags {
    std::string file;
    bool json = false, validate = false, tensors = false;
};

std::string bytesText(double bytes)
{
    const char *units[] = {"B", "KB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        ++unit;
    }
    return unit == 0 ? fmt::format("{:.0f} B", bytes) : fmt::format("{:.2f} {}", bytes, units[unit]);
}

/// A flat JSON object as aligned lines.
std::string lines(const ordered_json &document)
{
    std::string text;
    for (const auto &[key, value] : document.items())
        if (!value.is_array() || (value.size() <= 64 && (value.empty() || !value[0].is_object())))
            text += fmt::format("{:<24} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    return text;
}

Result<void> validateTraceFile(const Flags &flags)
{
    SPECTRA_CHECK(probeTrace(flags.file));
    const auto findings = validateTrace(flags.file);
    ordered_json list = ordered_json::array();
    std::string text;
    for (const Finding &f : findings) {
        const bool wrong = f.severity == Finding::Severity::error;
        list.push_back({{"severity", wrong ? "error" : "warning"}, {"place", f.place}, {"what", f.what}});
        text += fmt::format("{}: {}: {}\n", wrong ? "error" : "warning", f.place, f.what);
    }
    const bool valid = !hasErrors(findings);
    if (flags.json)
        outJson({{"kind", "trace"}, {"valid", valid}, {"findings", list}});
    else
        out(text + (valid ? "valid\n" : ""));
    if (!valid)
        return inputError("is not a valid trace", flags.file, "the findings are listed above");
    return {};
}

Result<void> inspectTrace(const Flags &flags)
{
    SPECTRA_TRY(const auto trace, openTrace(flags.file));
    const auto info = trace->info();
    SPECTRA_TRY(const auto datasets, listDatasets(flags.file));
    ordered_json document{{"kind", "trace"},
                          {"file", flags.file},
                          {"format_version", info->formatVersion},
                          {"complete", info->complete},
                          {"uuid", info->uuid},
                          {"created", info->created},
                          {"generator", info->generator},
                          {"model", info->model.name},
                          {"architecture", info->model.architecture},
                          {"router", info->model.router},
                          {"sinkhorn_scope", info->model.sinkhornScope},
                          {"note", info->model.note},
                          {"tokens", info->tokens},
                          {"sequences", info->sequences},
                          {"layers", info->decoderIndex},
                          {"experts", info->experts},
                          {"top_k", info->slots},
                          {"router_dim", info->routerDim},
                          {"hidden", info->hidden},
                          {"domains", info->domains},
                          {"bytes", static_cast<std::uint64_t>(fs::file_size(flags.file))}};
    ordered_json list = ordered_json::array();
    for (const DatasetSummary &d : datasets)
        list.push_back({{"path", d.path}, {"type", d.type}, {"shape", d.shape}, {"bytes", d.bytes}});
    document["datasets"] = list;
    if (flags.json) {
        outJson(document);
        return {};
    }
    std::string text = lines(document) + "\n";
    for (const DatasetSummary &d : datasets)
        text += fmt::format("{:<36} {:<10} {:<22} {}\n", d.path, d.type, fmt::format("[{}]", fmt::join(d.shape, ", ")), bytesText(static_cast<double>(d.bytes)));
    out(text);
    return {};
}

Result<void> inspectCheckpoint(const Flags &flags, const fs::path &path)
{
    SPECTRA_TRY(const auto d, describeCheckpoint(path));
    if (flags.validate) {
        // Opening has checked every header, offset and shape; reading the tokenizer checks the rest that a run needs.
        SPECTRA_TRY(const auto tokenizer, openTokenizer(path));
        if (flags.json)
            outJson({{"kind", "checkpoint"}, {"valid", true}, {"findings", ordered_json::array()}});
        else
            out("valid\n");
        return {};
    }
    ordered_json document{{"kind", "checkpoint"},
                          {"path", d.path},
                          {"format", d.format},
                          {"architecture", d.architecture},
                          {"model_type", d.modelType},
                          {"name", d.name},
                          {"parameters", d.parameters},
                          {"layers", d.layers},
                          {"hidden", d.hidden},
                          {"vocabulary", d.vocabulary},
                          {"context", d.context},
                          {"experts", d.experts},
                          {"top_k", d.topK},
                          {"moe_layers", d.moeLayers},
                          {"router", d.router.empty() ? ordered_json(nullptr) : ordered_json::parse(d.router, nullptr, false)},
                          {"note", d.note},
                          {"stored_bytes", d.storedBytes},
                          {"memory", {{"weights_f32", d.weightMemory}, {"cache_per_token", d.cacheMemoryPerToken}}}};
    ordered_json metadata = ordered_json::object();
    for (const auto &[key, value] : d.metadata)
        metadata[key] = value;
    document["metadata"] = metadata;
    ordered_json tensors = ordered_json::array();
    for (const auto &t : d.tensors)
        tensors.push_back({{"name", t.name}, {"source_name", t.sourceName}, {"dtype", t.dtype}, {"shape", t.shape}, {"bytes", t.bytes}, {"file", t.file}});
    document["tensors"] = tensors;
    if (flags.json) {
        outJson(document);
        return {};
    }
    document.erase("metadata");
    std::string text = lines(document);
    text += fmt::format("{:<24} {} weights as float32, {} per token of context\n", "memory", bytesText(static_cast<double>(d.weightMemory)), bytesText(static_cast<double>(d.cacheMemoryPerToken)));
    if (flags.tensors)
        for (const auto &t : d.tensors)
            text += fmt::format("{:<60} {:<6} {:<22} {}\n", t.name, t.dtype, fmt::format("[{}]", fmt::join(t.shape, ", ")), bytesText(static_cast<double>(t.bytes)));
    else
        text += fmt::format("{:<24} {} (--tensors lists them)\n", "tensors", d.tensors.size());
    out(text);
    return {};
}

Result<void> inspectJson(const Flags &flags, const fs::path &path)
{
    SPECTRA_TRY(const std::string content, readTextFile(path, std::uint64_t(1) << 28));
    SPECTRA_CHECK(checkJsonText(content, flags.file));
    const ordered_json json = ordered_json::parse(content, nullptr, false);
    if (json.is_discarded() || !json.is_object())
        return inputError("is not a JSON object", flags.file);
    if (json.contains("format") && json["format"] == "spectra-session") {
        if (flags.json)
            outJson({{"kind", "session"}, {"content", json}});
        else
            out("session\n" + lines(json));
        return {};
    }
    SPECTRA_TRY(const auto tokenizer, Tokenizer::fromJsonFile(path));
    ordered_json document{{"kind", "tokenizer"},
                          {"file", flags.file},
                          {"size", tokenizer->size()},
                          {"adds_bos", tokenizer->addsBos()},
                          {"bos", tokenizer->bos() ? ordered_json(*tokenizer->bos()) : ordered_json(nullptr)},
                          {"eos", tokenizer->eos() ? ordered_json(*tokenizer->eos()) : ordered_json(nullptr)},
                          {"sha256", tokenizer->sha256()}};
    if (flags.json)
        outJson(document);
    else
        out(lines(document));
    return {};
}

Result<void> inspect(const Flags &flags)
{
    std::error_code ignored;
    const fs::path given = flags.file;
    if (fs::is_regular_file(given, ignored)) {
        const std::string extension = given.extension().string();
        if (extension == ".h5" || extension == ".part" || isHdf5(given))
            return flags.validate ? validateTraceFile(flags) : inspectTrace(flags);
        if (extension == ".json" || extension == ".spectra-session")
            return inspectJson(flags, given);
    }
    SPECTRA_TRY(const fs::path path, Engine::resolveModel(flags.file));
    return inspectCheckpoint(flags, path);
}

} // namespace

Command inspectCommand()
{
    return {"inspect", "What a checkpoint, tokenizer, trace or session is", "spectra inspect trace.h5 --validate",
            [](CLI::App &app, const Common &) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("FILE", flags->file, "Checkpoint folder, .gguf, tokenizer.json, trace or session")->required();
                app.add_flag("--validate", flags->validate, "Check all of it; exit 3 with the findings");
                app.add_flag("--tensors", flags->tensors, "List every tensor");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags] { return inspect(*flags); };
            }};
}

} // namespace spectra::cli
