// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/commands/command.h"

namespace spectra {

Command::Command(Description description, QObject *parent)
    : QObject(parent)
    , m_description(std::move(description))
    , m_action(new QAction(m_description.text, this))
{
    m_action->setObjectName(m_description.id);
    m_action->setShortcut(m_description.shortcut);
    m_action->setCheckable(m_description.checkable);
    m_action->setStatusTip(m_description.tip);
    const QString keys = m_description.shortcut.toString(QKeySequence::NativeText);
    m_action->setToolTip(keys.isEmpty() ? m_description.tip : QStringLiteral("%1 (%2)").arg(m_description.tip, keys));
    connect(m_action, &QAction::triggered, this, [this] { triggered(); });
}

QString Command::title() const
{
    QString text = m_action->text();
    text.replace(QLatin1String("&&"), QLatin1String("\x01"));
    text.remove(QLatin1Char('&'));
    text.replace(QLatin1String("\x01"), QLatin1String("&"));
    return text;
}

} // namespace spectra
