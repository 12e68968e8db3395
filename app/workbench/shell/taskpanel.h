// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "app/workbench/shell/taskmodel.h"

#include <QLabel>
#include <QProgressBar>
#include <QToolButton>
#include <QVBoxLayout>
#include <QWidget>

namespace spectra {

/// One task: title, progress, what is known of rate and remaining time, cancel.
class TaskRow : public QWidget {
    Q_OBJECT
public:
    TaskRow(TaskModel &model, quint64 task, bool compact, QWidget *parent);
    void refresh();
    [[nodiscard]] quint64 task() const { return m_task; }
    [[nodiscard]] QToolButton *cancelButton() const { return m_cancel; }

private:
    TaskModel &m_model;
    quint64 m_task;
    QLabel *m_title;
    class ElidedLabel *m_detail;
    QProgressBar *m_bar;
    QToolButton *m_cancel;
};

/// The task list: content of the Tasks dock.
class TaskPanel : public QWidget {
    Q_OBJECT
public:
    explicit TaskPanel(TaskModel &model, QWidget *parent = nullptr);
    [[nodiscard]] std::vector<TaskRow *> rows() const;

private:
    void rebuild();
    TaskModel &m_model;
    QVBoxLayout *m_rows;
    QLabel *m_empty;
};

/// The one task that the status bar shows, and how many more there are.
class TaskIndicator : public QWidget {
    Q_OBJECT
public:
    explicit TaskIndicator(TaskModel &model, QWidget *parent = nullptr);

Q_SIGNALS:
    void listRequested();

private:
    void refresh();
    TaskModel &m_model;
    TaskRow *m_row = nullptr;
    QToolButton *m_more;
};

} // namespace spectra
