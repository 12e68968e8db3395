// SPDX-License-Identifier: GPL-3.0-or-later
// Mouse and keyboard of the trajectory.
#include "views/trajectoryview.h"

#include "engine/core/routingrecord.h"
#include "views/paintkit.h"
#include "views/trajectorydata.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>

#include <algorithm>
#include <cmath>

namespace spectra {

std::int64_t TrajectoryView::tokenAt(const QPointF &position) const
{
    if (!m_data)
        return -1;
    const Layout l = layout(canvasArea(), theme());
    const QRectF target = l.cells.united(l.texts).united(l.selection);
    if (!target.contains(position) || position.x() < l.cells.left() || position.x() >= l.cells.right())
        return -1;
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(m_first + (position.x() - l.cells.left()) / l.tokenWidth), 0, m_data->tokens - 1);
}

int TrajectoryView::layerAt(const QPointF &position) const
{
    const Layout l = layout(canvasArea(), theme());
    if (position.y() < l.cells.top() || position.y() >= l.cells.bottom())
        return -1;
    return static_cast<int>((position.y() - l.cells.top()) / l.rowHeight);
}

QPointF TrajectoryView::positionOf(qint64 token, int layer) const
{
    if (!m_data)
        return {-1, -1};
    const Layout l = layout(canvasArea(), theme());
    return {l.cells.left() + (static_cast<double>(token) + 0.5 - m_first) * l.tokenWidth, l.cells.top() + (layer + 0.5) * l.rowHeight};
}

bool TrajectoryView::mousePressed(QMouseEvent *event)
{
    if (event->button() == Qt::MiddleButton) {
        m_panning = true;
        m_panFrom = event->position();
        return true;
    }
    if (event->button() != Qt::LeftButton)
        return false;
    m_mode = selectModeOf(event->modifiers());
    m_dragFrom = tokenAt(event->position());
    m_dragTo = -1;
    if (m_dragFrom < 0) {
        // The labels of the layers
        if (const int layer = layerAt(event->position()); layer >= 0)
            session()->setLayer(layer);
    }
    return true;
}

bool TrajectoryView::mouseMoved(QMouseEvent *event)
{
    if (!m_data)
        return false;
    if (m_panning) {
        const Layout l = layout(canvasArea(), theme());
        const double by = (event->position().x() - m_panFrom.x()) / l.tokenWidth;
        m_panFrom = event->position();
        setWindow(m_first - by, m_last - by);
        return true;
    }
    const std::int64_t token = tokenAt(event->position());
    if (event->buttons().testFlag(Qt::LeftButton) && m_dragFrom >= 0) {
        if (token >= 0 && (token != m_dragFrom || m_dragTo >= 0)) {
            m_dragTo = token;
            repaintCanvas();
        }
        return true;
    }
    m_hoverLayer = layerAt(event->position());
    session()->highlight(token >= 0 ? std::optional<std::int64_t>(token) : std::nullopt);
    return true;
}

bool TrajectoryView::mouseReleased(QMouseEvent *event)
{
    if (m_panning) {
        m_panning = false;
        return true;
    }
    if (event->button() != Qt::LeftButton || m_dragFrom < 0)
        return false;
    const std::int64_t from = m_dragFrom, to = m_dragTo;
    m_dragFrom = m_dragTo = -1;
    const auto t = current();
    if (to >= 0 && t) {
        RowSet rows(t->selection.size());
        rows.insertRange(static_cast<std::size_t>(std::min(from, to)), static_cast<std::size_t>(std::max(from, to)) + 1);
        rows.intersect(t->filter);
        session()->select(rows, m_mode, tr("Select tokens %1–%2").arg(std::min(from, to)).arg(std::max(from, to)));
    } else if (t) {
        if (m_mode != SelectMode::replace) {
            RowSet one(t->selection.size());
            one.insert(static_cast<std::size_t>(from));
            session()->select(one, m_mode, tr("Select token"));
        }
        session()->focusToken(from);
        if (const int layer = layerAt(event->position()); layer >= 0)
            session()->setLayer(layer);
    }
    repaintCanvas();
    return true;
}

bool TrajectoryView::mouseDoubleClicked(QMouseEvent *event)
{
    const std::int64_t token = tokenAt(event->position());
    if (token < 0)
        return false;
    setOptionQuietly(QStringLiteral("range"), QStringLiteral("sequence"));
    showSequenceOf(token);
    return true;
}

bool TrajectoryView::wheelTurned(QWheelEvent *event)
{
    if (!m_data)
        return false;
    const Layout l = layout(canvasArea(), theme());
    const QPoint delta = event->angleDelta();
    const double width = m_last - m_first;
    if (event->modifiers().testFlag(Qt::ShiftModifier) || std::abs(delta.x()) > std::abs(delta.y())) {
        const double by = -(delta.x() != 0 ? delta.x() : delta.y()) / 120.0 * width * 0.1;
        setWindow(m_first + by, m_last + by);
    } else {
        const double at = m_first + std::clamp((event->position().x() - l.cells.left()) / l.cells.width(), 0.0, 1.0) * width;
        const double factor = std::pow(1.0 / 1.0018, delta.y());
        const double wanted = std::clamp(width * factor, std::min(4.0, static_cast<double>(m_data->tokens)), static_cast<double>(m_data->tokens));
        const double f = wanted / width;
        setWindow(at - (at - m_first) * f, at + (m_last - at) * f);
    }
    setOptionQuietly(QStringLiteral("range"), QStringLiteral("free"));
    return true;
}

void TrajectoryView::moveFocus(std::int64_t by)
{
    const auto focus = session()->focusedToken();
    const std::int64_t next = focus ? std::clamp<std::int64_t>(*focus + by, 0, m_data->tokens - 1) : static_cast<std::int64_t>(m_first);
    session()->focusToken(next);
}

bool TrajectoryView::keyPressed(QKeyEvent *event)
{
    if (!m_data)
        return false;
    const double middle = session()->focusedToken() ? static_cast<double>(*session()->focusedToken()) + 0.5 : (m_first + m_last) / 2;
    const auto zoom = [&](double f) {
        setWindow(middle - (middle - m_first) * f, middle + (m_last - middle) * f);
        setOptionQuietly(QStringLiteral("range"), QStringLiteral("free"));
    };
    switch (event->key()) {
    case Qt::Key_Left:
    case Qt::Key_Right: {
        const std::int64_t by = event->key() == Qt::Key_Right ? 1 : -1;
        if (event->modifiers().testFlag(Qt::ShiftModifier) && session()->focusedToken()) {
            // Shift and an arrow: the selection grows with the focus.
            RowSet rows(current()->selection.size());
            rows.insert(static_cast<std::size_t>(*session()->focusedToken()));
            moveFocus(by);
            rows.insert(static_cast<std::size_t>(*session()->focusedToken()));
            session()->select(rows, SelectMode::add, tr("Select tokens"));
        } else {
            moveFocus(by);
        }
        return true;
    }
    case Qt::Key_Up:
    case Qt::Key_PageUp: session()->setLayer(session()->layer() - 1); return true;
    case Qt::Key_Down:
    case Qt::Key_PageDown: session()->setLayer(session()->layer() + 1); return true;
    case Qt::Key_Home: session()->focusToken(static_cast<std::int64_t>(std::ceil(m_first))); return true;
    case Qt::Key_End: session()->focusToken(static_cast<std::int64_t>(m_last) - 1); return true;
    case Qt::Key_Plus:
    case Qt::Key_Equal: zoom(0.7); return true;
    case Qt::Key_Minus: zoom(1 / 0.7); return true;
    case Qt::Key_0:
        setOptionQuietly(QStringLiteral("range"), QStringLiteral("trace"));
        setWindow(0, static_cast<double>(m_data->tokens));
        return true;
    case Qt::Key_Space:
    case Qt::Key_Return:
    case Qt::Key_Enter:
        if (const auto focus = session()->focusedToken()) {
            RowSet one(current()->selection.size());
            one.insert(static_cast<std::size_t>(*focus));
            session()->select(one, selectModeOf(event->modifiers()), tr("Select token"));
        }
        return true;
    case Qt::Key_Escape:
        session()->clearSelection();
        session()->focusToken(std::nullopt);
        return true;
    default: return false;
    }
}

void TrajectoryView::mouseLeft()
{
    if (session() != nullptr)
        session()->highlight(std::nullopt);
}

QString TrajectoryView::toolTipAt(const QPointF &position) const
{
    const std::int64_t n = tokenAt(position);
    const int layer = layerAt(position);
    if (n < 0)
        return {};
    const auto text = m_data->columns->text.find(m_data->columns->id[static_cast<std::size_t>(n)]);
    QString tip = tr("token %1 “%2”").arg(formatCount(n), text == m_data->columns->text.end() ? QString() : QString::fromStdString(text->second));
    if (layer >= 0 && layer < static_cast<int>(m_data->layers.size())) {
        const LayerRouting &r = *m_data->layers[static_cast<std::size_t>(layer)];
        tip += tr("\nlayer %1:").arg(m_data->decoderIndex[static_cast<std::size_t>(layer)]);
        for (int s = 0; s < r.slots; ++s) {
            const auto i = static_cast<std::size_t>(n * r.slots + s);
            if (r.experts[i] == kNoExpert)
                continue;
            tip += QStringLiteral("  E%1").arg(r.experts[i]);
            if (!r.weights.empty())
                tip += QStringLiteral(" ") + formatNumber(static_cast<double>(r.weights[i]), 2);
        }
        if (static_cast<std::size_t>(layer) < m_data->entropy.size())
            tip += tr("\nentropy %1 nats").arg(formatNumber(static_cast<double>((*m_data->entropy[static_cast<std::size_t>(layer)])[static_cast<std::size_t>(n)])));
    }
    if (!m_data->columns->nll.empty() && std::isfinite(m_data->columns->nll[static_cast<std::size_t>(n)]))
        tip += tr("\n−log p(next) %1 nats").arg(formatNumber(static_cast<double>(m_data->columns->nll[static_cast<std::size_t>(n)])));
    return tip;
}

} // namespace spectra
