// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/latestjob.h"

#include <QCoreApplication>
#include <QFutureWatcher>
#include <QMutex>
#include <QPointer>
#include <QPromise>
#include <QThreadPool>
#include <QtConcurrent/QtConcurrentRun>

#include <algorithm>
#include <new>
#include <vector>

namespace spectra {

QThreadPool *viewPool()
{
    static QPointer<QThreadPool> pool;
    if (!pool) {
        pool = new QThreadPool(QCoreApplication::instance());
        pool->setObjectName(QStringLiteral("views"));
        // Reading and computing overlap; more threads would only fight with parallelFor's own.
        pool->setMaxThreadCount(std::clamp(QThread::idealThreadCount(), 2, 4));
    }
    return pool;
}

namespace {

/// What the worker and the GUI thread share about one job.
struct Shared {
    std::stop_source stop;
    QMutex mutex;
    LatestJob::Apply partial;      // newest partial result not yet applied
    bool partialPosted = false;
    Progress progress;
    bool progressPosted = false;
    std::unique_ptr<Result<LatestJob::Apply>> result;
};

} // namespace

struct LatestJob::Private {
    struct Running {
        std::shared_ptr<Shared> shared;
        QFutureWatcher<void> *watcher = nullptr;
    };
    std::shared_ptr<Shared> newest;
    std::vector<Running> running; // the newest and stale ones that have not ended yet
};

namespace {

class PoolContext : public JobContext {
public:
    PoolContext(std::shared_ptr<Shared> shared, LatestJob *receiver, std::function<bool(const Shared *)> isNewest)
        : m_shared(std::move(shared)), m_receiver(receiver), m_isNewest(std::move(isNewest))
    {
    }
    std::stop_token stop() const override { return m_shared->stop.get_token(); }
    void report(const Progress &progress) override
    {
        const QMutexLocker lock(&m_shared->mutex);
        m_shared->progress = progress;
        if (std::exchange(m_shared->progressPosted, true))
            return;
        QMetaObject::invokeMethod(
            m_receiver,
            [shared = m_shared, receiver = m_receiver, newest = m_isNewest] {
                Progress p;
                {
                    const QMutexLocker inner(&shared->mutex);
                    shared->progressPosted = false;
                    p = shared->progress;
                }
                if (newest(shared.get()))
                    Q_EMIT receiver->progressed(QString::fromStdString(p.stage), p.done, p.total, QString::fromStdString(p.unit));
            },
            Qt::QueuedConnection);
    }
    void partial(std::function<void()> apply) override
    {
        const QMutexLocker lock(&m_shared->mutex);
        m_shared->partial = std::move(apply);
        if (std::exchange(m_shared->partialPosted, true))
            return;
        QMetaObject::invokeMethod(
            m_receiver,
            [shared = m_shared, newest = m_isNewest] {
                LatestJob::Apply take;
                {
                    const QMutexLocker inner(&shared->mutex);
                    shared->partialPosted = false;
                    take = std::move(shared->partial);
                    shared->partial = {};
                }
                if (take && newest(shared.get()))
                    take();
            },
            Qt::QueuedConnection);
    }

private:
    std::shared_ptr<Shared> m_shared;
    LatestJob *m_receiver; // outlives the job: its destructor waits
    std::function<bool(const Shared *)> m_isNewest;
};

class DirectContext : public JobContext {
public:
    std::stop_token stop() const override { return m_stop.get_token(); }
    void report(const Progress &) override {}
    void partial(std::function<void()>) override {}

private:
    std::stop_source m_stop;
};

} // namespace

LatestJob::LatestJob(QObject *parent) : QObject(parent), d(std::make_shared<Private>()) {}

LatestJob::~LatestJob()
{
    d->newest.reset();
    for (const Private::Running &r : d->running)
        r.shared->stop.request_stop();
    for (const Private::Running &r : d->running) {
        r.watcher->disconnect(this);
        r.watcher->waitForFinished();
    }
}

void LatestJob::start(Function job)
{
    if (d->newest)
        d->newest->stop.request_stop();
    const bool was = isRunning();
    auto shared = std::make_shared<Shared>();
    d->newest = shared;
    auto *watcher = new QFutureWatcher<void>(this);
    d->running.push_back({shared, watcher});
    connect(watcher, &QFutureWatcher<void>::finished, this, [this, shared, watcher] {
        std::erase_if(d->running, [&](const Private::Running &r) { return r.shared == shared; });
        watcher->deleteLater();
        if (d->newest != shared)
            return; // superseded or cancelled
        d->newest.reset();
        Q_EMIT runningChanged(false);
        Result<Apply> &result = *shared->result;
        if (!result) {
            Q_EMIT failed(result.error());
            return;
        }
        if (*result)
            (*result)();
        Q_EMIT done();
    });
    const auto isNewest = [weak = std::weak_ptr<Private>(d)](const Shared *s) {
        const auto p = weak.lock();
        return p && p->newest.get() == s;
    };
    watcher->setFuture(QtConcurrent::run(
        viewPool(),
        [](QPromise<void> &, const std::shared_ptr<Shared> &state, LatestJob *self, const Function &function,
           const std::function<bool(const Shared *)> &newest) {
            if (state->stop.stop_requested()) {
                state->result = std::make_unique<Result<Apply>>(cancelledError());
            } else {
                PoolContext context(state, self, newest);
                try {
                    state->result = std::make_unique<Result<Apply>>(function(context));
                } catch (const std::bad_alloc &) {
                    state->result = std::make_unique<Result<Apply>>(workError("not enough memory", {}, "Close other traces or show fewer tokens."));
                } catch (const std::exception &e) {
                    state->result = std::make_unique<Result<Apply>>(bugError(e.what()));
                }
            }
        },
        shared, this, std::move(job), std::function<bool(const Shared *)>(isNewest)));
    if (!was)
        Q_EMIT runningChanged(true);
}

void LatestJob::runNow(const Function &job)
{
    cancel();
    DirectContext context;
    Result<Apply> result = job(context);
    if (!result) {
        Q_EMIT failed(result.error());
        return;
    }
    if (*result)
        (*result)();
    Q_EMIT done();
}

void LatestJob::cancel()
{
    if (!d->newest)
        return;
    d->newest->stop.request_stop();
    d->newest.reset();
    Q_EMIT runningChanged(false);
}

void LatestJob::finishEarly()
{
    if (d->newest)
        d->newest->stop.request_stop();
}

bool LatestJob::isRunning() const
{
    return d->newest != nullptr;
}

} // namespace spectra
