// SPDX-License-Identifier: GPL-3.0-or-later
#include "views/selectiontool.h"

#include <QLineF>
#include <QPainterPathStroker>

namespace spectra {

namespace {
constexpr double kClick = 4; // pixels that a hand may move within one click
}

void SelectionGesture::setTool(SelectTool tool)
{
    cancel();
    m_tool = tool;
}

void SelectionGesture::press(const QPointF &at)
{
    if (m_tool == SelectTool::polygon && m_active) {
        m_points << at;
        m_last = at;
        return;
    }
    m_active = true;
    m_moved = false;
    m_start = m_last = at;
    m_points = QPolygonF({at});
}

void SelectionGesture::move(const QPointF &at)
{
    if (!m_active)
        return;
    if (QLineF(m_start, at).length() > kClick)
        m_moved = true;
    if (m_tool == SelectTool::lasso || m_tool == SelectTool::brush)
        m_points << at;
    m_last = at;
}

std::optional<QPainterPath> SelectionGesture::release(const QPointF &at)
{
    if (!m_active || m_tool == SelectTool::polygon || m_tool == SelectTool::pan)
        return std::nullopt;
    move(at);
    const bool click = !m_moved && m_tool != SelectTool::brush;
    const QPainterPath region = outline();
    m_active = false;
    if (click)
        return std::nullopt;
    return region;
}

std::optional<QPainterPath> SelectionGesture::close()
{
    if (m_tool != SelectTool::polygon || !m_active)
        return std::nullopt;
    QPolygonF corners;
    for (const QPointF &p : m_points) // a double click is two presses at one place
        if (corners.isEmpty() || QLineF(corners.last(), p).length() > 1)
            corners << p;
    m_active = false;
    if (corners.size() < 3)
        return std::nullopt;
    QPainterPath path;
    path.addPolygon(corners);
    path.closeSubpath();
    path.setFillRule(Qt::WindingFill);
    return path;
}

void SelectionGesture::removeCorner()
{
    if (m_tool == SelectTool::polygon && m_active) {
        m_points.removeLast();
        if (m_points.isEmpty())
            m_active = false;
    }
}

void SelectionGesture::cancel()
{
    m_active = false;
    m_moved = false;
    m_points.clear();
}

QPainterPath SelectionGesture::outline() const
{
    QPainterPath path;
    if (!m_active || m_points.isEmpty())
        return path;
    switch (m_tool) {
    case SelectTool::pan: break;
    case SelectTool::rectangle: path.addRect(QRectF(m_start, m_last).normalized()); break;
    case SelectTool::lasso:
        path.addPolygon(m_points);
        path.closeSubpath();
        path.setFillRule(Qt::WindingFill);
        break;
    case SelectTool::polygon:
        path.addPolygon(m_points);
        path.lineTo(m_last);
        break;
    case SelectTool::brush: {
        if (m_points.size() == 1 || !m_moved) {
            path.addEllipse(m_points.first(), m_radius, m_radius);
            break;
        }
        QPainterPath line;
        line.addPolygon(m_points);
        QPainterPathStroker stroker;
        stroker.setWidth(2 * m_radius);
        stroker.setCapStyle(Qt::RoundCap);
        stroker.setJoinStyle(Qt::RoundJoin);
        path = stroker.createStroke(line);
        path.setFillRule(Qt::WindingFill);
        break;
    }
    }
    return path;
}

} // namespace spectra
