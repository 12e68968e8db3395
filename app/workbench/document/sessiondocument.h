// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"

#include <QByteArray>
#include <QJsonObject>
#include <QString>

#include <vector>

namespace spectra {

/// How a prompt is run.
struct PromptSettings {
    QString model = QStringLiteral("smollm2-135m"); ///< bundled name, folder or .gguf
    bool upcycle = true;                            ///< dense model → SPECTRA mixture on the fly
    int experts = 8, topK = 2, routerDim = 32;
    int maxNewTokens = 64;
    double temperature = 0, topP = 1;
    int sampleTopK = 0;
    QString capture = QStringLiteral("standard");
    friend bool operator==(const PromptSettings &, const PromptSettings &) = default;
};

/// What a session file says: everything that the window shows, by value. Results are not in it: they are in the traces.
struct SessionDocument {
    struct TraceEntry {
        QString path;     ///< absolute
        QString name, uuid;
    };
    std::vector<TraceEntry> traces;
    QJsonObject linked;                   ///< what Session::saveState() gave: layer, rows, groups, experts, domains
    QString workspace = QStringLiteral("explore");
    QByteArray geometry, layout;          ///< of QMainWindow, checked by it
    int layoutVersion = 0;
    QJsonObject views;                    ///< view id → what View::saveState() gave
    QJsonObject figure;
    QString promptText, promptFile;
    PromptSettings prompt;

    static constexpr int version = 1;
    static constexpr qint64 maxBytes = 16 << 20;
    static constexpr int maxDepth = 32;

    /// UTF-8 JSON. Paths are written relative to `folder` too, so that a folder moves with its session.
    [[nodiscard]] QByteArray toJson(const QString &folder) const;
    /// Every size, type and number is checked. `folder`: where the file lies, `where` names it in errors.
    /// Errors (input): too large, nested too deeply, malformed, of a newer version, a value of the wrong type or range.
    [[nodiscard]] static Result<SessionDocument> fromJson(const QByteArray &json, const QString &folder, const QString &where);
    /// Errors: input (as above, missing, unreadable).
    [[nodiscard]] static Result<SessionDocument> read(const QString &path);
    /// Whole or not at all. Errors: work.
    [[nodiscard]] Result<void> write(const QString &path) const;
};

} // namespace spectra
