// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QObject>
#include <QSettings>
#include <QStringList>

namespace spectra {

/// Behaviour: the files opened last, newest first, kept in the settings. Files that are gone stay listed (a disk may come
/// back) but can be removed.
class RecentFiles : public QObject {
    Q_OBJECT
public:
    /// `settings` nullptr: remembers nothing beyond this run.
    explicit RecentFiles(QSettings *settings, QObject *parent = nullptr);

    [[nodiscard]] const QStringList &paths() const { return m_paths; }
    void add(const QString &path);
    void remove(const QString &path);
    void clear();

    static constexpr int maxPaths = 12;

Q_SIGNALS:
    void changed();

private:
    void store();
    QSettings *m_settings;
    QStringList m_paths;
};

} // namespace spectra
