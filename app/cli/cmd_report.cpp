// SPDX-License-Identifier: GPL-3.0-or-later
#include "analysis/metrics/evaluate.h"
#include "analysis/metrics/metric.h"
#include "app/cli/htmlpage.h"
#include "app/cli/jobrunner.h"
#include "app/cli/metrictable.h"
#include "app/cli/painting.h"
#include "app/cli/studyreport.h"
#include "app/cli/tracefile.h"
#include "engine/core/files.h"
#include "engine/core/version.h"
#include "views/viewfactory.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <filesystem>
#include <memory>

#undef slots // Qt's keyword is a field of TraceInfo here

namespace spectra::cli {
namespace fs = std::filesystem;
namespace {

struct Flags {
    std::vector<std::string> files;
    std::string output, theme = "light";
};

std::string metricsTable(const MetricReport &report)
{
    std::string text = "<table><thead><tr><th>Metric</th><th class=n>Value</th><th class=n>95&nbsp;% interval</th><th class=n>Chance</th>"
                       "<th>Better</th><th>Unit</th></tr></thead><tbody>\n";
    std::string absent;
    for (const MetricResult &m : report.metrics) {
        const MetricInfo *info = findMetric(m.key);
        const std::string name = info != nullptr ? info->name : m.key;
        const std::string definition = info != nullptr ? info->definition : "";
        if (!m.overall.value) {
            absent += fmt::format("<dt><code>{}</code></dt><dd>{}</dd>\n", html(m.key), html(m.absent.empty() ? "not defined on this trace" : m.absent));
            continue;
        }
        const std::string interval = m.overall.low && m.overall.high
            ? fmt::format("{} to {}", shortNumber(m.overall.low), shortNumber(m.overall.high)) : "";
        text += fmt::format("<tr title=\"{}\"><td>{}<br><code>{}</code></td><td class=n>{}</td><td class=n>{}</td><td class=n>{}</td><td>{}</td><td>{}</td></tr>\n",
                            html(definition), html(name), html(m.key), shortNumber(m.overall.value), interval,
                            shortNumber(m.overall.chance), info != nullptr ? toString(info->better) : "",
                            html(info != nullptr ? info->unit : ""));
    }
    text += "</tbody></table>\n";
    if (!absent.empty())
        text += "<h3>Not measured</h3>\n<dl>" + absent + "</dl>\n";
    return text;
}

std::string facts(const TraceInfo &info)
{
    std::string text = "<dl>";
    const auto fact = [&](const char *name, const std::string &value) {
        if (!value.empty())
            text += fmt::format("<dt>{}</dt><dd>{}</dd>\n", name, html(value));
    };
    std::string domains;
    for (const std::string &d : info.domains)
        domains += (domains.empty() ? "" : ", ") + (d.empty() ? std::string("(none)") : d);
    fact("Model", info.model.name);
    fact("Architecture", info.model.architecture);
    fact("Router", info.model.router);
    fact("Routing scope", info.model.sinkhornScope);
    fact("Note", info.model.note);
    fact("Layers with experts", std::to_string(info.layers()));
    fact("Experts, per token", fmt::format("{}, {}", info.experts, info.slots));
    fact("Tokens, sequences", fmt::format("{}, {}", info.tokens, info.sequences));
    fact("Domains", domains);
    fact("Checkpoint SHA-256", info.model.checkpointSha256);
    fact("Trace", fmt::format("{} ({})", info.uuid, info.created));
    fact("Command", info.environment.commandLine);
    return text + "</dl>\n";
}

Result<void> report(const Common &common, const Flags &flags)
{
    SPECTRA_TRY(const ThemeKind theme, parseTheme(flags.theme));
    for (const std::string &file : flags.files) {
        std::error_code ignored;
        if (fs::is_directory(file, ignored))
            return flags.files.size() == 1 ? reportStudy(common, file, flags.output, theme)
                                           : usageError("a study is reported by itself", file, "give one folder of a study, or traces (.h5)");
    }
    SPECTRA_CHECK(checkOutput(flags.output, common.overwrite));
    SPECTRA_TRY(const auto traces, openTraces(flags.files));
    InterruptGuard interrupt;
    SPECTRA_TRY(auto folder, AtomicFolder::create(flags.output, common.overwrite));
    const fs::path root = folder.temporary();
    std::error_code error;
    fs::create_directory(root / "figures", error);
    fs::create_directory(root / "tables", error);
    if (error)
        return workError("cannot be written: " + error.message(), flags.output);
    const OffscreenApplication application;
    std::string body;
    for (std::size_t i = 0; i < traces.size(); ++i) {
        const auto info = traces[i]->info();
        const std::string stem = traces.size() == 1 ? "" : fmt::format("{}-", i + 1);
        body += fmt::format("<h2>{}</h2>\n{}", html(fs::path(flags.files[i]).filename().string()), facts(*info));
        body += "<h2>Figures</h2>\n<div class=figures>\n";
        for (const FigureKind &kind : figureKinds()) {
            if (kind.viewId.isEmpty())
                continue;
            if (interrupt.token().stop_requested())
                return cancelledError();
            note(common, "drawing " + kind.kind.toStdString());
            FigureOptions options;
            options.theme = theme;
            options.sizeMm = QSizeF(170, 110);
            options.dpi = 150;
            options.commandLine = QString::fromStdString(common.commandLine);
            const std::string name = "figures/" + stem + kind.kind.toStdString();
            bool drawn = true;
            for (const char *extension : {".svg", ".pdf", ".png"}) {
                const auto done = renderFigure(kind.kind, {traces[i]}, options, QString::fromStdString((root / (name + extension)).string()));
                if (!done.ok()) {
                    // A kind that this trace has no data for is named in the page; a disk that is full ends the report.
                    if (done.error().kind == ErrorKind::work)
                        return done.error();
                    body += fmt::format("<figure><figcaption>{}: {}</figcaption></figure>\n", html(kind.description.toStdString()), html(done.error().what));
                    drawn = false;
                    break;
                }
            }
            if (!drawn)
                continue;
            const std::string csv = "tables/" + stem + kind.kind.toStdString() + ".csv";
            const bool data = writeFigureData(kind.kind, {traces[i]}, options, QString::fromStdString((root / csv).string())).ok();
            body += fmt::format("<figure><img src=\"{0}.png\" alt=\"{1}\"><figcaption>{1} · <a href=\"{0}.pdf\">PDF</a> · <a href=\"{0}.svg\">SVG</a>{2}</figcaption></figure>\n",
                                name, html(kind.description.toStdString()), data ? fmt::format(" · <a href=\"{}\">CSV</a>", csv) : "");
        }
        body += "</div>\n";
        note(common, "measuring");
        MetricOptions options;
        options.intervals = true;
        options.matrices = false;
        options.seed = common.seed;
        auto metrics = evaluateMetrics(*traces[i], options, interrupt.token(), {});
        if (!metrics)
            return metrics.error().in(flags.files[i]);
        SPECTRA_CHECK(writeText(root / "tables" / (stem + "metrics.csv"), metricsCsv(*metrics, {true, true, false, false})));
        SPECTRA_CHECK(writeText(root / "tables" / (stem + "metrics.tex"), metricsTex(*metrics)));
        body += fmt::format("<h2>Metrics</h2>\n<p class=note>{} counted tokens; intervals by resampling sequences. "
                            "<a href=\"tables/{}metrics.csv\">CSV</a> · <a href=\"tables/{}metrics.tex\">LaTeX</a></p>\n{}",
                            metrics->countedTokens, stem, stem, metricsTable(*metrics));
    }
    const std::string page = htmlPage("Routing report", fmt::format("Written by spectra {}. Every number was measured on the traces named here.", programVersion()), body);
    SPECTRA_CHECK(writeText(root / "index.html", page));
    SPECTRA_CHECK(folder.commit());
    note(common, fmt::format("wrote {}/index.html", flags.output));
    return {};
}

} // namespace

Command reportCommand()
{
    return {"report", "Every figure and table of traces or of a study, and an HTML page", "spectra report trace.h5 -o report",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("TRACE", flags->files, "Traces (.h5), or the folder of a study")->required();
                app.add_option("-o,--output", flags->output, "Folder to write")->required();
                app.add_option("--theme", flags->theme, "Colours of the figures")->check(CLI::IsMember({"print", "light", "dark"}))->capture_default_str();
                return [flags, &common] { return report(common, *flags); };
            }};
}

} // namespace spectra::cli
