// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QAction>
#include <QKeySequence>
#include <QObject>
#include <QString>

namespace spectra {

/// One thing that a user can do: its action carries text, tip and shortcut for menus, tool bar, palette and shortcut
/// sheet. A subclass does it in triggered() and says in updateEnableState() whether it can be done now.
class Command : public QObject {
    Q_OBJECT
public:
    struct Description {
        QString id;       ///< "file.open": stable, part of saved settings
        QString category; ///< "File": group in palette and shortcut sheet
        QString text;     ///< menu text with mnemonic: "&Open…"
        QString tip;      ///< one sentence
        QKeySequence shortcut = {};
        bool checkable = false;
    };

    explicit Command(Description description, QObject *parent = nullptr);

    [[nodiscard]] QString id() const { return m_description.id; }
    [[nodiscard]] QString category() const { return m_description.category; }
    /// The text without its mnemonic.
    [[nodiscard]] QString title() const;
    [[nodiscard]] QAction *action() const { return m_action; }

    virtual void triggered() = 0;
    virtual void updateEnableState() {}

protected:
    void setEnabled(bool on) { m_action->setEnabled(on); }
    void setChecked(bool on) { m_action->setChecked(on); }
    [[nodiscard]] bool isChecked() const { return m_action->isChecked(); }

private:
    Description m_description;
    QAction *m_action;
};

} // namespace spectra
