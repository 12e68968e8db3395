// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/embedding/mapquality.h"
#include "analysis/embedding/pca.h"
#include "analysis/embedding/tsne.h"
#include "app/cli/jobrunner.h"
#include "app/cli/tracefile.h"
#include "engine/core/files.h"
#include "engine/core/npy.h"
#include "engine/core/random.h"
#include "engine/trace/arrayfile.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    std::string trace, input, output, what = "hidden", method = "tsne", init = "pca", metric = "euclidean", mode = "standard";
    double perplexity = 30;
    int iterations = 750, neighbors = 15, layer = -1;
    std::int64_t sample = 0;
    bool json = false;
};

/// What is embedded: rows, and for rows of a trace the token (or expert) of each.
struct Points {
    std::int64_t rows = 0, columns = 0;
    std::vector<float> values;
    std::vector<std::int64_t> label;
    std::string labelName;
};

Result<Points> pointsOfTrace(const Flags &flags, std::stop_token stop)
{
    SPECTRA_TRY(const auto traces, openTraces({flags.trace}));
    const TraceSource &trace = *traces.front();
    const auto info = trace.info();
    int layer = 0;
    if (flags.layer >= 0) {
        SPECTRA_TRY(layer, layerOrdinal(*info, flags.layer));
    } else if (info->layers() == 0) {
        return inputError("has no layers with experts", flags.trace);
    }
    Points points;
    if (flags.what == "experts") {
        for (Table table : {Table::meanExpression, Table::routerWeights, Table::expertInputMean}) {
            if (!info->has(table))
                continue;
            SPECTRA_TRY(const auto value, trace.table(table, layer));
            points.values = value->values;
            points.rows = value->shape.at(0);
            points.columns = points.rows > 0 ? static_cast<std::int64_t>(points.values.size()) / points.rows : 0;
            for (std::int64_t e = 0; e < points.rows; ++e)
                points.label.push_back(e);
            points.labelName = "expert";
            return points;
        }
        return usageError("the trace has no vectors of its experts", "--what experts", "trace with --capture standard");
    }
    const Column column = flags.what == "hidden" ? Column::hidden
        : flags.what == "routing"                ? Column::routingVectors
                                                 : Column::expressionVectors;
    if (!info->has(column))
        return usageError(fmt::format("the trace has no {} vectors ({})", flags.what, info->missingColumns.at(column)), "--what",
                          column == Column::hidden ? "trace with --capture standard,+hidden" : "trace with --capture standard,+vectors");
    SPECTRA_TRY(const auto block, trace.block(column, layer, {0, info->tokens}, stop));
    points.rows = block->rows;
    points.columns = block->width();
    points.values = block->f32;
    points.labelName = "token";
    for (std::int64_t i = 0; i < points.rows; ++i)
        points.label.push_back(block->token.empty() ? i : block->token[static_cast<std::size_t>(i)]);
    return points;
}

Result<Points> pointsOfFile(const std::string &file)
{
    SPECTRA_TRY(auto array, readNpy(file));
    if (array.shape.size() != 2)
        return inputError(fmt::format("has {} dimensions, expected [points, features]", array.shape.size()), file);
    Points points;
    points.rows = array.shape[0];
    points.columns = array.shape[1];
    points.values = std::move(array.values);
    if (points.rows == 0 || points.columns == 0)
        return inputError("is empty", file);
    return points;
}

void takeSample(Points &points, std::int64_t size, std::uint64_t seed)
{
    if (size <= 0 || size >= points.rows)
        return;
    std::vector<std::int64_t> order(static_cast<std::size_t>(points.rows));
    for (std::size_t i = 0; i < order.size(); ++i)
        order[i] = static_cast<std::int64_t>(i);
    Random random(seed, 0x5A);
    random.shuffle(order);
    order.resize(static_cast<std::size_t>(size));
    std::sort(order.begin(), order.end());
    Points kept;
    kept.rows = size;
    kept.columns = points.columns;
    kept.labelName = points.labelName.empty() ? "row" : points.labelName;
    for (std::int64_t row : order) {
        const auto first = points.values.begin() + row * points.columns;
        kept.values.insert(kept.values.end(), first, first + points.columns);
        kept.label.push_back(points.label.empty() ? row : points.label[static_cast<std::size_t>(row)]);
    }
    points = std::move(kept);
}

Result<void> write(const Common &common, const Flags &flags, const Points &points, const std::vector<float> &map)
{
    const std::filesystem::path place = flags.output;
    const std::vector<std::int64_t> shape{points.rows, 2};
    if (place.extension() == ".h5") {
        SPECTRA_TRY(auto file, ArrayFile::create(place, common.overwrite));
        SPECTRA_CHECK(file->write("/coordinates", shape, std::span<const float>(map)));
        if (!points.label.empty())
            SPECTRA_CHECK(file->write("/" + points.labelName, {points.rows}, std::span<const std::int64_t>(points.label)));
        SPECTRA_CHECK(file->attribute("/", "command_line", common.commandLine));
        return file->commit();
    }
    SPECTRA_TRY(auto file, AtomicFile::create(place, common.overwrite));
    if (place.extension() == ".npy") {
        writeNpy(file.stream(), shape, map);
    } else {
        file.stream() << (points.label.empty() ? "row" : points.labelName) << ",x,y\n";
        for (std::int64_t i = 0; i < points.rows; ++i) {
            const auto k = static_cast<std::size_t>(i);
            file.stream() << fmt::format("{},{},{}\n", points.label.empty() ? i : points.label[k], map[2 * k], map[2 * k + 1]);
        }
    }
    return file.commit();
}

Result<void> embed(const Common &common, const Flags &flags)
{
    if (flags.trace.empty() == flags.input.empty())
        return usageError("give either a trace or --input X.npy", "command line");
    if (flags.method == "umap")
        return usageError("UMAP is not in this version", "--method", "tsne or pca");
    const std::string extension = std::filesystem::path(flags.output).extension().string();
    if (!flags.output.empty()) {
        if (extension != ".h5" && extension != ".npy" && extension != ".csv")
            return usageError(fmt::format("unknown format '{}'", extension), "-o", ".h5, .npy or .csv");
        SPECTRA_CHECK(checkOutput(flags.output, common.overwrite));
    }
    InterruptGuard interrupt;
    SPECTRA_TRY(Points points, flags.input.empty() ? pointsOfTrace(flags, interrupt.token()) : pointsOfFile(flags.input));
    takeSample(points, flags.sample, common.seed);
    const MatrixView view{points.values.data(), points.rows, points.columns};
    const DistanceMetric metric = flags.metric == "cosine" ? DistanceMetric::cosine : DistanceMetric::euclidean;
    std::vector<float> map;
    std::optional<double> kl;
    EmbeddingSeconds seconds;
    if (flags.method == "pca") {
        PcaOptions options;
        options.seed = common.seed;
        SPECTRA_TRY(const auto result, pca(view, options, interrupt.token()));
        map.assign(static_cast<std::size_t>(points.rows) * 2, 0.f);
        for (std::int64_t i = 0; i < points.rows; ++i)
            for (int c = 0; c < std::min(2, result.components); ++c)
                map[static_cast<std::size_t>(2 * i + c)] = result.scores[static_cast<std::size_t>(i * result.components + c)];
        seconds.optimise = result.seconds;
    } else {
        TsneOptions options;
        options.perplexity = flags.perplexity;
        options.iterations = flags.iterations;
        options.exaggerationIterations = std::min(options.exaggerationIterations, flags.iterations / 3);
        options.init = flags.init == "random" ? TsneInit::random : TsneInit::pca;
        options.metric = metric;
        options.mode = flags.mode == "fast" ? TsneMode::fast : flags.mode == "accurate" ? TsneMode::accurate : TsneMode::standard;
        options.seed = common.seed;
        SPECTRA_TRY(auto result, tsne(view, options, interrupt.token(), {}, progressPrinter(common)));
        map = std::move(result.coordinates);
        kl = result.kl;
        seconds = result.seconds;
        for (const std::string &warning : result.warnings)
            note(common, "warning: " + warning);
    }
    SPECTRA_TRY(const auto quality, mapQuality(view, {map.data(), points.rows, 2}, metric, flags.neighbors, common.seed, interrupt.token()));
    if (!flags.output.empty())
        SPECTRA_CHECK(write(common, flags, points, map));
    const auto json = [](const std::optional<double> &v) { return v ? nlohmann::ordered_json(*v) : nlohmann::ordered_json(nullptr); };
    if (flags.json) {
        nlohmann::ordered_json document{{"method", flags.method}, {"points", points.rows}, {"features", points.columns}};
        document["kl"] = json(kl);
        document["trustworthiness"] = json(quality.trustworthiness);
        document["continuity"] = json(quality.continuity);
        document["knn_recall"] = {{"10", json(quality.knnRecall10)}, {"30", json(quality.knnRecall30)}, {"90", json(quality.knnRecall90)}};
        document["seconds"] = {{"knn", seconds.knn}, {"affinities", seconds.affinities}, {"optimise", seconds.optimise}};
        outJson(document);
    } else {
        std::string text = fmt::format("{} points, {} features\n", points.rows, points.columns);
        if (kl)
            text += fmt::format("KL divergence    {:.4f} nats\n", *kl);
        if (quality.trustworthiness)
            text += fmt::format("trustworthiness  {:.4f}\n", *quality.trustworthiness);
        if (quality.continuity)
            text += fmt::format("continuity       {:.4f}\n", *quality.continuity);
        if (quality.knnRecall10)
            text += fmt::format("kNN recall @10   {:.4f}\n", *quality.knnRecall10);
        out(text);
    }
    return {};
}

} // namespace

Command embedCommand()
{
    return {"embed", "t-SNE and PCA maps of a trace's vectors or of a .npy file",
            "spectra embed trace.h5 --what hidden --layer 3 -o map.csv",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("TRACE", flags->trace, "Trace (.h5)");
                app.add_option("--input", flags->input, "Points [n, d] as a .npy file, instead of a trace");
                app.add_option("--what", flags->what, "Which vectors of the trace")
                    ->check(CLI::IsMember({"hidden", "routing", "expression", "experts"}))->capture_default_str();
                app.add_option("--method", flags->method, "tsne or pca")->check(CLI::IsMember({"tsne", "pca", "umap"}))->capture_default_str();
                app.add_option("--perplexity", flags->perplexity, "Effective number of neighbours (t-SNE)")
                    ->check(CLI::Range(1.0, 10000.0))->capture_default_str();
                app.add_option("--iterations", flags->iterations, "Iterations (t-SNE)")->check(CLI::Range(1, 1000000))->capture_default_str();
                app.add_option("--init", flags->init, "Start of the map (t-SNE)")->check(CLI::IsMember({"pca", "random"}))->capture_default_str();
                app.add_option("--mode", flags->mode, "Fineness of the repulsion grid (t-SNE)")
                    ->check(CLI::IsMember({"fast", "standard", "accurate"}))->capture_default_str();
                app.add_option("--neighbors", flags->neighbors, "Neighbours of trustworthiness and continuity")
                    ->check(CLI::Range(1, 1000))->capture_default_str();
                app.add_option("--metric", flags->metric, "Distance")->check(CLI::IsMember({"euclidean", "cosine"}))->capture_default_str();
                app.add_option("--layer", flags->layer, "Decoder layer (default: the first traced)")->check(CLI::NonNegativeNumber);
                app.add_option("--sample", flags->sample, "At most so many rows, seeded (0: all)")->check(CLI::NonNegativeNumber)->capture_default_str();
                app.add_option("-o,--output", flags->output, "Coordinates as .h5, .npy or .csv");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return embed(common, *flags); };
            }};
}

} // namespace spectra::cli
