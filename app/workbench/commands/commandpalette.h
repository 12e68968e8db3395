// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QDialog>
#include <QLineEdit>
#include <QListView>
#include <QStandardItemModel>

namespace spectra {

class CommandRegistry;

/// Every command by a few letters of its name. Enter does the chosen one, Escape closes. Commands that cannot be done now
/// are shown greyed at the end, so that one learns that they exist.
class CommandPalette : public QDialog {
    Q_OBJECT
public:
    explicit CommandPalette(CommandRegistry &registry, QWidget *parent);
    void popUp();

protected:
    bool eventFilter(QObject *watched, QEvent *event) override;

private:
    void fill(const QString &pattern);
    void accepted(const QModelIndex &index);

    CommandRegistry &m_registry;
    QLineEdit *m_edit;
    QListView *m_list;
    QStandardItemModel *m_model;
};

/// All shortcuts by category.
class ShortcutSheet : public QDialog {
    Q_OBJECT
public:
    explicit ShortcutSheet(const CommandRegistry &registry, QWidget *parent);
};

} // namespace spectra
