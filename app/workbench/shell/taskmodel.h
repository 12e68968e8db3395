// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/shell/ratemeter.h"

#include <QAbstractListModel>
#include <QElapsedTimer>
#include <QTimer>

#include <functional>
#include <vector>

namespace spectra {

enum class TaskState { waiting, running, done, failed, cancelled };

/// The long work of the program: what runs, how fast, how long still, and what became of it. Never modal: the window stays
/// usable and a row has a cancel button. GUI thread only.
class TaskModel : public QAbstractListModel {
    Q_OBJECT
public:
    enum Role { IdRole = Qt::UserRole + 1, StateRole, FractionRole, DetailRole, CancellableRole };

    explicit TaskModel(QObject *parent = nullptr);

    quint64 start(const QString &title, std::function<void()> cancel = {});
    void setRunning(quint64 id);
    void setProgress(quint64 id, const QString &stage, qint64 done, qint64 total, const QString &unit);
    void finish(quint64 id, TaskState state, const QString &outcome = {});
    void cancel(quint64 id);
    void cancelAll();
    void clearFinished();
    /// Takes a task away without a trace of it (work that turned out to be nothing).
    void forget(quint64 id);

    [[nodiscard]] int activeCount() const;
    /// The task that the status bar shows: the oldest active one; 0: none.
    [[nodiscard]] quint64 shownTask() const;
    [[nodiscard]] QModelIndex indexOf(quint64 id) const;

    int rowCount(const QModelIndex &parent = {}) const override;
    QVariant data(const QModelIndex &index, int role) const override;

Q_SIGNALS:
    void activeChanged(int active);

private:
    struct Task {
        quint64 id = 0;
        QString title, stage, unit, outcome;
        qint64 done = 0, total = 0;
        TaskState state = TaskState::waiting;
        std::function<void()> cancel;
        bool cancelling = false;
        double started = 0, ended = 0;
        RateMeter meter;
        [[nodiscard]] bool active() const { return state == TaskState::waiting || state == TaskState::running; }
    };
    [[nodiscard]] Task *find(quint64 id);
    [[nodiscard]] double now() const { return static_cast<double>(m_clock.elapsed()) / 1000; }
    [[nodiscard]] QString detail(const Task &task) const;
    void changed(const Task &task);
    void activeMayHaveChanged();

    std::vector<Task> m_tasks;
    QElapsedTimer m_clock;
    QTimer m_tick; ///< remaining times, only while something runs
    quint64 m_next = 1;
    int m_active = 0;
};

} // namespace spectra
