// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/tracesource.h"
#include "views/theme.h"
#include "views/view.h"

#include <QByteArray>
#include <QJsonObject>
#include <QSizeF>
#include <QString>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

class QMimeData;

namespace spectra {

/// How a picture is put on paper.
struct FigureOptions {
    QSizeF sizeMm{85, 60};
    int dpi = 300;                        ///< of PNG, and of images inside PDF
    ThemeKind theme = ThemeKind::print;
    std::optional<int> layer;             ///< decoder index; none: the first traced layer
    QString domain;                       ///< empty: all
    std::vector<std::pair<QString, QString>> settings; ///< options of the view: object=routing
    bool header = true;                   ///< the line that says what is shown
    bool overwrite = false;
    QString commandLine;                  ///< for the provenance
    QString fontFamily;                   ///< empty: the application's
};

/// What a picture is of: program, version, trace (uuid, file name, checkpoint digest), view with state, command line.
[[nodiscard]] QJsonObject provenance(const View &view, const FigureOptions &options);
/// The provenance inside a PNG or PDF that this program wrote; empty if there is none.
[[nodiscard]] QJsonObject readProvenance(const QString &path);

// One view as the bytes of a file. The view keeps what it shows; only theme and size differ. GUI thread.
[[nodiscard]] Result<QByteArray> pictureAsPdf(View &view, const FigureOptions &options);
[[nodiscard]] Result<QByteArray> pictureAsSvg(View &view, const FigureOptions &options);
[[nodiscard]] Result<QByteArray> pictureAsPng(View &view, const FigureOptions &options);

/// Writes a view to `path`, format by its ending: .pdf .svg .png .csv .tsv .tex. The file appears whole or not at all.
/// Errors: usage (unknown ending, size or dpi out of range), work (exists without overwrite, not writable).
[[nodiscard]] Result<void> exportView(View &view, const QString &path, const FigureOptions &options = {});

/// PNG + SVG + TSV at once, for the clipboard; the caller owns it.
[[nodiscard]] QMimeData *clipboardData(View &view, FigureOptions options = {});
void copyToClipboard(View &view);

/// `spectra figure`: makes the view of `kind`, loads what it needs in this thread and writes it to `path`. Needs a
/// QApplication (offscreen will do). Errors: usage (unknown kind, a kind without a view yet, unknown layer, domain or
/// setting, size or dpi out of range), input (damaged trace), work (output).
[[nodiscard]] Result<void> renderFigure(const QString &kind, const std::vector<std::shared_ptr<const TraceSource>> &traces,
                                        const FigureOptions &options, const QString &path);
/// The rows behind the same picture, as `report` writes them.
[[nodiscard]] Result<void> writeFigureData(const QString &kind, const std::vector<std::shared_ptr<const TraceSource>> &traces,
                                           const FigureOptions &options, const QString &path);

/// "85x60mm", "85x60": millimetres. Errors (usage): not two positive numbers, beyond 2000 mm.
[[nodiscard]] Result<QSizeF> parseFigureSize(const QString &text);

} // namespace spectra
