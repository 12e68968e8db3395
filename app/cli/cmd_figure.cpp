// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/painting.h"
#include "app/cli/tracefile.h"
#include "engine/core/files.h"
#include "views/viewfactory.h"

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <memory>

namespace spectra::cli {
namespace {

struct Flags {
    std::string kind, output, size = "85x60mm", theme = "print", domain;
    std::vector<std::string> files, set;
    int dpi = 300, layer = -1;
};

Result<void> figure(const Common &common, const Flags &flags)
{
    if (findFigure(QString::fromStdString(flags.kind)) == nullptr)
        return usageError(fmt::format("unknown figure kind '{}'", flags.kind), "command line",
                          "one of " + availableFigures().join(QStringLiteral(", ")).toStdString());
    FigureOptions options;
    SPECTRA_TRY(options.sizeMm, parseFigureSize(QString::fromStdString(flags.size)));
    SPECTRA_TRY(options.theme, parseTheme(flags.theme));
    options.dpi = flags.dpi;
    if (flags.layer >= 0)
        options.layer = flags.layer;
    options.domain = QString::fromStdString(flags.domain);
    options.overwrite = common.overwrite;
    options.commandLine = QString::fromStdString(common.commandLine);
    for (const std::string &setting : flags.set) {
        const std::size_t equals = setting.find('=');
        if (equals == std::string::npos || equals == 0)
            return usageError(fmt::format("'{}' is not key=value", setting), "--set");
        options.settings.emplace_back(QString::fromStdString(setting.substr(0, equals)), QString::fromStdString(setting.substr(equals + 1)));
    }
    SPECTRA_CHECK(checkOutput(flags.output, common.overwrite));
    SPECTRA_TRY(const auto traces, openTraces(flags.files));
    const OffscreenApplication application;
    SPECTRA_CHECK(renderFigure(QString::fromStdString(flags.kind), traces, options, QString::fromStdString(flags.output)));
    note(common, "wrote " + flags.output);
    return {};
}

} // namespace

Command figureCommand()
{
    return {"figure", "Any view of a trace as a PDF, SVG or PNG file", "spectra figure gram trace.h5 --layer 3 -o gram.pdf --size 85x60mm",
            [](CLI::App &app, const Common &common) -> std::function<Result<void>()> {
                auto flags = std::make_shared<Flags>();
                app.add_option("KIND", flags->kind, "What to draw: gram, load, load-layers, space, trajectory, metrics …")->required();
                app.add_option("TRACE", flags->files, "Traces (.h5)")->required();
                app.add_option("-o,--output", flags->output, "File to write: .pdf, .svg or .png")->required();
                app.add_option("--size", flags->size, "Width x height in millimetres")->capture_default_str();
                app.add_option("--dpi", flags->dpi, "Dots per inch of PNG and of images inside PDF")->check(CLI::Range(20, 2400))->capture_default_str();
                app.add_option("--theme", flags->theme, "Colours")->check(CLI::IsMember({"print", "light", "dark"}))->capture_default_str();
                app.add_option("--layer", flags->layer, "Decoder layer (default: the first traced)")->check(CLI::NonNegativeNumber);
                app.add_option("--domain", flags->domain, "Tokens of this domain only");
                app.add_option("--set", flags->set, "Option of the view, key=value (repeatable)")->type_size(1)->expected(1)->take_all();
                return [flags, &common] { return figure(common, *flags); };
            }};
}

} // namespace spectra::cli
