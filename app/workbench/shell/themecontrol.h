// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/theme.h"

#include <QObject>
#include <QPalette>
#include <QSettings>
#include <QString>

namespace spectra {

enum class ThemeChoice { system, light, dark };

[[nodiscard]] std::optional<ThemeChoice> themeChoiceByName(const QString &name);

/// Behaviour: light, dark or as the desktop has it; sets palette and style sheet of the application and remembers the
/// choice. `settings` may be null.
class ThemeControl : public QObject {
    Q_OBJECT
public:
    explicit ThemeControl(QSettings *settings, QObject *parent = nullptr);

    [[nodiscard]] ThemeChoice choice() const { return m_choice; }
    [[nodiscard]] const Theme &theme() const { return m_theme; }
    void choose(ThemeChoice choice);

Q_SIGNALS:
    void themeChanged(const spectra::Theme &theme);

private:
    void apply();
    QSettings *m_settings;
    QPalette m_desktop; ///< as the program found it
    ThemeChoice m_choice = ThemeChoice::system;
    Theme m_theme;
};

} // namespace spectra
