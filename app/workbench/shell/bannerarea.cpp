// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/bannerarea.h"

#include "views/theme.h"

#include <QApplication>
#include <QGuiApplication>
#include <QHBoxLayout>
#include <QLabel>
#include <QPainter>
#include <QPushButton>
#include <QStyle>
#include <QToolButton>

namespace spectra {

namespace {

QColor tone(Notice::Kind kind, bool dark)
{
    const Theme theme = Theme::make(dark ? ThemeKind::dark : ThemeKind::light);
    switch (kind) {
    case Notice::Kind::error: return theme.error;
    case Notice::Kind::warning: return theme.warning;
    case Notice::Kind::information: break;
    }
    return theme.accent;
}

QString html(const Notice &notice)
{
    QString text = QStringLiteral("<b>%1</b>").arg(notice.what.toHtmlEscaped());
    if (!notice.where.isEmpty())
        text += QStringLiteral("<br>%1").arg(notice.where.toHtmlEscaped());
    if (!notice.mend.isEmpty())
        text += QStringLiteral("<br>%1").arg(notice.mend.toHtmlEscaped());
    return text;
}

} // namespace

Banner::Banner(Notice notice, QWidget *parent) : QFrame(parent), m_notice(std::move(notice))
{
    setObjectName(QStringLiteral("banner"));
    setAccessibleName(plainText());
    auto *icon = new QLabel(this);
    const auto pixmap = m_notice.kind == Notice::Kind::error     ? QStyle::SP_MessageBoxCritical
                        : m_notice.kind == Notice::Kind::warning ? QStyle::SP_MessageBoxWarning
                                                                 : QStyle::SP_MessageBoxInformation;
    icon->setPixmap(style()->standardIcon(pixmap).pixmap(20, 20));
    auto *text = new QLabel(html(m_notice), this);
    text->setObjectName(QStringLiteral("bannerText"));
    text->setTextFormat(Qt::RichText);
    text->setWordWrap(true);
    text->setTextInteractionFlags(Qt::TextSelectableByMouse | Qt::TextSelectableByKeyboard);
    text->setAccessibleName(plainText());
    auto *layout = new QHBoxLayout(this);
    layout->setContentsMargins(12, 6, 6, 6);
    layout->setSpacing(8);
    layout->addWidget(icon, 0, Qt::AlignTop);
    layout->addWidget(text, 1);
    for (const auto &[label, function] : m_notice.actions) {
        auto *button = new QPushButton(label, this);
        layout->addWidget(button, 0, Qt::AlignVCenter);
        connect(button, &QPushButton::clicked, this, [this, function] {
            Q_EMIT closed();
            function();
        });
    }
    auto *close = new QToolButton(this);
    close->setObjectName(QStringLiteral("bannerClose"));
    close->setText(QStringLiteral("×"));
    close->setAutoRaise(true);
    close->setToolTip(tr("Close this notice"));
    close->setAccessibleName(tr("Close this notice"));
    layout->addWidget(close, 0, Qt::AlignTop);
    connect(close, &QToolButton::clicked, this, &Banner::closed);
}

QString Banner::plainText() const
{
    QStringList lines{m_notice.what};
    for (const QString &line : {m_notice.where, m_notice.mend})
        if (!line.isEmpty())
            lines << line;
    return lines.join(QLatin1Char('\n'));
}

void Banner::paintEvent(QPaintEvent *)
{
    const bool dark = palette().color(QPalette::Window).lightness() < 128;
    const QColor base = palette().color(QPalette::Base), color = tone(m_notice.kind, dark);
    QPainter painter(this);
    painter.fillRect(rect(), mixed(base, color, dark ? 0.18 : 0.10));
    painter.fillRect(QRect(0, 0, 4, height()), color);
    painter.fillRect(QRect(0, height() - 1, width(), 1), mixed(base, color, 0.35));
}

BannerArea::BannerArea(QWidget *parent) : QWidget(parent), m_layout(new QVBoxLayout(this))
{
    setObjectName(QStringLiteral("banners"));
    m_layout->setContentsMargins(0, 0, 0, 0);
    m_layout->setSpacing(0);
}

void BannerArea::show(Notice notice)
{
    auto open = banners();
    for (Banner *banner : open) {
        const Notice &old = banner->notice();
        if (old.what == notice.what && old.where == notice.where)
            return;
    }
    if (open.size() >= static_cast<std::size_t>(maxBanners))
        take(open.front());
    auto *banner = new Banner(std::move(notice), this);
    m_layout->addWidget(banner);
    connect(banner, &Banner::closed, this, [this, banner] { take(banner); });
    Q_EMIT emptyChanged(false);
}

void BannerArea::clear()
{
    for (Banner *banner : banners())
        take(banner);
}

std::vector<Banner *> BannerArea::banners() const
{
    std::vector<Banner *> found;
    for (int i = 0; i < m_layout->count(); ++i)
        if (auto *banner = qobject_cast<Banner *>(m_layout->itemAt(i)->widget()))
            found.push_back(banner);
    return found;
}

void BannerArea::take(Banner *banner)
{
    m_layout->removeWidget(banner);
    banner->hide();
    banner->deleteLater();
    if (m_layout->isEmpty())
        Q_EMIT emptyChanged(true);
}

} // namespace spectra
