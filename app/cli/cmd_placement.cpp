// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/placement/grace.h"
#include "app/cli/cli.h"
#include "app/cli/jobrunner.h"
#include "app/cli/tracefile.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <memory>
#include <optional>

namespace spectra::cli {
namespace {

struct Flags {
    std::string file;
    PlacementOptions options;
    std::optional<double> ratio;
    std::optional<int> layer;
    bool noCopies = false, json = false;
};

/// Tokens read at once.
constexpr std::int64_t kChunk = 1 << 16;

/// The choices of one layer's counted tokens, [n, slots].
Result<std::vector<std::uint16_t>> choices(const TraceSource &trace, int layer, std::stop_token stop)
{
    const auto info = trace.info();
    std::vector<std::uint16_t> chosen;
    for (std::int64_t first = 0; first < info->tokens; first += kChunk) {
        const TokenRange range{first, std::min(info->tokens, first + kChunk)};
        SPECTRA_TRY(const auto tokens, trace.tokens(range, stop));
        SPECTRA_TRY(const auto block, trace.block(Column::experts, layer, range, stop));
        const auto slots = static_cast<std::size_t>(info->slots);
        for (std::size_t t = 0; t < static_cast<std::size_t>(range.size()); ++t)
            if (tokens->mask.empty() || tokens->mask[t] != 0)
                chosen.insert(chosen.end(), block->u16.begin() + static_cast<std::ptrdiff_t>(t * slots), block->u16.begin() + static_cast<std::ptrdiff_t>((t + 1) * slots));
    }
    return chosen;
}

nlohmann::ordered_json forecastJson(const PlacementForecast &f)
{
    return {{"load", f.load},           {"imbalance", f.imbalance},       {"leaves_gpu", f.leavesGpu},
            {"leaves_node", f.leavesNode}, {"gpus_reached", f.gpusReached}, {"nodes_reached", f.nodesReached}};
}

nlohmann::ordered_json planJson(int decoderLayer, const LayerPlacement &p)
{
    nlohmann::ordered_json tried = nlohmann::ordered_json::array();
    for (const RatioPoint &point : p.tried)
        tried.push_back({{"ratio", point.ratio}, {"spread", point.spread}, {"inside", point.inside}});
    return {{"layer", decoderLayer}, {"ratio", p.ratio},   {"tried", tried},         {"nodes", p.nodes},
            {"gpus", p.gpus},        {"heaviest", p.heaviest}, {"copied", p.copied}, {"copies_on", p.copiesOn},
            {"predicted_load", p.predicted}, {"contiguous", forecastJson(p.contiguous)}, {"grouped", forecastJson(p.grouped)}, {"replicated", forecastJson(p.replicated)}};
}

std::string planText(int decoderLayer, const LayerPlacement &p, int perNode)
{
    std::string text = fmt::format("layer {}, ratio {:.2f}\n  {:<28}{:>10}{:>12}{:>12}{:>12}{:>12}\n", decoderLayer, p.ratio, "", "max/mean", "leave GPU", "leave node",
                                   "GPUs/token", "nodes/token");
    for (const auto &[name, f] : {std::pair("neighbours together (usual)", &p.contiguous), std::pair("grouped by affinity", &p.grouped), std::pair("grouped, with copies", &p.replicated)})
        text += fmt::format("  {:<28}{:>10.3f}{:>11.1f}%{:>11.1f}%{:>12.3f}{:>12.3f}\n", name, f->imbalance, 100 * f->leavesGpu, 100 * f->leavesNode, f->gpusReached, f->nodesReached);
    for (std::size_t g = 0; g < p.gpus.size(); ++g) {
        text += fmt::format("  node {} GPU {}: {}", g / static_cast<std::size_t>(perNode), g % static_cast<std::size_t>(perNode), fmt::join(p.gpus[g], " "));
        if (std::find(p.copiesOn.begin(), p.copiesOn.end(), static_cast<int>(g)) != p.copiesOn.end())
            text += fmt::format("  + copies of {}", fmt::join(p.copied, " "));
        text += '\n';
    }
    return text;
}

Result<void> placement(const Common &common, const Flags &flags)
{
    SPECTRA_TRY(const auto traces, openTraces({flags.file}));
    const TraceSource &trace = *traces.front();
    const auto info = trace.info();
    PlacementOptions options = flags.options;
    options.ratio = flags.ratio.value_or(-1);
    options.replicate = !flags.noCopies;
    options.seed = common.seed;
    std::vector<int> layers;
    if (flags.layer) {
        SPECTRA_TRY(const int ordinal, layerOrdinal(*info, *flags.layer));
        layers.push_back(ordinal);
    } else {
        for (int l = 0; l < info->layers(); ++l)
            layers.push_back(l);
    }
    if (layers.empty())
        return inputError("has no mixture-of-experts layers", flags.file, "trace a model with experts");
    InterruptGuard interrupt;
    nlohmann::ordered_json plans = nlohmann::ordered_json::array();
    std::string text;
    for (const int layer : layers) {
        SPECTRA_TRY(const auto chosen, choices(trace, layer, interrupt.token()));
        auto plan = planPlacement(chosen, info->slots, info->experts, options, interrupt.token());
        if (!plan)
            return plan.error().kind == ErrorKind::input ? plan.error().in(flags.file) : plan.error();
        const int decoderLayer = info->decoderIndex[static_cast<std::size_t>(layer)];
        plans.push_back(planJson(decoderLayer, *plan));
        text += planText(decoderLayer, *plan, options.gpusPerNode);
    }
    if (flags.json)
        outJson({{"nodes", options.nodes}, {"gpus_per_node", options.gpusPerNode}, {"layers", plans}});
    else
        out(text);
    return {};
}

} // namespace

Command placementCommand()
{
    return {"placement", "Where a trace's experts should lie on a cluster (GRACE-MoE), with predicted balance and traffic",
            "spectra placement trace.h5 --nodes 2 --gpus 4",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("TRACE", flags->file, "Trace (.h5)")->required();
                app.add_option("--nodes", flags->options.nodes, "Nodes of the cluster")->required()->check(CLI::Range(1, 65536));
                app.add_option("--gpus", flags->options.gpusPerNode, "GPUs of each node")->required()->check(CLI::Range(1, 65536));
                app.add_option("--ratio", flags->ratio, "How far a GPU's number of experts may be from the node's mean, as a share of it (default: the knee, per layer)")
                    ->check(CLI::Range(0.0, 1.0));
                app.add_option("--layer", flags->layer, "This decoder layer only");
                app.add_flag("--no-copies", flags->noCopies, "Group only, copy no expert");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return placement(common, *flags); };
            }};
}

} // namespace spectra::cli
