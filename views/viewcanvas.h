// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QWidget>

class QLabel;

namespace spectra {

class View;

/// Where a view paints and takes mouse and keyboard; also carries the text of empty, busy and failed states.
class ViewCanvas : public QWidget {
    Q_OBJECT
public:
    explicit ViewCanvas(View *view);
    void showNotice(const QString &text, bool error, bool overContent);
    void setContent(QWidget *widget);

protected:
    void paintEvent(QPaintEvent *event) override;
    void resizeEvent(QResizeEvent *event) override;
    void mousePressEvent(QMouseEvent *event) override;
    void mouseMoveEvent(QMouseEvent *event) override;
    void mouseReleaseEvent(QMouseEvent *event) override;
    void mouseDoubleClickEvent(QMouseEvent *event) override;
    void wheelEvent(QWheelEvent *event) override;
    void keyPressEvent(QKeyEvent *event) override;
    void leaveEvent(QEvent *event) override;
    void focusInEvent(QFocusEvent *event) override;
    void focusOutEvent(QFocusEvent *event) override;
    void contextMenuEvent(QContextMenuEvent *event) override;
    bool event(QEvent *event) override;

private:
    void placeNotice();
    View *m_view;
    QLabel *m_notice;
    QWidget *m_content = nullptr;
    bool m_over = false;
};

} // namespace spectra
