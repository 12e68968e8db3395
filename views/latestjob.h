// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "engine/core/progress.h"
#include "engine/core/result.h"

#include <QObject>

#include <functional>
#include <memory>
#include <stop_token>

class QThreadPool;

namespace spectra {

/// The pool of all background work of views, named "views". Lives as long as the QCoreApplication.
[[nodiscard]] QThreadPool *viewPool();

/// What a running job may use, on its own thread.
class JobContext {
public:
    virtual ~JobContext() = default;
    [[nodiscard]] virtual std::stop_token stop() const = 0;
    virtual void report(const Progress &progress) = 0;
    /// Hands a partial result to the GUI thread: only the newest that has not been applied yet is kept.
    virtual void partial(std::function<void()> apply) = 0;
};

/// Runs one job at a time for one receiver; starting another makes the running one stale: its results are dropped.
/// GUI thread only. The destructor requests a stop and waits for jobs that still run.
class LatestJob : public QObject {
    Q_OBJECT
public:
    using Apply = std::function<void()>;
    /// Pure work on the pool; the Apply it returns runs on the GUI thread.
    using Function = std::function<Result<Apply>(JobContext &)>;

    explicit LatestJob(QObject *parent = nullptr);
    ~LatestJob() override;

    void start(Function job);
    /// In the calling thread, nothing in the background.
    void runNow(const Function &job);
    /// Requests a stop and forgets the result.
    void cancel();
    /// Requests a stop but takes what the job returns (a map that is good enough).
    void finishEarly();
    [[nodiscard]] bool isRunning() const;

Q_SIGNALS:
    void runningChanged(bool running);
    void progressed(const QString &stage, qint64 done, qint64 total, const QString &unit);
    void failed(const spectra::Error &error);
    void done();

private:
    struct Private;
    std::shared_ptr<Private> d;
};

} // namespace spectra
