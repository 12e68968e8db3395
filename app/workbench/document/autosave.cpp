// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/document/autosave.h"

#include <QDir>
#include <QFile>
#include <QFutureWatcher>
#include <QUuid>
#include <QtConcurrent>

namespace spectra {

namespace {

QString lockOf(const QString &path)
{
    return path + QStringLiteral(".lock");
}

} // namespace

Autosave::Autosave(const QString &folder, std::function<SessionDocument()> take, QObject *parent)
    : QObject(parent), m_folder(folder), m_take(std::move(take))
{
    m_pool.setObjectName(QStringLiteral("autosave"));
    m_pool.setMaxThreadCount(1);
    m_timer.setSingleShot(true);
    m_timer.setInterval(delayMs);
    connect(&m_timer, &QTimer::timeout, this, &Autosave::save);
    if (m_folder.isEmpty() || !QDir().mkpath(m_folder))
        return;
    m_path = m_folder + QLatin1Char('/') + QUuid::createUuid().toString(QUuid::WithoutBraces) + QStringLiteral(".spectra-session");
    m_lock = std::make_unique<QLockFile>(lockOf(m_path));
    m_lock->setStaleLockTime(0); // stale only when its process is gone
    m_lock->tryLock(0);
}

Autosave::~Autosave()
{
    close();
}

void Autosave::touch()
{
    if (m_lock && !m_timer.isActive())
        m_timer.start();
}

void Autosave::save()
{
    using Outcome = std::shared_ptr<const Result<void>>;
    auto *watcher = new QFutureWatcher<Outcome>(this);
    connect(watcher, &QFutureWatcher<Outcome>::finished, this, [this, watcher] {
        watcher->deleteLater();
        const Outcome outcome = watcher->result();
        if (outcome->ok()) {
            m_complained = false;
            Q_EMIT saved(m_path);
        } else if (!std::exchange(m_complained, true)) {
            Q_EMIT failed(outcome->error());
        }
    });
    watcher->setFuture(QtConcurrent::run(&m_pool, [document = m_take(), path = m_path]() -> Outcome {
        return std::make_shared<const Result<void>>(document.write(path));
    }));
}

void Autosave::close()
{
    m_timer.stop();
    m_pool.waitForDone();
    if (!m_lock)
        return;
    QFile::remove(m_path);
    m_lock.reset();
}

QStringList Autosave::abandoned() const
{
    QStringList found;
    const QDir folder(m_folder);
    if (m_folder.isEmpty())
        return found;
    for (const QString &name : folder.entryList({QStringLiteral("*.spectra-session")}, QDir::Files, QDir::Time)) {
        const QString path = folder.filePath(name);
        if (path == m_path)
            continue;
        QLockFile lock(lockOf(path));
        lock.setStaleLockTime(0);
        if (lock.tryLock(0))
            found << path;
    }
    return found;
}

void Autosave::discard(const QString &path)
{
    QFile::remove(path);
    QFile::remove(lockOf(path));
}

} // namespace spectra
