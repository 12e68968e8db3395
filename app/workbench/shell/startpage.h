// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QListWidget>
#include <QPushButton>
#include <QWidget>

namespace spectra {

class Workbench;

/// What is seen before anything is open: the bundled example, a prompt of one's own, Open…, recent work, and where to
/// drop files.
class StartPage : public QWidget {
    Q_OBJECT
public:
    explicit StartPage(Workbench &workbench, QWidget *parent = nullptr);
    [[nodiscard]] QPushButton *exampleButton() const { return m_example; }
    [[nodiscard]] QListWidget *recentList() const { return m_recent; }

Q_SIGNALS:
    void openRequested();
    void promptRequested();

protected:
    void showEvent(QShowEvent *event) override;
    void paintEvent(QPaintEvent *event) override;

private:
    void refresh();
    Workbench &m_workbench;
    QWidget *m_drop;
    QPushButton *m_example;
    QListWidget *m_recent;
};

} // namespace spectra
