// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/studyreport.h"

#include "app/cli/htmlpage.h"
#include "app/cli/jobrunner.h"
#include "app/cli/painting.h"
#include "engine/core/files.h"
#include "engine/core/version.h"
#include "engine/run/prompts.h"
#include "engine/study/outputs.h"
#include "engine/study/tabletext.h"
#include "views/plotview.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>

#undef slots // Qt's keyword is a field of TraceInfo here

namespace spectra::cli {
namespace fs = std::filesystem;
namespace {

PlotData plotOf(const study::FigureData &figure)
{
    PlotData plot;
    plot.title = QString::fromStdString(figure.title);
    plot.xTitle = QString::fromStdString(figure.xTitle);
    plot.yTitle = QString::fromStdString(figure.yTitle);
    plot.logX = figure.logX;
    plot.logY = figure.logY;
    std::string shown;
    int color = -1;
    for (const study::FigureSeries &s : figure.series) {
        // A fitted line takes the hue of the points before it: "A", "A, fit".
        if (shown.empty() || !s.label.starts_with(shown + ", ")) {
            ++color;
            shown = s.label;
        }
        PlotSeries series;
        series.label = QString::fromStdString(s.label);
        series.x = s.x;
        series.y = s.y;
        series.low = s.low;
        series.high = s.high;
        series.xLow = s.xLow;
        series.xHigh = s.xHigh;
        series.points = s.points;
        series.named = figure.kind == "plane";
        series.front = s.front;
        series.color = color;
        plot.series.push_back(std::move(series));
    }
    for (const std::string &note : figure.notes)
        plot.notes << QString::fromStdString(note);
    return plot;
}

Result<std::string> drawFigures(const Common &common, const study::StudyOutputs &outputs, const fs::path &root, ThemeKind theme, const std::stop_token &stop)
{
    std::string body = "<div class=figures>\n";
    for (std::size_t i = 0; i < outputs.figures.size(); ++i) {
        const study::FigureData &figure = outputs.figures[i];
        if (stop.stop_requested())
            return cancelledError();
        note(common, "drawing " + figure.title);
        const std::string name = "figures/" + study::outputName(i, figure.title);
        if (std::all_of(figure.series.begin(), figure.series.end(), [](const study::FigureSeries &s) { return s.x.empty(); })) {
            body += fmt::format("<figure><figcaption>{}: no run has these numbers{}</figcaption></figure>\n", html(figure.title),
                                figure.notes.empty() ? "" : " (" + html(figure.notes.front()) + ")");
            continue;
        }
        PlotView view(plotOf(figure));
        FigureOptions options;
        options.theme = theme;
        options.sizeMm = QSizeF(170, 110);
        options.dpi = 150;
        options.commandLine = QString::fromStdString(common.commandLine);
        for (const char *extension : {".svg", ".pdf", ".png"})
            SPECTRA_CHECK(exportView(view, QString::fromStdString((root / (name + extension)).string()), options));
        body += fmt::format("<figure><img src=\"{0}.png\" alt=\"{1}\"><figcaption>{1} · <a href=\"{0}.pdf\">PDF</a> · <a href=\"{0}.svg\">SVG</a> · <a href=\"{0}.csv\">CSV</a></figcaption></figure>\n",
                            name, html(figure.title));
    }
    return body + "</div>\n";
}

std::string facts(const study::Study &study)
{
    std::size_t done = 0;
    std::map<std::string, std::size_t> reasons;
    for (const study::CellResult &r : study.results) {
        done += r.done;
        if (!r.done)
            ++reasons[r.reason];
    }
    std::string seeds;
    for (const std::uint64_t s : study.spec.seeds)
        seeds += (seeds.empty() ? "" : ", ") + std::to_string(s);
    std::string text = fmt::format("<dl><dt>Study</dt><dd>{}</dd>\n<dt>Runs</dt><dd>{} of {} done</dd>\n<dt>Seeds</dt><dd>{}</dd>\n", html(study.spec.name), done, study.cells.size(), seeds);
    for (const auto &[reason, count] : reasons)
        text += fmt::format("<dt>Without result</dt><dd>{} × {}</dd>\n", count, html(reason));
    return text + "</dl>\n";
}

} // namespace

Result<void> reportStudy(const Common &common, const std::string &folder, const std::string &output, ThemeKind theme)
{
    SPECTRA_CHECK(checkOutput(output, common.overwrite));
    SPECTRA_TRY(const study::Study study, study::openStudy(folder));
    const fs::path reference = resourceFolder() / "studies" / "reference.json";
    std::vector<study::Claim> claims;
    std::error_code ignored;
    if (fs::exists(reference, ignored)) {
        SPECTRA_TRY(claims, study::readClaims(reference));
    }
    note(common, "reading the runs");
    SPECTRA_TRY(const study::StudyOutputs outputs, study::makeOutputs(study, claims));
    InterruptGuard interrupt;
    SPECTRA_TRY(auto target, AtomicFolder::create(output, common.overwrite));
    const fs::path root = target.temporary();
    SPECTRA_CHECK(study::writeOutputs(study, outputs, root));
    const OffscreenApplication application;
    SPECTRA_TRY(const std::string figures, drawFigures(common, outputs, root, theme, interrupt.token()));
    std::string body;
    if (!study.spec.about.empty())
        body += "<p>" + html(study.spec.about) + "</p>\n";
    body += facts(study) + "<h2>Tables</h2>\n";
    for (std::size_t i = 0; i < outputs.tables.size(); ++i) {
        const std::string stem = "tables/" + study::outputName(i, outputs.tables[i].title);
        body += study::tableHtml(outputs.tables[i]) + fmt::format("<p class=note><a href=\"{0}.csv\">CSV</a> · <a href=\"{0}.tex\">LaTeX</a> · <a href=\"{0}.json\">JSON</a></p>\n", stem);
    }
    if (!outputs.effects.empty())
        body += "<h2>Factorial effects</h2>\n" + study::effectsHtml(outputs.effects);
    if (!outputs.associations.empty())
        body += "<h2>Routing against loss and task scores</h2>\n" + study::associationsHtml(outputs.associations) + "<p class=note><a href=\"tables/associations.csv\">CSV</a> · <a href=\"tables/associations.json\">JSON</a></p>\n";
    body += "<h2>Figures</h2>\n" + figures;
    if (!outputs.claims.empty())
        body += "<h2>Claims</h2>\n" + study::claimsHtml(outputs.claims) + "<p class=note><a href=\"tables/claims.csv\">CSV</a> · <a href=\"tables/claims.json\">JSON</a></p>\n";
    SPECTRA_CHECK(writeText(root / "index.html", htmlPage(study.spec.title, fmt::format("Written by spectra {}. Every number was measured by the runs of this study; figures of others stand in columns of their own.",
                                                                                      programVersion()), body)));
    SPECTRA_CHECK(target.commit());
    note(common, fmt::format("wrote {}/index.html", output));
    return {};
}

} // namespace spectra::cli
