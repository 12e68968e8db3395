// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <QString>

#include <functional>
#include <span>

namespace spectra {

/// One row of the table of views. Adding a view is one file and one line in viewfactory.cpp.
struct ViewKind {
    QString id;           ///< "gram"
    QString title;        ///< "Gram matrix"
    QString description;  ///< one line for the View menu and the palette
    std::function<View *(QWidget *parent)> create;
};

/// One row of the table of figure kinds (`spectra figure KIND`).
struct FigureKind {
    QString kind;         ///< "load-layers"
    QString viewId;       ///< "load"; empty: no view draws this kind yet
    QJsonObject options;  ///< options that make the view this kind
    QString description;
};

[[nodiscard]] std::span<const ViewKind> viewKinds();
[[nodiscard]] const ViewKind *findView(const QString &id);
/// nullptr for an unknown id. The caller (or the parent) owns the view.
[[nodiscard]] View *createView(const QString &id, QWidget *parent = nullptr);

[[nodiscard]] std::span<const FigureKind> figureKinds();
[[nodiscard]] const FigureKind *findFigure(const QString &kind);
/// Kinds that can be drawn now.
[[nodiscard]] QStringList availableFigures();

} // namespace spectra
