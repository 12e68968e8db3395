// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/metric.h"
#include "app/cli/jobrunner.h"
#include "app/cli/metrictable.h"
#include "app/cli/tracefile.h"
#include "engine/core/files.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    std::vector<std::string> files, only, by;
    std::string csv, tex;
    bool list = false, json = false, ci = false;
};

Result<void> list(bool json)
{
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    std::string text;
    for (const MetricInfo &m : metricTable()) {
        if (json)
            array.push_back({{"key", m.key}, {"name", m.name}, {"definition", m.definition}, {"unit", m.unit},
                             {"better", toString(m.better)}, {"source", m.source}, {"group", toString(m.group)},
                             {"label_dependent", m.labelDependent}});
        else
            text += fmt::format("{:<40} {:<8} {:<8} {}\n{:<40} {}\n", m.key, toString(m.better), m.unit, m.definition, "", m.source);
    }
    if (json)
        outJson(nlohmann::ordered_json{{"metrics", array}});
    else
        out(text);
    return {};
}

Result<void> write(const Common &common, const std::string &file, const std::string &text)
{
    SPECTRA_TRY(auto target, AtomicFile::create(file, common.overwrite));
    target.stream() << text;
    return target.commit();
}

Result<void> metrics(const Common &common, const Flags &flags)
{
    if (flags.list)
        return list(flags.json);
    if (flags.files.empty())
        return usageError("no trace", "command line", "spectra metrics T.h5, or --list");
    MetricBreakdown by;
    for (const std::string &group : flags.by) {
        if (group == "layer")
            by.layer = true;
        else if (group == "domain")
            by.domain = true;
        else if (group == "sequence")
            by.sequence = true;
        else if (group == "phase")
            by.phase = true;
        else
            return usageError(fmt::format("unknown breakdown '{}'", group), "--by", "layer, domain, sequence, phase");
    }
    for (const std::string &place : {flags.csv, flags.tex})
        if (!place.empty())
            SPECTRA_CHECK(checkOutput(place, common.overwrite));
    for (const std::string &key : flags.only)
        if (findMetric(key) == nullptr)
            return usageError(fmt::format("unknown metric '{}'", key), "--only", "spectra metrics --list names them");
    SPECTRA_TRY(const auto traces, openTraces(flags.files));
    MetricOptions options;
    options.keys = flags.only;
    options.byDomain = by.domain;
    options.bySequence = by.sequence;
    options.byPhase = by.phase;
    options.matrices = false;
    options.intervals = flags.ci;
    options.seed = common.seed;
    InterruptGuard interrupt;
    nlohmann::ordered_json documents = nlohmann::ordered_json::array();
    std::string text, csv, tex;
    for (std::size_t i = 0; i < traces.size(); ++i) {
        auto report = evaluateMetrics(*traces[i], options, interrupt.token(), progressPrinter(common));
        if (!report)
            return report.error().in(flags.files[i]);
        documents.push_back({{"file", flags.files[i]}, {"metrics", metricsJson(*report, by)}});
        if (traces.size() > 1) {
            text += flags.files[i] + "\n";
            csv += "# " + flags.files[i] + "\n";
            tex += "% " + flags.files[i] + "\n";
        }
        text += metricsText(*report);
        csv += metricsCsv(*report, by);
        tex += metricsTex(*report);
    }
    if (!flags.csv.empty())
        SPECTRA_CHECK(write(common, flags.csv, csv));
    if (!flags.tex.empty())
        SPECTRA_CHECK(write(common, flags.tex, tex));
    if (flags.json)
        outJson(traces.size() == 1 ? nlohmann::ordered_json{{"metrics", documents[0]["metrics"]}}
                                : nlohmann::ordered_json{{"traces", documents}});
    else
        out(text);
    return {};
}

} // namespace

Command metricsCommand()
{
    return {"metrics", "Every metric of one or more traces", "spectra metrics trace.h5 --by layer,domain --ci --json",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("TRACE", flags->files, "Traces (.h5)");
                app.add_flag("--list", flags->list, "The metrics with definition, unit, direction and source");
                app.add_option("--only", flags->only, "These keys only: k1,k2")->delimiter(',')->type_size(1)->expected(1)->take_all();
                app.add_option("--by", flags->by, "Break down by layer,domain,sequence,phase")->delimiter(',')->type_size(1)->expected(1)->take_all();
                app.add_flag("--ci", flags->ci, "95 % intervals by resampling sequences");
                app.add_option("--csv", flags->csv, "Write a CSV file");
                app.add_option("--tex", flags->tex, "Write a LaTeX table");
                app.add_flag("--json", flags->json, "One JSON document");
                return [flags, &common] { return metrics(common, *flags); };
            }};
}

} // namespace spectra::cli
