// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/theme.h"

#include <QFontDatabase>
#include <QFontInfo>
#include <QGuiApplication>

#include <algorithm>

namespace spectra {

QString themeName(ThemeKind kind)
{
    switch (kind) {
    case ThemeKind::light: return QStringLiteral("light");
    case ThemeKind::dark: return QStringLiteral("dark");
    case ThemeKind::print: break;
    }
    return QStringLiteral("print");
}

std::optional<ThemeKind> themeByName(const QString &name)
{
    for (const ThemeKind kind : {ThemeKind::light, ThemeKind::dark, ThemeKind::print})
        if (themeName(kind) == name)
            return kind;
    return std::nullopt;
}

Theme Theme::make(ThemeKind kind, const QString &family, int pixelSize)
{
    Theme t;
    t.kind = kind;
    switch (kind) {
    case ThemeKind::light:
        t.window = QColor(0xf3f4f7);
        t.panel = QColor(0xffffff);
        t.text = QColor(0x1c2129);
        t.muted = QColor(0x5d6675);
        t.faint = QColor(0x8b94a3);
        t.grid = QColor(0xe8ebf0);
        t.border = QColor(0xd5dae2);
        t.accent = QColor(0x2563d9);
        t.selection = QColor(0xd6156c);
        t.hover = QColor(0x1c2129);
        t.warning = QColor(0xa15c00);
        t.error = QColor(0xb3261e);
        break;
    case ThemeKind::dark:
        t.window = QColor(0x121519);
        t.panel = QColor(0x1a1e24);
        t.text = QColor(0xe6e9ee);
        t.muted = QColor(0xa0a9b8);
        t.faint = QColor(0x737d8c);
        t.grid = QColor(0x2a3039);
        t.border = QColor(0x323a45);
        t.accent = QColor(0x7aaeff);
        t.selection = QColor(0xff5fa8);
        t.hover = QColor(0xffffff);
        t.warning = QColor(0xf2b04a);
        t.error = QColor(0xff8a80);
        break;
    case ThemeKind::print:
        t.window = Qt::white;
        t.panel = Qt::white;
        t.text = QColor(Qt::black);
        t.muted = QColor(0x3c3c3c);
        t.faint = QColor(0x6e6e6e);
        t.grid = QColor(0xe2e2e2);
        t.border = QColor(0xb8b8b8);
        t.accent = QColor(0x1f4fb0);
        t.selection = QColor(0xc2105f);
        t.hover = QColor(Qt::black);
        t.warning = QColor(0x8a4b00);
        t.error = QColor(0x9c1c14);
        break;
    }
    t.missing = mixed(t.panel, t.text, 0.10);

    QFont base = QGuiApplication::font();
    if (!family.isEmpty())
        base.setFamily(family);
    if (pixelSize <= 0)
        pixelSize = kind == ThemeKind::print ? 14 : std::max(9, QFontInfo(base).pixelSize());
    base.setPixelSize(pixelSize);
    base.setWeight(QFont::Normal);
    if (kind == ThemeKind::print)
        base.setHintingPreference(QFont::PreferNoHinting); // the same advance widths at every resolution
    t.font = base;
    t.small = base;
    t.small.setPixelSize(std::max(8, static_cast<int>(pixelSize * 0.88 + 0.5)));
    t.bold = base;
    t.bold.setWeight(QFont::DemiBold);
    t.mono = QFontDatabase::systemFont(QFontDatabase::FixedFont);
    if (family.startsWith(QLatin1String("DejaVu")))
        t.mono.setFamily(QStringLiteral("DejaVu Sans Mono"));
    t.mono.setPixelSize(std::max(8, static_cast<int>(pixelSize * 0.94 + 0.5)));
    t.mono.setHintingPreference(base.hintingPreference());
    return t;
}

QPalette Theme::palette() const
{
    QPalette p;
    const auto all = [&](QPalette::ColorRole role, const QColor &color) { p.setColor(QPalette::All, role, color); };
    all(QPalette::Window, window);
    all(QPalette::WindowText, text);
    all(QPalette::Base, panel);
    all(QPalette::AlternateBase, mixed(panel, text, 0.03));
    all(QPalette::ToolTipBase, mixed(panel, text, isDark() ? 0.10 : 0.0));
    all(QPalette::ToolTipText, text);
    all(QPalette::PlaceholderText, faint);
    all(QPalette::Text, text);
    all(QPalette::Button, isDark() ? mixed(panel, text, 0.06) : panel);
    all(QPalette::ButtonText, text);
    all(QPalette::BrightText, error);
    all(QPalette::Light, mixed(panel, text, isDark() ? 0.14 : 0.0));
    all(QPalette::Midlight, mixed(panel, text, isDark() ? 0.10 : 0.06));
    all(QPalette::Mid, border);
    all(QPalette::Dark, mixed(border, text, 0.25));
    all(QPalette::Shadow, isDark() ? QColor(0, 0, 0) : QColor(0x9aa3b0));
    all(QPalette::Highlight, accent);
    all(QPalette::HighlightedText, readableOn(accent));
    all(QPalette::Link, accent);
    all(QPalette::LinkVisited, mixed(accent, text, 0.3));
    for (const QPalette::ColorRole role : {QPalette::WindowText, QPalette::Text, QPalette::ButtonText})
        p.setColor(QPalette::Disabled, role, faint);
    p.setColor(QPalette::Disabled, QPalette::Highlight, border);
    return p;
}

QString Theme::styleSheet() const
{
    return QStringLiteral("QToolTip { color: %1; background: %2; border: 1px solid %3; padding: 3px; }"
                          "QDockWidget { titlebar-close-icon: none; }"
                          "QMainWindow::separator { background: %4; width: 5px; height: 5px; }")
        .arg(text.name(), mixed(panel, text, isDark() ? 0.10 : 0.0).name(), border.name(), window.name());
}

} // namespace spectra
