// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/program/options.h"

#include <QCommandLineParser>
#include <QRegularExpression>

#include <cstdio>
#include <cstring>

namespace spectra {

namespace {

const char *const helpText =
    "Usage: spectra-workbench [options] [FILES...]\n"
    "Explore the routing of mixture-of-experts models.\n"
    "\n"
    "FILES: traces (.h5), model folders, .gguf models, prompts (.jsonl, .txt), sessions (.spectra-session)\n"
    "\n"
    "  -h, --help            this text\n"
    "      --version         the version\n"
    "      --theme NAME      system, light or dark\n"
    "      --size WxH        size of the window in pixels\n"
    "      --workspace NAME  start, explore, compare, train or figure\n"
    "      --layer N         layer to show, as the decoder counts it\n"
    "      --screenshot FILE open the files, wait until all is drawn, save a picture of the window, quit\n"
    "      --quit-after-load open the files, wait until all is drawn, quit\n"
    "      --timing          say on stderr when the window and the pictures stood\n"
    "\n"
    "Example: spectra-workbench --theme dark routing.h5\n";

Error usage(const QString &what, const QString &where, const char *mend)
{
    return usageError(what.toStdString(), where.toStdString(), mend);
}

} // namespace

int answerWithoutWindow(int argc, char **argv)
{
    for (int i = 1; i < argc; ++i) {
        if (std::strcmp(argv[i], "--") == 0)
            break;
        if (std::strcmp(argv[i], "--help") == 0 || std::strcmp(argv[i], "-h") == 0) {
            std::fputs(helpText, stdout);
            return 0;
        }
        if (std::strcmp(argv[i], "--version") == 0) {
            std::puts("spectra-workbench " SPECTRA_VERSION);
            return 0;
        }
    }
    return -1;
}

Result<ProgramOptions> readOptions(const QStringList &arguments)
{
    QCommandLineParser parser;
    const auto option = [&parser](const char *name, const char *value = "") {
        const QCommandLineOption o(QString::fromLatin1(name), {}, QString::fromLatin1(value));
        parser.addOption(o);
    };
    for (const char *name : {"theme", "size", "workspace", "layer", "screenshot"})
        option(name, "VALUE");
    option("quit-after-load");
    option("timing");
    if (!parser.parse(arguments))
        return usage(parser.errorText(), QStringLiteral("command line"), "See spectra-workbench --help.");
    ProgramOptions options;
    options.files = parser.positionalArguments();
    options.quitAfterLoad = parser.isSet(QStringLiteral("quit-after-load"));
    options.timing = parser.isSet(QStringLiteral("timing"));
    options.screenshot = parser.value(QStringLiteral("screenshot"));
    if (const QString text = parser.value(QStringLiteral("theme")); !text.isEmpty()) {
        options.theme = themeChoiceByName(text);
        if (!options.theme)
            return usage(QStringLiteral("unknown theme"), QStringLiteral("--theme ") + text, "Choose system, light or dark.");
    }
    if (const QString text = parser.value(QStringLiteral("workspace")); !text.isEmpty()) {
        options.workspace = workspaceByName(text);
        if (!options.workspace)
            return usage(QStringLiteral("unknown workspace"), QStringLiteral("--workspace ") + text, "Choose start, explore, compare, train or figure.");
    }
    if (const QString text = parser.value(QStringLiteral("size")); !text.isEmpty()) {
        static const QRegularExpression form(QStringLiteral("^(\\d{2,5})x(\\d{2,5})$"));
        const auto match = form.match(text);
        options.size = {match.captured(1).toInt(), match.captured(2).toInt()};
        if (!match.hasMatch() || options.size.width() < 320 || options.size.height() < 240 || options.size.width() > 16384 || options.size.height() > 16384)
            return usage(QStringLiteral("not a window size"), QStringLiteral("--size ") + text, "Give width and height in pixels, as in 1280x800.");
    }
    if (const QString text = parser.value(QStringLiteral("layer")); !text.isEmpty()) {
        bool number = false;
        options.layer = text.toInt(&number);
        if (!number || *options.layer < 0)
            return usage(QStringLiteral("not a layer"), QStringLiteral("--layer ") + text, "Give a number from 0.");
    }
    return options;
}

} // namespace spectra
