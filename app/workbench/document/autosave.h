// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/document/sessiondocument.h"

#include <QLockFile>
#include <QObject>
#include <QThreadPool>
#include <QTimer>

#include <functional>
#include <memory>

namespace spectra {

/// Behaviour: one second after a change the session is written beside the settings, whole or not at all. A clean end
/// removes it, so what lies there without a living owner is from a program that ended unexpectedly and can be offered.
class Autosave : public QObject {
    Q_OBJECT
public:
    /// `folder` empty: saves nothing. `take` gives the session as it is.
    Autosave(const QString &folder, std::function<SessionDocument()> take, QObject *parent = nullptr);
    ~Autosave() override;

    /// Something changed. Further calls within the second change nothing: work under way is saved every second.
    void touch();
    /// Ends cleanly: waits for a write under way and removes the file. Afterwards nothing is saved.
    void close();

    /// Sessions whose program is gone, newest first.
    [[nodiscard]] QStringList abandoned() const;
    /// Removes an abandoned session.
    static void discard(const QString &path);
    [[nodiscard]] QString path() const { return m_path; }

    static constexpr int delayMs = 1000;

Q_SIGNALS:
    void saved(const QString &path);
    void failed(const spectra::Error &error);

private:
    void save();

    QString m_folder, m_path;
    std::function<SessionDocument()> m_take;
    std::unique_ptr<QLockFile> m_lock;
    QTimer m_timer;
    QThreadPool m_pool;
    bool m_complained = false;
};

} // namespace spectra
