// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/viewcanvas.h"

#include "views/view.h"

#include <QContextMenuEvent>
#include <QHelpEvent>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QToolTip>

#include <algorithm>

namespace spectra {

ViewCanvas::ViewCanvas(View *view) : QWidget(view), m_view(view), m_notice(new QLabel(this))
{
    setObjectName(QStringLiteral("canvas"));
    setAccessibleName(view->title());
    setMouseTracking(true);
    setFocusPolicy(Qt::StrongFocus);
    setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
    setMinimumSize(120, 80);
    m_notice->setObjectName(QStringLiteral("notice"));
    m_notice->setWordWrap(true);
    m_notice->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    m_notice->setAlignment(Qt::AlignCenter);
    m_notice->setTextFormat(Qt::PlainText);
    m_notice->hide();
}

void ViewCanvas::showNotice(const QString &text, bool error, bool overContent)
{
    m_over = overContent;
    m_notice->setText(text);
    m_notice->setAccessibleName(text);
    QPalette p = palette();
    const Theme &theme = m_view->theme();
    p.setColor(QPalette::WindowText, error ? theme.error : theme.muted);
    p.setColor(QPalette::Window, mixed(theme.panel, theme.error, 0.10));
    m_notice->setPalette(p);
    m_notice->setAutoFillBackground(error && overContent);
    m_notice->setVisible(!text.isEmpty());
    if (m_content != nullptr)
        m_content->setVisible(text.isEmpty() || overContent);
    placeNotice();
    m_notice->raise();
}

void ViewCanvas::setContent(QWidget *widget)
{
    m_content = widget;
    widget->setParent(this);
    setFocusProxy(widget);
    placeNotice();
}

void ViewCanvas::placeNotice()
{
    if (m_content != nullptr)
        m_content->setGeometry(rect());
    const int w = std::min(width() - 16, 460);
    const int h = m_over ? std::min(height(), m_notice->heightForWidth(w) + 8) : height() - 8;
    m_notice->setGeometry((width() - w) / 2, m_over ? 0 : 4, w, h);
}

void ViewCanvas::resizeEvent(QResizeEvent *)
{
    placeNotice();
}

void ViewCanvas::paintEvent(QPaintEvent *)
{
    QPainter p(this);
    const Theme &theme = m_view->theme();
    p.fillRect(rect(), theme.panel);
    if (m_content != nullptr)
        return;
    if (m_view->m_hasContent) {
        p.setRenderHint(QPainter::Antialiasing);
        m_view->paintContent(p, m_view->canvasArea(), theme);
        if (m_view->state() == ViewState::busy) {
            // A thin line along the top: new data is being read while the old picture stays.
            p.fillRect(QRectF(0, 0, width(), 2), theme.accent);
        }
    }
    if (hasFocus()) {
        p.setRenderHint(QPainter::Antialiasing, false);
        p.setPen(QPen(theme.accent, 1));
        p.setBrush(Qt::NoBrush);
        p.drawRect(rect().adjusted(0, 0, -1, -1));
    }
}

void ViewCanvas::mousePressEvent(QMouseEvent *event)
{
    if (!m_view->m_hasContent || !m_view->mousePressed(event))
        event->ignore();
}

void ViewCanvas::mouseMoveEvent(QMouseEvent *event)
{
    if (!m_view->m_hasContent || !m_view->mouseMoved(event))
        event->ignore();
}

void ViewCanvas::mouseReleaseEvent(QMouseEvent *event)
{
    if (!m_view->m_hasContent || !m_view->mouseReleased(event))
        event->ignore();
}

void ViewCanvas::mouseDoubleClickEvent(QMouseEvent *event)
{
    if (!m_view->m_hasContent || !m_view->mouseDoubleClicked(event))
        event->ignore();
}

void ViewCanvas::wheelEvent(QWheelEvent *event)
{
    if (!m_view->m_hasContent || !m_view->wheelTurned(event))
        event->ignore();
}

void ViewCanvas::keyPressEvent(QKeyEvent *event)
{
    if (!m_view->m_hasContent || !m_view->keyPressed(event))
        QWidget::keyPressEvent(event);
}

void ViewCanvas::leaveEvent(QEvent *)
{
    m_view->mouseLeft();
}

void ViewCanvas::focusInEvent(QFocusEvent *)
{
    update();
}

void ViewCanvas::focusOutEvent(QFocusEvent *)
{
    update();
}

void ViewCanvas::contextMenuEvent(QContextMenuEvent *event)
{
    QMenu *menu = m_view->createContextMenu(this);
    menu->setAttribute(Qt::WA_DeleteOnClose);
    menu->popup(event->globalPos());
}

bool ViewCanvas::event(QEvent *event)
{
    if (event->type() == QEvent::ToolTip && m_view->m_hasContent) {
        const auto *help = static_cast<QHelpEvent *>(event);
        const QString text = m_view->toolTipAt(help->pos());
        if (text.isEmpty())
            QToolTip::hideText();
        else
            QToolTip::showText(help->globalPos(), text, this);
        return true;
    }
    return QWidget::event(event);
}

} // namespace spectra
