// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <QPainterPath>
#include <QPointF>
#include <QPolygonF>

#include <optional>

namespace spectra {

enum class SelectTool { pan, rectangle, lasso, polygon, brush };

/// The gesture of a selection, without a widget: positions in, a region out.
class SelectionGesture {
public:
    void setTool(SelectTool tool);
    [[nodiscard]] SelectTool tool() const { return m_tool; }
    [[nodiscard]] double brushRadius() const { return m_radius; }
    void setBrushRadius(double radius) { m_radius = radius; }

    void press(const QPointF &at);
    void move(const QPointF &at);
    /// The region when the gesture is complete. A press without a move is a click and gives none (polygon: a corner).
    [[nodiscard]] std::optional<QPainterPath> release(const QPointF &at);
    /// Closes a polygon of at least three corners (double click, Enter).
    [[nodiscard]] std::optional<QPainterPath> close();
    void removeCorner();
    void cancel();

    [[nodiscard]] bool isActive() const { return m_active; }
    [[nodiscard]] bool isClick() const { return !m_moved; }
    /// What to draw while the gesture goes on.
    [[nodiscard]] QPainterPath outline() const;

private:
    SelectTool m_tool = SelectTool::lasso;
    double m_radius = 14;
    bool m_active = false, m_moved = false;
    QPointF m_start, m_last;
    QPolygonF m_points;
};

} // namespace spectra
