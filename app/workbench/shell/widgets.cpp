// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/widgets.h"

#include "views/paintkit.h"

#include <QHBoxLayout>
#include <QPainter>
#include <QToolButton>

namespace spectra {

ElidedLabel::ElidedLabel(QWidget *parent) : QWidget(parent)
{
    setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Fixed);
}

void ElidedLabel::setText(const QString &text)
{
    if (text == m_text)
        return;
    m_text = text;
    setToolTip(text);
    setAccessibleName(text);
    updateGeometry();
    update();
}

void ElidedLabel::setQuiet(bool quiet)
{
    m_quiet = quiet;
    update();
}

QSize ElidedLabel::sizeHint() const
{
    return {fontMetrics().horizontalAdvance(m_text) + 2, fontMetrics().height()};
}

QSize ElidedLabel::minimumSizeHint() const
{
    return {fontMetrics().averageCharWidth() * 4, fontMetrics().height()};
}

void ElidedLabel::paintEvent(QPaintEvent *)
{
    QPainter painter(this);
    painter.setPen(palette().color(m_quiet ? QPalette::PlaceholderText : QPalette::WindowText));
    painter.drawText(rect(), Qt::AlignLeft | Qt::AlignVCenter, wholeParts(QFontMetricsF(font()), m_text, width()));
}

DockTitle::DockTitle(QDockWidget *dock) : QWidget(dock), m_subtitle(new ElidedLabel(this))
{
    auto *title = new QLabel(dock->windowTitle(), this);
    QFont bold = title->font();
    bold.setWeight(QFont::DemiBold);
    title->setFont(bold);
    m_subtitle->setQuiet(true);
    const auto button = [this](const QString &text, const QString &tip) {
        auto *b = new QToolButton(this);
        b->setText(text);
        b->setAutoRaise(true);
        b->setToolTip(tip);
        b->setAccessibleName(tip);
        b->setFixedSize(22, 20);
        b->setFocusPolicy(Qt::NoFocus); // the View menu does the same from the keyboard
        return b;
    };
    QToolButton *floating = button(QStringLiteral("↗"), tr("Float %1, or dock it again").arg(dock->windowTitle()));
    QToolButton *close = button(QStringLiteral("×"), tr("Close %1 (the View menu shows it again)").arg(dock->windowTitle()));
    connect(floating, &QToolButton::clicked, dock, [dock] { dock->setFloating(!dock->isFloating()); });
    connect(close, &QToolButton::clicked, dock, &QDockWidget::close);
    connect(dock, &QDockWidget::windowTitleChanged, title, &QLabel::setText);
    auto *layout = new QHBoxLayout(this);
    layout->setContentsMargins(8, 2, 2, 2);
    layout->setSpacing(6);
    layout->addWidget(title);
    layout->addWidget(m_subtitle, 1);
    layout->addWidget(floating);
    layout->addWidget(close);
}

void DockTitle::paintEvent(QPaintEvent *)
{
    QPainter painter(this);
    painter.fillRect(rect(), palette().color(QPalette::Base));
    painter.fillRect(QRect(0, height() - 1, width(), 1), palette().color(QPalette::Mid));
}

QFont headingFont(QFont font, double scale)
{
    if (font.pixelSize() > 0)
        font.setPixelSize(static_cast<int>(font.pixelSize() * scale + 0.5));
    else
        font.setPointSizeF(font.pointSizeF() * scale);
    font.setWeight(QFont::DemiBold);
    return font;
}

QLabel *quietLabel(const QString &text, QWidget *parent)
{
    auto *label = new QLabel(text, parent);
    label->setWordWrap(true);
    label->setForegroundRole(QPalette::PlaceholderText);
    return label;
}

} // namespace spectra
