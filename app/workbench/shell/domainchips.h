// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/session.h"

#include <QMenu>
#include <QToolButton>
#include <QWidget>

#include <vector>

namespace spectra {

/// The domains of the current trace as chips to show and hide; where they do not fit, one button with a menu. None
/// unticked means that all are shown.
class DomainChips : public QWidget {
    Q_OBJECT
public:
    explicit DomainChips(Session &session, QWidget *parent = nullptr);

    QSize sizeHint() const override;
    QSize minimumSizeHint() const override;
    [[nodiscard]] const std::vector<QToolButton *> &chips() const { return m_chips; }
    [[nodiscard]] QToolButton *menuButton() const { return m_button; }

protected:
    void resizeEvent(QResizeEvent *event) override;

private:
    void rebuild();
    void sync();
    void toggle(int domain);
    void arrange();

    Session &m_session;
    std::vector<QString> m_names;
    std::vector<QToolButton *> m_chips;
    QToolButton *m_button;
    QMenu *m_menu;
};

} // namespace spectra
