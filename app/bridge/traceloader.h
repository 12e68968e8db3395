// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/result.h"
#include "engine/core/tracesource.h"

#include <QObject>
#include <QString>
#include <QThreadPool>

#include <functional>
#include <memory>
#include <stop_token>
#include <unordered_map>

namespace spectra {

/// What opening a trace gives: the source, with its metadata and sequences already read.
struct OpenedTrace {
    QString path;
    std::shared_ptr<const TraceSource> source;
};

/// Opens one trace; runs on a worker.
using TraceOpener = std::function<Result<std::shared_ptr<const TraceSource>>(const QString &path, std::stop_token stop)>;

/// Opens traces on its own workers. Several may be under way; each ends with loaded() or failed() unless cancelled or
/// closed. Signals come on the thread of this object. close() (or the destructor) waits for the workers.
class TraceLoader : public QObject {
    Q_OBJECT
public:
    explicit TraceLoader(TraceOpener opener, QObject *parent = nullptr);
    ~TraceLoader() override;

    /// Starts opening; returns the request's number.
    quint64 load(const QString &path);
    void cancel(quint64 request);
    void close();
    [[nodiscard]] int pending() const { return static_cast<int>(m_requests.size()); }

Q_SIGNALS:
    void started(quint64 request, const QString &path);
    void loaded(quint64 request, const spectra::OpenedTrace &trace);
    void failed(quint64 request, const QString &path, const spectra::Error &error);

private:
    TraceOpener m_opener;
    QThreadPool m_pool;
    std::unordered_map<quint64, std::stop_source> m_requests;
    quint64 m_next = 1;
};

/// The opener for files: a file of this program's own session is trusted, any other is first opened by the probe.
[[nodiscard]] TraceOpener fileTraceOpener();

} // namespace spectra
