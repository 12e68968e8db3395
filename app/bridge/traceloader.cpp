// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/bridge/traceloader.h"

#include <QFutureWatcher>
#include <QtConcurrent>

namespace spectra {

TraceLoader::TraceLoader(TraceOpener opener, QObject *parent) : QObject(parent), m_opener(std::move(opener))
{
    m_pool.setObjectName(QStringLiteral("trace loader"));
    m_pool.setMaxThreadCount(2);
}

TraceLoader::~TraceLoader()
{
    close();
}

quint64 TraceLoader::load(const QString &path)
{
    using Opened = std::shared_ptr<const Result<std::shared_ptr<const TraceSource>>>;
    const quint64 request = m_next++;
    const std::stop_token stop = m_requests[request].get_token();
    auto *watcher = new QFutureWatcher<Opened>(this);
    connect(watcher, &QFutureWatcher<Opened>::finished, this, [this, watcher, request, path] {
        watcher->deleteLater();
        const auto found = m_requests.find(request);
        if (found == m_requests.end())
            return;
        const bool cancelled = found->second.stop_requested();
        m_requests.erase(found);
        const Opened opened = watcher->result();
        if (cancelled)
            Q_EMIT failed(request, path, cancelledError());
        else if (!opened->ok())
            Q_EMIT failed(request, path, opened->error());
        else
            Q_EMIT loaded(request, {path, opened->value()});
    });
    Q_EMIT started(request, path);
    watcher->setFuture(QtConcurrent::run(&m_pool, [opener = m_opener, path, stop]() -> Opened {
        auto opened = opener(path, stop);
        if (opened.ok() && !stop.stop_requested()) {
            // Read here, where it may take its time: the first view to ask finds it in memory.
            if (auto sequences = (*opened)->sequences(); !sequences.ok())
                opened = std::move(sequences.error());
        }
        return std::make_shared<const Result<std::shared_ptr<const TraceSource>>>(std::move(opened));
    }));
    return request;
}

void TraceLoader::cancel(quint64 request)
{
    if (const auto found = m_requests.find(request); found != m_requests.end())
        found->second.request_stop();
}

void TraceLoader::close()
{
    for (auto &[request, stop] : m_requests)
        stop.request_stop();
    m_requests.clear();
    m_pool.clear();
    m_pool.waitForDone();
}

} // namespace spectra
