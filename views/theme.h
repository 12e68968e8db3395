// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/colormap.h"

#include <QColor>
#include <QFont>
#include <QPalette>
#include <QString>

#include <optional>

namespace spectra {

enum class ThemeKind { light, dark, print };

[[nodiscard]] QString themeName(ThemeKind kind);
[[nodiscard]] std::optional<ThemeKind> themeByName(const QString &name);

/// Every colour and font that a view paints with. A value: painting takes it as an argument, so that the same picture
/// can be made for the screen and for paper.
struct Theme {
    ThemeKind kind = ThemeKind::light;
    QColor window;      ///< behind the docks
    QColor panel;       ///< behind a picture
    QColor text;
    QColor muted;       ///< secondary text
    QColor faint;       ///< axes, disabled text
    QColor grid;
    QColor border;
    QColor accent;      ///< the one accent: active control, main curve, progress
    QColor selection;   ///< the one colour of selected rows and experts in every view
    QColor hover;       ///< outline of what is under the mouse
    QColor warning;
    QColor error;
    QColor missing;     ///< cells without a value
    QFont font;         ///< of pixel size: all measures of a picture follow from it
    QFont small;
    QFont bold;
    QFont mono;

    /// `family` empty: the application's font. `pixelSize` 0: the application's size (print: 7 pt at 144 units an inch).
    [[nodiscard]] static Theme make(ThemeKind kind, const QString &family = {}, int pixelSize = 0);
    [[nodiscard]] bool isDark() const { return kind == ThemeKind::dark; }
    /// Height of the base font's em: the unit of margins and gaps.
    [[nodiscard]] double em() const { return font.pixelSize(); }
    [[nodiscard]] double hairline() const { return em() / 12.0; }
    [[nodiscard]] QColor selectionTint(double strength = 0.16) const { return mixed(panel, selection, strength); }
    /// Zero is the panel colour, −1 blue, +1 red.
    [[nodiscard]] ColorMap diverging() const { return ColorMap::divergingAround(mixed(panel, text, 0.03)); }
    /// For QApplication::setPalette: native widgets in the theme's colours.
    [[nodiscard]] QPalette palette() const;
    /// For QApplication::setStyleSheet: only what a palette cannot say (dock titles, tool tips, thin borders).
    [[nodiscard]] QString styleSheet() const;
};

} // namespace spectra
