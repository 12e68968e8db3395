// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/program/options.h"
#include "app/workbench/program/screenshot.h"

#include "app/workbench/mainwindow.h"
#include "engine/core/files.h"
#include "engine/run/prompts.h"

#include <QApplication>
#include <QDir>
#include <QElapsedTimer>
#include <QFileInfo>
#include <QStandardPaths>
#include <QStyleFactory>
#include <QTimer>

#include <cstdio>

namespace {

using namespace spectra;

QString exampleTrace()
{
    // Installed with the program, or made by packaging/run and by the start page.
    const auto bundled = resourceFolder() / "traces" / "example.h5";
    std::error_code error;
    if (std::filesystem::exists(bundled, error))
        return QString::fromStdString(bundled.string());
    return QString::fromStdString((cacheFolder() / "example" / "smollm2-135m-8x2.h5").string());
}

/// The two models of the bundled study come with their traces.
QStringList examplePair()
{
    QStringList traces;
    for (const char *model : {"spectra-tiny", "switch-tiny"}) {
        const auto trace = resourceFolder() / "models" / model / (std::string(model) + ".h5");
        std::error_code error;
        if (!std::filesystem::exists(trace, error))
            return {};
        traces.append(QString::fromStdString(trace.string()));
    }
    return traces;
}

WorkbenchSetup programSetup(bool keepsState)
{
    WorkbenchSetup setup;
    setup.engine = [](std::shared_ptr<EngineSink> sink) { return makeRunEngine(std::move(sink)); };
    setup.opener = fileTraceOpener();
    setup.saver = liveTraceSaver();
    setup.readPrompts = [](const QString &path) { return readPrompts(path.toStdString(), {}); };
    for (const SampleSet &set : sampleSets())
        setup.promptSets.push_back({QString::fromStdString(set.name), QString::fromStdString(set.title), QString::fromStdString(set.file.string()), set.texts});
    setup.exampleTrace = exampleTrace();
    setup.exampleTraces = examplePair();
    if (keepsState) {
        const QString state = QStandardPaths::writableLocation(QStandardPaths::AppLocalDataLocation);
        setup.stateFolder = state + QStringLiteral("/sessions");
        setup.settings = std::make_shared<QSettings>();
    }
    return setup;
}

} // namespace

int main(int argc, char **argv)
{
    QElapsedTimer sinceStart;
    sinceStart.start();
    if (const int done = spectra::answerWithoutWindow(argc, argv); done >= 0)
        return done;
    QApplication app(argc, argv);
    QApplication::setOrganizationName(QStringLiteral("spectra"));
    QApplication::setApplicationName(QStringLiteral("spectra-workbench"));
    QApplication::setApplicationDisplayName(QStringLiteral("SPECTRA Workbench"));
    QApplication::setApplicationVersion(QStringLiteral(SPECTRA_VERSION));
    QApplication::setDesktopFileName(QStringLiteral("spectra-workbench"));
    QApplication::setStyle(QStyleFactory::create(QStringLiteral("Fusion")));
    const auto options = spectra::readOptions(QApplication::arguments());
    if (!options) {
        std::fprintf(stderr, "error: %s: %s\n", options.error().what.c_str(), options.error().where.c_str());
        if (!options.error().mend.empty())
            std::fprintf(stderr, "hint: %s\n", options.error().mend.c_str());
        return spectra::exitCode(options.error().kind);
    }
    Workbench workbench(programSetup(!options->scripted()));
    MainWindow window(workbench);
    if (options->theme)
        window.themes().choose(*options->theme);
    if (options->size.isValid())
        window.resize(options->size);
    window.show();
    if (!options->scripted())
        window.offerRecovery();
    if (options->workspace && options->files.isEmpty())
        window.showWorkspace(*options->workspace);
    QTimer::singleShot(0, &window, [&] {
        if (options->timing)
            std::fprintf(stderr, "window after %lld ms\n", static_cast<long long>(sinceStart.elapsed()));
        workbench.open(options->files);
    });
    std::unique_ptr<spectra::ScriptedRun> script;
    if (options->scripted())
        script = std::make_unique<spectra::ScriptedRun>(window, *options, sinceStart);
    return QApplication::exec();
}
