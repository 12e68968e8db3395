// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "views/theme.h"
#include "views/view.h"

#include <QJsonObject>
#include <QRectF>
#include <QSizeF>
#include <QString>
#include <QStringList>

#include <vector>

class QPainter;

namespace spectra {

/// Several views on one page, laid out in millimetres.
struct FigureSpec {
    QSizeF sizeMm{170, 80};
    int columns = 2;
    double gapMm = 4;
    QString letters = QStringLiteral("a"); ///< a, A, (a) or empty: panel letters
    bool headers = true;                   ///< each panel says what it shows
    QString family;                        ///< empty: the application's
    double fontPt = 7;
    ThemeKind theme = ThemeKind::print;
    int dpi = 300;                         ///< of PNG

    [[nodiscard]] QJsonObject toJson() const;
    /// Takes what is there and in range, keeps the rest.
    void fromJson(const QJsonObject &object);
    /// Errors (usage): a size, font or resolution out of range.
    [[nodiscard]] Result<void> check() const;
};

/// Places of `count` panels on the page, millimetres; a last row that is not full shares its width.
[[nodiscard]] std::vector<QRectF> panelPlaces(const FigureSpec &spec, int count);
/// "a", "B", "(c)"; beyond z: "aa".
[[nodiscard]] QString panelLetter(const QString &form, int index);

/// Paints the page in units of 1/144 inch from (0, 0).
void paintPage(QPainter &painter, const FigureSpec &spec, const std::vector<View *> &views);

/// The page as a file: .pdf, .svg or .png by the ending of `path`. Whole or not at all; replaces an existing file.
/// Errors: usage (ending, size), work (a view that is not ready, not writable).
[[nodiscard]] Result<void> exportPage(const QString &path, const FigureSpec &spec, const std::vector<View *> &views);

} // namespace spectra
