// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/taskmodel.h"

#include <QLocale>

#include <algorithm>

namespace spectra {

namespace {

constexpr std::size_t keptFinished = 20;

} // namespace

TaskModel::TaskModel(QObject *parent) : QAbstractListModel(parent)
{
    m_clock.start();
    m_tick.setInterval(1000);
    connect(&m_tick, &QTimer::timeout, this, [this] {
        for (const Task &task : m_tasks)
            if (task.active())
                changed(task);
    });
}

quint64 TaskModel::start(const QString &title, std::function<void()> cancel)
{
    if (m_tasks.size() > keptFinished) {
        const auto oldest = std::ranges::find_if(m_tasks, [](const Task &t) { return !t.active(); });
        if (oldest != m_tasks.end())
            forget(oldest->id);
    }
    const int row = static_cast<int>(m_tasks.size());
    beginInsertRows({}, row, row);
    Task task;
    task.id = m_next++;
    task.title = title;
    task.cancel = std::move(cancel);
    task.started = now();
    m_tasks.push_back(std::move(task));
    endInsertRows();
    activeMayHaveChanged();
    return m_next - 1;
}

void TaskModel::setRunning(quint64 id)
{
    Task *task = find(id);
    if (!task || task->state != TaskState::waiting)
        return;
    task->state = TaskState::running;
    task->started = now();
    changed(*task);
}

void TaskModel::setProgress(quint64 id, const QString &stage, qint64 done, qint64 total, const QString &unit)
{
    Task *task = find(id);
    if (!task || !task->active())
        return;
    if (task->stage != stage || task->unit != unit)
        task->meter.reset();
    task->state = TaskState::running;
    task->stage = stage;
    task->unit = unit;
    task->done = done;
    task->total = total;
    task->meter.add(now(), done);
    changed(*task);
}

void TaskModel::finish(quint64 id, TaskState state, const QString &outcome)
{
    Task *task = find(id);
    if (!task || !task->active())
        return;
    task->state = state;
    task->outcome = outcome;
    task->cancel = {};
    task->ended = now();
    changed(*task);
    activeMayHaveChanged();
}

void TaskModel::cancel(quint64 id)
{
    Task *task = find(id);
    if (!task || !task->cancel || task->cancelling)
        return;
    task->cancelling = true;
    const auto cancel = task->cancel; // the call may finish the task at once
    changed(*task);
    cancel();
}

void TaskModel::cancelAll()
{
    std::vector<quint64> ids;
    for (const Task &task : m_tasks)
        if (task.active())
            ids.push_back(task.id);
    for (quint64 id : ids)
        cancel(id);
}

void TaskModel::clearFinished()
{
    for (std::size_t i = m_tasks.size(); i-- > 0;)
        if (!m_tasks[i].active())
            forget(m_tasks[i].id);
}

void TaskModel::forget(quint64 id)
{
    const QModelIndex index = indexOf(id);
    if (!index.isValid())
        return;
    beginRemoveRows({}, index.row(), index.row());
    m_tasks.erase(m_tasks.begin() + index.row());
    endRemoveRows();
    activeMayHaveChanged();
}

int TaskModel::activeCount() const
{
    return static_cast<int>(std::ranges::count_if(m_tasks, &Task::active));
}

quint64 TaskModel::shownTask() const
{
    const auto running = std::ranges::find_if(m_tasks, [](const Task &t) { return t.state == TaskState::running; });
    if (running != m_tasks.end())
        return running->id;
    const auto waiting = std::ranges::find_if(m_tasks, &Task::active);
    return waiting == m_tasks.end() ? 0 : waiting->id;
}

QModelIndex TaskModel::indexOf(quint64 id) const
{
    const auto found = std::ranges::find_if(m_tasks, [id](const Task &t) { return t.id == id; });
    return found == m_tasks.end() ? QModelIndex() : index(static_cast<int>(found - m_tasks.begin()));
}

int TaskModel::rowCount(const QModelIndex &parent) const
{
    return parent.isValid() ? 0 : static_cast<int>(m_tasks.size());
}

QVariant TaskModel::data(const QModelIndex &index, int role) const
{
    if (!checkIndex(index, CheckIndexOption::IndexIsValid))
        return {};
    const Task &task = m_tasks[static_cast<std::size_t>(index.row())];
    switch (role) {
    case Qt::DisplayRole: return task.title;
    case Qt::ToolTipRole: return QString(task.title + QLatin1Char('\n') + detail(task));
    case Qt::AccessibleTextRole: return QString(task.title + QStringLiteral(", ") + detail(task));
    case IdRole: return task.id;
    case StateRole: return QVariant::fromValue(static_cast<int>(task.state));
    case FractionRole:
        if (task.state == TaskState::done)
            return 1.0;
        return task.total > 0 ? std::clamp(static_cast<double>(task.done) / static_cast<double>(task.total), 0.0, 1.0) : -1.0;
    case DetailRole: return detail(task);
    case CancellableRole: return task.active() && task.cancel && !task.cancelling;
    default: return {};
    }
}

TaskModel::Task *TaskModel::find(quint64 id)
{
    const auto found = std::ranges::find_if(m_tasks, [id](const Task &t) { return t.id == id; });
    return found == m_tasks.end() ? nullptr : &*found;
}

QString TaskModel::detail(const Task &task) const
{
    const QLocale locale(QLocale::English);
    switch (task.state) {
    case TaskState::waiting: return task.cancelling ? tr("cancelling") : tr("waiting");
    case TaskState::done:
        return (task.outcome.isEmpty() ? tr("done") : task.outcome) + tr(" · %1").arg(durationText(task.ended - task.started));
    case TaskState::failed: return task.outcome.isEmpty() ? tr("failed") : tr("failed: %1").arg(task.outcome);
    case TaskState::cancelled: return task.outcome.isEmpty() ? tr("cancelled") : tr("cancelled · %1").arg(task.outcome);
    case TaskState::running: break;
    }
    if (task.cancelling)
        return tr("cancelling");
    QStringList parts;
    if (!task.stage.isEmpty())
        parts << task.stage;
    if (task.total > 0)
        parts << tr("%1 / %2 %3").arg(locale.toString(task.done), locale.toString(task.total), task.unit).trimmed();
    else if (task.done > 0)
        parts << QStringLiteral("%1 %2").arg(locale.toString(task.done), task.unit).trimmed();
    const double t = now();
    if (const auto rate = task.meter.rate(t); rate && !task.unit.isEmpty())
        parts << tr("%1 %2/s").arg(rateText(*rate), task.unit);
    if (const auto left = task.meter.remaining(t, task.total))
        parts << tr("%1 left").arg(durationText(*left));
    return parts.isEmpty() ? tr("running") : parts.join(QStringLiteral(" · "));
}

void TaskModel::changed(const Task &task)
{
    const QModelIndex index = indexOf(task.id);
    Q_EMIT dataChanged(index, index);
}

void TaskModel::activeMayHaveChanged()
{
    const int active = activeCount();
    if (active > 0 && !m_tick.isActive())
        m_tick.start();
    else if (active == 0)
        m_tick.stop();
    if (active != std::exchange(m_active, active))
        Q_EMIT activeChanged(active);
}

} // namespace spectra
