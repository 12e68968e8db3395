// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/recentfiles.h"

#include <QDir>
#include <QFileInfo>

namespace spectra {

namespace {

QString key()
{
    return QStringLiteral("recent/files");
}

} // namespace

RecentFiles::RecentFiles(QSettings *settings, QObject *parent) : QObject(parent), m_settings(settings)
{
    if (m_settings)
        m_paths = m_settings->value(key()).toStringList().mid(0, maxPaths);
}

void RecentFiles::add(const QString &path)
{
    const QString whole = QDir::cleanPath(QFileInfo(path).absoluteFilePath());
    m_paths.removeAll(whole);
    m_paths.prepend(whole);
    m_paths = m_paths.mid(0, maxPaths);
    store();
}

void RecentFiles::remove(const QString &path)
{
    if (m_paths.removeAll(path) > 0)
        store();
}

void RecentFiles::clear()
{
    m_paths.clear();
    store();
}

void RecentFiles::store()
{
    if (m_settings)
        m_settings->setValue(key(), m_paths);
    Q_EMIT changed();
}

} // namespace spectra
