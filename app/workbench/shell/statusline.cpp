// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/statusline.h"

#include "app/workbench/shell/ratemeter.h"
#include "app/workbench/shell/taskpanel.h"
#include "app/workbench/shell/widgets.h"
#include "engine/core/files.h"

namespace spectra {

StatusLine::StatusLine(Session &session, TaskModel &tasks, QWidget *parent)
    : QStatusBar(parent)
    , m_session(session)
    , m_tasks(new TaskIndicator(tasks, this))
    , m_note(new ElidedLabel(this))
    , m_scope(new QLabel(this))
    , m_memory(new QLabel(this))
{
    setObjectName(QStringLiteral("statusLine"));
    setSizeGripEnabled(false);
    setContentsMargins(4, 0, 8, 0);
    m_note->setObjectName(QStringLiteral("modelNote"));
    m_scope->setObjectName(QStringLiteral("scope"));
    m_scope->setForegroundRole(QPalette::PlaceholderText);
    m_memory->setForegroundRole(QPalette::PlaceholderText);
    m_memory->setToolTip(tr("Memory of this program, without files that are mapped"));
    addWidget(m_tasks, 2);
    addPermanentWidget(m_note, 1);
    addPermanentWidget(m_scope);
    addPermanentWidget(m_memory);
    connect(m_tasks, &TaskIndicator::listRequested, this, &StatusLine::taskListRequested);
    connect(&session, &Session::currentChanged, this, &StatusLine::showTrace);
    connect(&session, &Session::traceGrew, this, &StatusLine::showTrace);
    m_timer.setInterval(2000);
    connect(&m_timer, &QTimer::timeout, this, &StatusLine::showMemory);
    m_timer.start();
    showTrace();
    showMemory();
}

void StatusLine::setTheme(const Theme &theme)
{
    QPalette palette = m_note->palette();
    palette.setColor(QPalette::WindowText, theme.warning);
    m_note->setPalette(palette);
}

QString StatusLine::scopeText() const
{
    return m_scope->text();
}

QString StatusLine::noteText() const
{
    return m_note->text();
}

QString StatusLine::scopeOf(const TraceInfo &info)
{
    const ModelAttributes &model = info.model;
    QStringList parts;
    const QString scope = QString::fromStdString(model.sinkhornScope);
    if (!scope.isEmpty())
        parts << tr("%1 routing").arg(scope);
    else if (!model.router.empty())
        parts << QString::fromStdString(model.router);
    if (!model.causal)
        parts << tr("not causal");
    if (model.sinkhornEpsilon)
        parts << tr("ε %1").arg(*model.sinkhornEpsilon);
    const QString dtype = QString::fromStdString(model.dtype);
    if (!dtype.isEmpty())
        parts << (dtype == QLatin1String("f32") ? QStringLiteral("float32") : dtype);
    if (!model.device.empty())
        parts << QString::fromStdString(model.device).toUpper();
    return parts.join(QStringLiteral(" · "));
}

void StatusLine::showTrace()
{
    const auto trace = m_session.current();
    m_scope->setText(trace ? scopeOf(*trace->info) : QString());
    m_scope->setToolTip(trace ? tr("How the tokens of this trace were routed and computed") : QString());
    m_note->setText(trace ? QString::fromStdString(trace->info->model.note) : QString());
    m_note->setVisible(!m_note->text().isEmpty());
}

void StatusLine::showMemory()
{
    m_memory->setText(bytesText(static_cast<double>(anonymousMemory())));
}

} // namespace spectra
