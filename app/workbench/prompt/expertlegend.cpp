// SPDX-License-Identifier: GPL-3.0-or-later
#include "app/workbench/prompt/expertlegend.h"

#include <QMouseEvent>
#include <QPainter>

#include <algorithm>

namespace spectra {

namespace {

constexpr int swatch = 10;

} // namespace

ExpertLegend::ExpertLegend(Session &session, QWidget *parent)
    : QWidget(parent), m_session(session), m_theme(Theme::make(ThemeKind::light))
{
    QSizePolicy policy(QSizePolicy::Preferred, QSizePolicy::Minimum);
    policy.setHeightForWidth(true);
    setSizePolicy(policy);
    setAccessibleName(tr("Colours of the experts"));
    const auto changed = [this] {
        updateGeometry();
        update();
    };
    connect(&session, &Session::currentChanged, this, changed);
    connect(&session, &Session::traceGrew, this, changed);
    connect(&session, &Session::layerChanged, this, changed);
    connect(&session, &Session::expertsChanged, this, changed);
}

void ExpertLegend::setTheme(const Theme &theme)
{
    m_theme = theme;
    updateGeometry();
    update();
}

std::vector<QRect> ExpertLegend::places(int width) const
{
    std::vector<QRect> rects;
    const auto trace = m_session.current();
    if (!trace || trace->info->layers() == 0)
        return rects;
    const QFontMetrics metrics(font());
    const int line = metrics.height() + 4;
    int x = 0, y = line;
    const int experts = std::min(trace->info->experts, maxShown);
    for (int e = 0; e < experts; ++e) {
        const int w = swatch + 4 + metrics.horizontalAdvance(QStringLiteral("E%1").arg(e)) + 10;
        if (x > 0 && x + w > width) {
            x = 0;
            y += line;
        }
        rects.emplace_back(x, y, w, line);
        x += w;
    }
    return rects;
}

int ExpertLegend::heightForWidth(int width) const
{
    const auto rects = places(width);
    return rects.empty() ? 0 : rects.back().bottom() + 1;
}

QSize ExpertLegend::sizeHint() const
{
    return {200, heightForWidth(200)};
}

void ExpertLegend::paintEvent(QPaintEvent *)
{
    const auto rects = places(width());
    if (rects.empty())
        return;
    QPainter painter(this);
    painter.setRenderHint(QPainter::Antialiasing);
    painter.setPen(m_theme.muted);
    const int experts = m_session.current()->info->experts;
    QString title = tr("Colour: top expert of layer %1").arg(m_session.decoderLayer());
    if (experts > maxShown)
        title += tr(", first %1 of %2").arg(maxShown).arg(experts);
    painter.drawText(QRect(0, 0, width(), rects.front().top()), Qt::AlignLeft | Qt::AlignVCenter,
                     fontMetrics().elidedText(title, Qt::ElideRight, width()));
    const auto &selected = m_session.selectedExperts();
    for (int e = 0; e < static_cast<int>(rects.size()); ++e) {
        const QRect &r = rects[static_cast<std::size_t>(e)];
        const QRectF box(r.left() + 0.5, r.center().y() - swatch / 2.0 + 0.5, swatch, swatch);
        const bool on = std::ranges::find(selected, e) != selected.end();
        painter.setPen(on ? QPen(m_theme.selection, 2) : QPen(Qt::NoPen));
        painter.setBrush(expertColor(e));
        painter.drawRoundedRect(box, 2, 2);
        painter.setPen(m_theme.text);
        painter.drawText(r.adjusted(swatch + 4, 0, 0, 0), Qt::AlignLeft | Qt::AlignVCenter, QStringLiteral("E%1").arg(e));
    }
}

void ExpertLegend::mousePressEvent(QMouseEvent *event)
{
    const auto rects = places(width());
    for (int e = 0; e < static_cast<int>(rects.size()); ++e)
        if (rects[static_cast<std::size_t>(e)].contains(event->position().toPoint()))
            m_session.selectExpert(e, selectModeOf(event->modifiers()));
}

} // namespace spectra
