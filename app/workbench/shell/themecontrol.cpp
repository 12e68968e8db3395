// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/themecontrol.h"

#include <QApplication>

namespace spectra {

namespace {

QString key()
{
    return QStringLiteral("window/theme");
}

QString nameOf(ThemeChoice choice)
{
    switch (choice) {
    case ThemeChoice::light: return QStringLiteral("light");
    case ThemeChoice::dark: return QStringLiteral("dark");
    case ThemeChoice::system: break;
    }
    return QStringLiteral("system");
}

} // namespace

std::optional<ThemeChoice> themeChoiceByName(const QString &name)
{
    for (ThemeChoice choice : {ThemeChoice::system, ThemeChoice::light, ThemeChoice::dark})
        if (name == nameOf(choice))
            return choice;
    return std::nullopt;
}

ThemeControl::ThemeControl(QSettings *settings, QObject *parent)
    : QObject(parent), m_settings(settings), m_desktop(QApplication::palette())
{
    if (m_settings)
        m_choice = themeChoiceByName(m_settings->value(key()).toString()).value_or(ThemeChoice::system);
    apply();
}

void ThemeControl::choose(ThemeChoice choice)
{
    if (choice == m_choice)
        return;
    m_choice = choice;
    if (m_settings)
        m_settings->setValue(key(), nameOf(choice));
    apply();
    Q_EMIT themeChanged(m_theme);
}

void ThemeControl::apply()
{
    const bool desktopIsDark = m_desktop.color(QPalette::Window).lightness() < m_desktop.color(QPalette::WindowText).lightness();
    const bool dark = m_choice == ThemeChoice::dark || (m_choice == ThemeChoice::system && desktopIsDark);
    m_theme = Theme::make(dark ? ThemeKind::dark : ThemeKind::light);
    QApplication::setPalette(m_theme.palette());
    qApp->setStyleSheet(m_theme.styleSheet());
}

} // namespace spectra
