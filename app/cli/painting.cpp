// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/cli/painting.h"

#include <QApplication>
#include <QByteArray>

#include <fmt/format.h>

namespace spectra::cli {
namespace {
int g_argc = 1;
char g_name[] = "spectra";
char *g_argv[] = {g_name, nullptr};
} // namespace

OffscreenApplication::OffscreenApplication()
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    m_application = std::make_unique<QApplication>(g_argc, g_argv);
    QApplication::setStyle(QStringLiteral("Fusion"));
}

OffscreenApplication::~OffscreenApplication() = default;

Result<ThemeKind> parseTheme(const std::string &name)
{
    if (name == "print")
        return ThemeKind::print;
    if (name == "light")
        return ThemeKind::light;
    if (name == "dark")
        return ThemeKind::dark;
    return usageError(fmt::format("unknown theme '{}'", name), "--theme", "print, light or dark");
}

} // namespace spectra::cli
