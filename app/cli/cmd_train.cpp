// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/jobrunner.h"
#include "app/cli/options.h"
#include "engine/core/files.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>

namespace spectra::cli {
namespace fs = std::filesystem;
namespace {

struct Flags {
    std::string config, output;
    std::vector<std::string> set;
    std::int64_t maxSteps = 0;
    bool resume = false, dryRun = false, json = false;
};

std::string bytes(double n)
{
    return n >= 1e9 ? fmt::format("{:.1f} GB", n / 1e9) : fmt::format("{:.1f} MB", n / 1e6);
}

std::string duration(double seconds)
{
    return seconds >= 7200 ? fmt::format("{:.1f} h", seconds / 3600) : seconds >= 120 ? fmt::format("{:.0f} min", seconds / 60) : fmt::format("{:.0f} s", seconds);
}

void printDryRun(const nlohmann::ordered_json &d)
{
    std::string text = fmt::format("{}\n", d["name"].get<std::string>());
    text += fmt::format("parameters       {:.2f} M\n", d["parameters"].get<double>() / 1e6);
    const auto &memory = d["memory"];
    text += fmt::format("memory           {} of {} free (weights {}, gradients {}, optimiser {}, activations {})\n", bytes(memory["total"]), bytes(memory["available"]),
                        bytes(memory["weights"]), bytes(memory["gradients"]), bytes(memory["optimizer"]), bytes(memory["activations"]));
    text += fmt::format("operations       {:.2f} GFLOP per token and step, router {:.1f} %\n", d["flops_per_token"]["total"].get<double>() / 1e9,
                        100 * d["router_flops_share"].get<double>());
    text += fmt::format("time             about {} for {:.3g} tokens at half of the {:.0f} GFLOP/s measured now\n", duration(d["seconds"]), d["tokens"].get<double>(),
                        d["machine_flops_per_s"].get<double>() / 1e9);
    text += fmt::format("disk             {} of {} free\n", bytes(d["disk"]["needed"]), bytes(d["disk"]["available"]));
    for (const auto &missing : d["missing"])
        text += missing.contains("file") ? fmt::format("missing          {} ({})\n", missing["file"].get<std::string>(), missing["domain"].get<std::string>())
                                         : fmt::format("missing          checkpoint {}: sizes are those of the configuration\n", missing["checkpoint"].get<std::string>());
    out(text);
}

void printResult(const nlohmann::ordered_json &d)
{
    // What no text was held out for is null.
    const auto number = [](const nlohmann::ordered_json &value, int decimals) { return value.is_number() ? fmt::format("{:.{}f}", value.get<double>(), decimals) : std::string("-"); };
    std::string text = fmt::format("held-out loss {} (perplexity {}){} after {} steps, {:.0f} tokens/s\n", number(d["held_out_loss"], 4), number(d["perplexity"], 2),
                                   d["causal"] == false ? ", not causal," : "", d["steps"].get<std::int64_t>(), d["tokens_per_s"].get<double>());
    for (const auto &item : d["domains"].items())
        text += fmt::format("  {:<20} {}\n", item.key(), number(item.value()["loss"], 4));
    if (d.contains("metrics"))
        for (const char *key : {"load_cv", "gram_orthogonality.expression", "sequential_consistency", "expert_overlap_types"})
            if (d["metrics"].contains(key) && d["metrics"][key]["value"].is_number())
                text += fmt::format("  {:<30} {:.4f}\n", key, d["metrics"][key]["value"].get<double>());
    out(text);
}

Result<void> train(const Common &common, const Flags &flags)
{
    TrainRequest request;
    SPECTRA_TRY(request.config, readTextFile(flags.config, 1 << 20));
    request.where = flags.config;
    request.folder = fs::path(flags.config).parent_path();
    request.set = flags.set;
    if (common.seedGiven)
        request.set.push_back(fmt::format("training.seed={}", common.seed));
    request.output = flags.output;
    request.overwrite = common.overwrite;
    request.resume = flags.resume;
    request.dryRun = flags.dryRun;
    request.maxSteps = flags.maxSteps;
    request.device = common.device;
    request.commandLine = common.commandLine;
    SPECTRA_TRY(const Summary summary, runJob(common, std::move(request)));
    if (summary.document.empty() && summary.output.empty())
        return {}; // one of several processes: the first one speaks
    if (summary.document.empty()) {
        const nlohmann::ordered_json document{{"output", flags.output}, {"finished", false}, {"tokens", summary.tokens}, {"seconds", summary.seconds}};
        if (flags.json)
            outJson(document);
        else
            out(fmt::format("stopped as asked; --resume goes on in {}\n", flags.output));
        return {};
    }
    const auto document = nlohmann::ordered_json::parse(summary.document);
    if (flags.json)
        outJson(document);
    else if (flags.dryRun)
        printDryRun(document);
    else
        printResult(document);
    if (flags.dryRun && !document["fits"].get<bool>())
        return inputError(document["reason"].get<std::string>(), flags.config, "a smaller model or batch, activation_checkpointing, or a larger machine");
    return {};
}

} // namespace

Command trainCommand()
{
    return {"train", "Trains or continues a model: from scratch, upcycled, or its router only", "spectra train config.json -o run --set training.steps=500",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("CONFIG", flags->config, "Configuration (JSON)")->required();
                app.add_option("-o,--output", flags->output, "Folder of the run");
                app.add_flag("--resume", flags->resume, "Go on from the newest checkpoint in the folder");
                app.add_option("--set", flags->set, "Setting a.b=value over the configuration (repeatable)")->type_size(1)->expected(1)->take_all();
                app.add_option("--max-steps", flags->maxSteps, "Stop with a checkpoint after this many steps in all")->check(CLI::Range(std::int64_t(1), std::int64_t(1) << 40));
                app.add_flag("--dry-run", flags->dryRun, "Only say what it would need: memory, time, disk");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return train(common, *flags); };
            }};
}

} // namespace spectra::cli
