// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/session.h"
#include "views/theme.h"

#include <QLabel>
#include <QStatusBar>
#include <QTimer>

namespace spectra {

class ElidedLabel;
class TaskIndicator;
class TaskModel;

/// What the pictures rest on, always in sight: routing scope, ε, number format, device, memory; and what a reader must
/// know of the model (a fresh router is balanced but untrained). At the left what is running.
class StatusLine : public QStatusBar {
    Q_OBJECT
public:
    StatusLine(Session &session, TaskModel &tasks, QWidget *parent);
    void setTheme(const Theme &theme);
    [[nodiscard]] QString scopeText() const;
    [[nodiscard]] QString noteText() const;
    /// "causal routing · ε 0.05 · float32 · CPU".
    [[nodiscard]] static QString scopeOf(const TraceInfo &info);

Q_SIGNALS:
    void taskListRequested();

private:
    void showTrace();
    void showMemory();
    Session &m_session;
    TaskIndicator *m_tasks;
    ElidedLabel *m_note;
    QLabel *m_scope, *m_memory;
    QTimer m_timer;
};

} // namespace spectra
