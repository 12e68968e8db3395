// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/shell/domainchips.h"

#include "views/colormap.h"

#include <QPainter>

#include <algorithm>

namespace spectra {

namespace {

constexpr int gap = 2;

QIcon dot(const QColor &color, qreal dpr)
{
    QPixmap pixmap(QSize(12, 12) * dpr);
    pixmap.setDevicePixelRatio(dpr);
    pixmap.fill(Qt::transparent);
    QPainter painter(&pixmap);
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(Qt::NoPen);
    painter.setBrush(color);
    painter.drawEllipse(QRectF(1.5, 1.5, 9, 9));
    return QIcon(pixmap);
}

} // namespace

DomainChips::DomainChips(Session &session, QWidget *parent)
    : QWidget(parent), m_session(session), m_button(new QToolButton(this)), m_menu(new QMenu(this))
{
    setObjectName(QStringLiteral("domainChips"));
    setAccessibleName(tr("Domains shown"));
    setSizePolicy(QSizePolicy::Preferred, QSizePolicy::Fixed);
    m_button->setPopupMode(QToolButton::InstantPopup);
    m_button->setMenu(m_menu);
    m_button->setToolTip(tr("Choose which domains are shown"));
    m_button->setAccessibleName(tr("Domains shown"));
    m_button->setAutoRaise(true);
    connect(&session, &Session::currentChanged, this, &DomainChips::rebuild);
    connect(&session, &Session::traceGrew, this, &DomainChips::rebuild);
    connect(&session, &Session::domainsChanged, this, &DomainChips::sync);
    rebuild();
}

void DomainChips::rebuild()
{
    std::vector<QString> names;
    if (const auto trace = m_session.current())
        for (const std::string &domain : trace->info->domains)
            names.push_back(domain.empty() ? tr("no domain") : QString::fromStdString(domain));
    if (names.size() == 1)
        names.clear(); // nothing to choose
    if (names == m_names && !m_chips.empty() == !names.empty()) {
        sync();
        return;
    }
    m_names = std::move(names);
    for (QToolButton *chip : m_chips)
        chip->deleteLater();
    m_chips.clear();
    m_menu->clear();
    for (int i = 0; i < static_cast<int>(m_names.size()); ++i) {
        const QString &name = m_names[static_cast<std::size_t>(i)];
        const QIcon icon = dot(domainColor(i), devicePixelRatioF());
        auto *chip = new QToolButton(this);
        chip->setText(name);
        chip->setIcon(icon);
        chip->setToolButtonStyle(Qt::ToolButtonTextBesideIcon);
        chip->setCheckable(true);
        chip->setAutoRaise(true);
        chip->setToolTip(tr("Show or hide the domain %1").arg(name));
        chip->setAccessibleName(tr("Domain %1").arg(name));
        connect(chip, &QToolButton::clicked, this, [this, i] { toggle(i); });
        m_chips.push_back(chip);
        QAction *action = m_menu->addAction(icon, name, this, [this, i] { toggle(i); });
        action->setCheckable(true);
    }
    if (!m_names.empty()) {
        m_menu->addSeparator();
        m_menu->addAction(tr("Show all domains"), this, [this] { m_session.setShownDomains({}); });
    }
    setVisible(!m_names.empty());
    sync();
    updateGeometry();
    arrange();
}

void DomainChips::sync()
{
    const auto &shown = m_session.shownDomains();
    int count = 0;
    for (int i = 0; i < static_cast<int>(m_chips.size()); ++i) {
        const bool on = shown.empty() || std::ranges::find(shown, i) != shown.end();
        count += on;
        m_chips[static_cast<std::size_t>(i)]->setChecked(on && !shown.empty());
        QFont font = m_chips[static_cast<std::size_t>(i)]->font();
        font.setStrikeOut(!on);
        m_chips[static_cast<std::size_t>(i)]->setFont(font);
        m_menu->actions().at(i)->setChecked(on);
    }
    const int all = static_cast<int>(m_chips.size());
    m_button->setText(count == all ? (all == 1 ? tr("1 domain") : tr("%1 domains").arg(all)) : tr("%1 of %2 domains").arg(count).arg(all));
}

void DomainChips::toggle(int domain)
{
    // The first click on a chip shows that domain alone; further ones add and remove.
    std::vector<int> shown = m_session.shownDomains();
    if (const auto at = std::ranges::find(shown, domain); at != shown.end())
        shown.erase(at);
    else
        shown.push_back(domain);
    std::ranges::sort(shown);
    if (shown.size() == m_chips.size())
        shown.clear();
    m_session.setShownDomains(shown);
    sync();
}

void DomainChips::arrange()
{
    int wanted = 0;
    for (const QToolButton *chip : m_chips)
        wanted += chip->sizeHint().width() + gap;
    const bool fits = wanted <= width() && !m_chips.empty();
    int x = 0;
    for (QToolButton *chip : m_chips) {
        const QSize size = chip->sizeHint();
        chip->setGeometry(x, (height() - size.height()) / 2, size.width(), size.height());
        chip->setVisible(fits);
        x += size.width() + gap;
    }
    const QSize size = m_button->sizeHint();
    m_button->setGeometry(0, (height() - size.height()) / 2, std::min(width(), size.width()), size.height());
    m_button->setVisible(!fits && !m_chips.empty());
}

QSize DomainChips::sizeHint() const
{
    int width = 0, height = m_button->sizeHint().height();
    for (const QToolButton *chip : m_chips) {
        width += chip->sizeHint().width() + gap;
        height = std::max(height, chip->sizeHint().height());
    }
    return {width, height};
}

QSize DomainChips::minimumSizeHint() const
{
    return {m_button->sizeHint().width(), sizeHint().height()};
}

void DomainChips::resizeEvent(QResizeEvent *)
{
    arrange();
}

} // namespace spectra
