// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/taskpanel.h"

#include "app/workbench/shell/widgets.h"

#include <QHBoxLayout>
#include <QPushButton>
#include <QScrollArea>

namespace spectra {

TaskRow::TaskRow(TaskModel &model, quint64 task, bool compact, QWidget *parent)
    : QWidget(parent)
    , m_model(model)
    , m_task(task)
    , m_title(new QLabel(this))
    , m_detail(new ElidedLabel(this))
    , m_bar(new QProgressBar(this))
    , m_cancel(new QToolButton(this))
{
    m_detail->setQuiet(true);
    m_bar->setTextVisible(false);
    m_bar->setFixedHeight(8);
    m_bar->setFixedWidth(compact ? 110 : 160);
    m_cancel->setText(tr("Cancel"));
    auto *layout = new QHBoxLayout(this);
    layout->setContentsMargins(compact ? 4 : 8, compact ? 0 : 4, 4, compact ? 0 : 4);
    layout->setSpacing(10);
    layout->addWidget(m_title);
    layout->addWidget(m_bar);
    layout->addWidget(m_detail, 1);
    layout->addWidget(m_cancel);
    if (compact) {
        m_cancel->setAutoRaise(true);
        m_detail->setMinimumWidth(160);
    }
    connect(m_cancel, &QToolButton::clicked, this, [this] { m_model.cancel(m_task); });
    refresh();
}

void TaskRow::refresh()
{
    const QModelIndex index = m_model.indexOf(m_task);
    if (!index.isValid())
        return;
    const QString title = index.data().toString();
    m_title->setText(fontMetrics().elidedText(title, Qt::ElideMiddle, 260));
    m_title->setToolTip(title);
    m_detail->setText(index.data(TaskModel::DetailRole).toString());
    const auto state = static_cast<TaskState>(index.data(TaskModel::StateRole).toInt());
    const double fraction = index.data(TaskModel::FractionRole).toDouble();
    const bool active = state == TaskState::running || state == TaskState::waiting;
    m_bar->setVisible(active);
    if (fraction < 0)
        m_bar->setRange(0, state == TaskState::running ? 0 : 1);
    else {
        m_bar->setRange(0, 1000);
        m_bar->setValue(static_cast<int>(fraction * 1000));
    }
    m_bar->setAccessibleName(tr("Progress of %1").arg(title));
    m_cancel->setVisible(active);
    m_cancel->setEnabled(index.data(TaskModel::CancellableRole).toBool());
    m_cancel->setToolTip(tr("Cancel: %1").arg(title));
    m_cancel->setAccessibleName(tr("Cancel %1").arg(title));
    setAccessibleName(index.data(Qt::AccessibleTextRole).toString());
}

TaskPanel::TaskPanel(TaskModel &model, QWidget *parent)
    : QWidget(parent), m_model(model), m_empty(quietLabel(tr("Nothing is running. Runs, loading and maps will be listed here."), this))
{
    setAccessibleName(tr("Tasks"));
    auto *inner = new QWidget;
    m_rows = new QVBoxLayout(inner);
    m_rows->setContentsMargins(0, 4, 0, 4);
    m_rows->setSpacing(0);
    m_empty->setContentsMargins(8, 4, 8, 4);
    m_rows->addWidget(m_empty);
    m_rows->addStretch(1);
    auto *scroll = new QScrollArea(this);
    scroll->setWidgetResizable(true);
    scroll->setFrameShape(QFrame::NoFrame);
    scroll->setWidget(inner);
    auto *clear = new QPushButton(tr("Clear finished"), this);
    clear->setToolTip(tr("Takes finished tasks off the list"));
    connect(clear, &QPushButton::clicked, &model, &TaskModel::clearFinished);
    auto *layout = new QVBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 4);
    layout->addWidget(scroll, 1);
    layout->addWidget(clear, 0, Qt::AlignRight);
    connect(&model, &TaskModel::rowsInserted, this, &TaskPanel::rebuild);
    connect(&model, &TaskModel::rowsRemoved, this, &TaskPanel::rebuild);
    connect(&model, &TaskModel::dataChanged, this, [this](const QModelIndex &index) {
        for (TaskRow *row : rows())
            if (row->task() == index.data(TaskModel::IdRole).toULongLong())
                row->refresh();
    });
    rebuild();
}

std::vector<TaskRow *> TaskPanel::rows() const
{
    std::vector<TaskRow *> found;
    for (int i = 0; i < m_rows->count(); ++i)
        if (auto *row = qobject_cast<TaskRow *>(m_rows->itemAt(i)->widget()))
            found.push_back(row);
    return found;
}

void TaskPanel::rebuild()
{
    std::vector<TaskRow *> old = rows();
    for (TaskRow *row : old)
        if (!m_model.indexOf(row->task()).isValid()) {
            m_rows->removeWidget(row);
            row->hide();
            row->deleteLater();
        }
    old = rows();
    for (int i = 0; i < m_model.rowCount(); ++i) {
        const quint64 id = m_model.index(i).data(TaskModel::IdRole).toULongLong();
        if (std::ranges::none_of(old, [id](const TaskRow *row) { return row->task() == id; }))
            m_rows->insertWidget(0, new TaskRow(m_model, id, false, this)); // newest first
    }
    m_empty->setVisible(m_model.rowCount() == 0);
}

TaskIndicator::TaskIndicator(TaskModel &model, QWidget *parent) : QWidget(parent), m_model(model), m_more(new QToolButton(this))
{
    setObjectName(QStringLiteral("taskIndicator"));
    m_more->setAutoRaise(true);
    m_more->setToolTip(tr("Show the task list"));
    auto *layout = new QHBoxLayout(this);
    layout->setContentsMargins(0, 0, 0, 0);
    layout->addWidget(m_more);
    connect(m_more, &QToolButton::clicked, this, &TaskIndicator::listRequested);
    connect(&model, &TaskModel::activeChanged, this, &TaskIndicator::refresh);
    connect(&model, &TaskModel::dataChanged, this, &TaskIndicator::refresh);
    connect(&model, &TaskModel::rowsRemoved, this, &TaskIndicator::refresh);
    refresh();
}

void TaskIndicator::refresh()
{
    const quint64 shown = m_model.shownTask();
    if (m_row && m_row->task() != shown) {
        m_row->hide();
        m_row->deleteLater();
        m_row = nullptr;
    }
    if (shown != 0 && !m_row) {
        m_row = new TaskRow(m_model, shown, true, this);
        static_cast<QHBoxLayout *>(layout())->insertWidget(0, m_row);
    }
    if (m_row)
        m_row->refresh();
    const int more = m_model.activeCount() - 1;
    m_more->setVisible(more > 0);
    m_more->setText(tr("+%1 more").arg(more));
    setVisible(shown != 0);
}

} // namespace spectra
