// SPDX-License-Identifier: GPL-3.0-or-later
// Mouse, keyboard and selection of the map.
#include "views/spaceview.h"

#include "views/paintkit.h"
#include "views/spacedata.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>

#include <algorithm>
#include <cmath>

namespace spectra {

namespace {

QString toolKey(SelectTool tool)
{
    switch (tool) {
    case SelectTool::pan: return QStringLiteral("pan");
    case SelectTool::rectangle: return QStringLiteral("rectangle");
    case SelectTool::polygon: return QStringLiteral("polygon");
    case SelectTool::brush: return QStringLiteral("brush");
    case SelectTool::lasso: break;
    }
    return QStringLiteral("lasso");
}

} // namespace

QPointF SpaceView::positionOf(qint64 token) const
{
    if (!m_data)
        return {-1, -1};
    const auto &rows = m_data->points->row;
    const auto at = std::lower_bound(rows.begin(), rows.end(), token);
    if (at == rows.end() || *at != token)
        return {-1, -1};
    const QRectF map = mapArea(canvasArea(), theme());
    const QPointF p = m_raster.point(at - rows.begin());
    return map.topLeft() + camera(map.size()).toPixel(p.x(), p.y());
}

void SpaceView::setHover(std::int64_t point)
{
    if (point == m_hover)
        return;
    m_hover = point;
    if (!m_data || session() == nullptr)
        return;
    const SpacePoints &p = *m_data->points;
    if (isTokens(p)) {
        session()->highlight(point >= 0 ? std::optional<std::int64_t>(p.row[static_cast<std::size_t>(point)]) : std::nullopt);
    } else {
        const bool here = point >= 0 && (p.layerOf.empty() || p.layerOf[static_cast<std::size_t>(point)] == session()->layer());
        session()->highlightExpert(here ? std::optional<int>(p.expert[static_cast<std::size_t>(point)]) : std::nullopt);
    }
    repaintCanvas();
}

bool SpaceView::mousePressed(QMouseEvent *event)
{
    if (!m_data)
        return false;
    const QRectF map = mapArea(canvasArea(), theme());
    const QPointF at = event->position() - map.topLeft();
    if (event->button() == Qt::MiddleButton || (event->button() == Qt::LeftButton && m_gesture.tool() == SelectTool::pan)) {
        m_panning = true;
        m_panFrom = event->position();
        m_gesture.cancel();
        return true;
    }
    if (event->button() != Qt::LeftButton)
        return false;
    m_mode = selectModeOf(event->modifiers());
    m_gesture.press(at);
    repaintCanvas();
    return true;
}

bool SpaceView::mouseMoved(QMouseEvent *event)
{
    if (!m_data)
        return false;
    const QRectF map = mapArea(canvasArea(), theme());
    if (m_panning) {
        ScatterCamera c = camera(map.size());
        const QPointF by = event->position() - m_panFrom;
        m_panFrom = event->position();
        c.centerX -= by.x() / c.scale;
        c.centerY += by.y() / c.scale;
        setCamera(c);
        return true;
    }
    const QPointF at = event->position() - map.topLeft();
    if (m_gesture.isActive()) {
        m_gesture.move(at);
        repaintCanvas();
        return true;
    }
    setHover(m_raster.nearest(camera(map.size()), at, theme().em() * 0.7));
    return true;
}

bool SpaceView::mouseReleased(QMouseEvent *event)
{
    if (m_panning) {
        m_panning = false;
        return true;
    }
    if (!m_data || event->button() != Qt::LeftButton || !m_gesture.isActive())
        return false;
    const QRectF map = mapArea(canvasArea(), theme());
    const QPointF at = event->position() - map.topLeft();
    if (m_gesture.tool() == SelectTool::polygon) {
        repaintCanvas();
        return true;
    }
    if (const auto region = m_gesture.release(at)) {
        selectRegion(*region, m_mode);
    } else { // a click
        const std::int64_t i = m_raster.nearest(camera(map.size()), at, theme().em() * 0.8);
        const SpacePoints &p = *m_data->points;
        if (i < 0) {
            if (m_mode == SelectMode::replace) {
                session()->clearSelection();
                session()->setSelectedExperts({});
            }
        } else if (isTokens(p)) {
            const std::int64_t row = p.row[static_cast<std::size_t>(i)];
            if (m_mode != SelectMode::replace) {
                RowSet one(current()->selection.size());
                one.insert(static_cast<std::size_t>(row));
                session()->select(one, m_mode, tr("Select token"));
            }
            session()->focusToken(row);
        } else {
            if (!p.layerOf.empty())
                session()->setLayer(p.layerOf[static_cast<std::size_t>(i)]);
            session()->selectExpert(p.expert[static_cast<std::size_t>(i)], m_mode);
        }
    }
    repaintCanvas();
    return true;
}

bool SpaceView::mouseDoubleClicked(QMouseEvent *)
{
    if (m_gesture.tool() == SelectTool::polygon && m_gesture.isActive()) {
        if (const auto region = m_gesture.close())
            selectRegion(*region, m_mode);
        repaintCanvas();
        return true;
    }
    m_zoom = 1; // back to the whole map
    m_offsetX = m_offsetY = 0;
    m_dirty = true;
    repaintCanvas();
    return true;
}

void SpaceView::selectRegion(const QPainterPath &region, SelectMode mode)
{
    const auto t = current();
    if (!m_data || !t)
        return;
    static const char *names[] = {QT_TR_NOOP("Move"), QT_TR_NOOP("Select by rectangle"), QT_TR_NOOP("Select by lasso"), QT_TR_NOOP("Select by polygon"),
                                  QT_TR_NOOP("Select by brush")};
    const QString what = tr(names[static_cast<int>(m_gesture.tool())]);
    const auto found = m_raster.inside(camera(mapArea(canvasArea(), theme()).size()), region);
    const SpacePoints &p = *m_data->points;
    RowSet rows(t->selection.size());
    if (isTokens(p)) {
        for (const std::int64_t i : found)
            rows.insert(static_cast<std::size_t>(p.row[static_cast<std::size_t>(i)]));
    } else if (p.object == SpaceObject::experts) {
        std::vector<int> experts = mode == SelectMode::replace ? std::vector<int>{} : session()->selectedExperts();
        for (const std::int64_t i : found) {
            const int e = p.expert[static_cast<std::size_t>(i)];
            if (p.layerOf[static_cast<std::size_t>(i)] != session()->layer())
                continue; // an expert belongs to its layer
            if (mode == SelectMode::remove)
                std::erase(experts, e);
            else
                experts.push_back(e);
        }
        session()->setSelectedExperts(experts);
        return;
    } else {
        // The tokens of those sequences that chose that expert.
        for (const std::int64_t i : found) {
            const auto s = static_cast<std::size_t>(p.sequence[static_cast<std::size_t>(i)]);
            const int e = p.expert[static_cast<std::size_t>(i)];
            if (s + 1 >= p.columns->sequenceOffset.size())
                continue;
            for (std::int64_t row = p.columns->sequenceOffset[s]; row < p.columns->sequenceOffset[s + 1] && row < p.routing->tokens; ++row)
                if (p.columns->mask[static_cast<std::size_t>(row)] != 0 && p.routing->chose(row, e))
                    rows.insert(static_cast<std::size_t>(row));
        }
    }
    rows.intersect(t->filter);
    session()->select(rows, mode, what);
}

bool SpaceView::wheelTurned(QWheelEvent *event)
{
    if (!m_data)
        return false;
    const QRectF map = mapArea(canvasArea(), theme());
    setCamera(camera(map.size()).zoomed(std::pow(1.0015, event->angleDelta().y()), event->position() - map.topLeft()));
    return true;
}

void SpaceView::setTool(SelectTool tool)
{
    m_gesture.setTool(tool);
    setOptionQuietly(QStringLiteral("tool"), toolKey(tool));
    repaintCanvas();
}

bool SpaceView::keyPressed(QKeyEvent *event)
{
    const QRectF map = mapArea(canvasArea(), theme());
    const auto pan = [&](double x, double y) {
        ScatterCamera c = camera(map.size());
        c.centerX += x * map.width() / 8 / c.scale;
        c.centerY += y * map.height() / 8 / c.scale;
        setCamera(c);
    };
    const QPointF middle(map.width() / 2, map.height() / 2);
    if (event->modifiers().testFlag(Qt::ControlModifier) && event->key() != Qt::Key_Plus && event->key() != Qt::Key_Minus)
        return false; // shortcuts of the window
    switch (event->key()) {
    case Qt::Key_H: setTool(SelectTool::pan); return true;
    case Qt::Key_R: setTool(SelectTool::rectangle); return true;
    case Qt::Key_L: setTool(SelectTool::lasso); return true;
    case Qt::Key_P: setTool(SelectTool::polygon); return true;
    case Qt::Key_B: setTool(SelectTool::brush); return true;
    case Qt::Key_BracketLeft: m_gesture.setBrushRadius(std::max(3.0, m_gesture.brushRadius() / 1.25)); return true;
    case Qt::Key_BracketRight: m_gesture.setBrushRadius(std::min(200.0, m_gesture.brushRadius() * 1.25)); return true;
    case Qt::Key_Plus:
    case Qt::Key_Equal: setCamera(camera(map.size()).zoomed(1.25, middle)); return true;
    case Qt::Key_Minus: setCamera(camera(map.size()).zoomed(0.8, middle)); return true;
    case Qt::Key_Left: pan(-1, 0); return true;
    case Qt::Key_Right: pan(1, 0); return true;
    case Qt::Key_Up: pan(0, 1); return true;
    case Qt::Key_Down: pan(0, -1); return true;
    case Qt::Key_0:
    case Qt::Key_Home:
        m_zoom = 1;
        m_offsetX = m_offsetY = 0;
        m_dirty = true;
        repaintCanvas();
        return true;
    case Qt::Key_PageUp: session()->setLayer(session()->layer() - 1); return true;
    case Qt::Key_PageDown: session()->setLayer(session()->layer() + 1); return true;
    case Qt::Key_Return:
    case Qt::Key_Enter:
        if (const auto region = m_gesture.close())
            selectRegion(*region, m_mode);
        repaintCanvas();
        return true;
    case Qt::Key_Backspace: m_gesture.removeCorner(); repaintCanvas(); return true;
    case Qt::Key_Escape:
        if (m_gesture.isActive())
            m_gesture.cancel();
        else
            session()->clearSelection();
        repaintCanvas();
        return true;
    default: return false;
    }
}

void SpaceView::mouseLeft()
{
    setHover(-1);
}

QString SpaceView::toolTipAt(const QPointF &position) const
{
    if (!m_data)
        return {};
    const QRectF map = mapArea(canvasArea(), theme());
    const std::int64_t i = m_raster.nearest(camera(map.size()), position - map.topLeft(), theme().em() * 0.7);
    if (i < 0)
        return {};
    const SpacePoints &p = *m_data->points;
    const auto k = static_cast<std::size_t>(i);
    QString text;
    if (isTokens(p)) {
        const auto row = static_cast<std::size_t>(p.row[k]);
        const auto at = p.columns->text.find(p.columns->id[row]);
        text = tr("token %1 “%2”").arg(formatCount(p.row[k]), at == p.columns->text.end() ? QString() : QString::fromStdString(at->second).toHtmlEscaped());
        text += tr("\ntop expert E%1, weight %2").arg(p.expert[k]).arg(formatNumber(static_cast<double>(p.routing->topWeight(p.row[k]))));
    } else {
        text = tr("E%1").arg(p.expert[k]);
        if (!p.layerOf.empty())
            text += tr(", layer %1").arg(p.decoderIndex[static_cast<std::size_t>(p.layerOf[k])]);
        if (p.sequence[k] >= 0)
            text += tr(", sequence %1").arg(p.sequence[k]);
    }
    if (p.domain[k] >= 0)
        text += QStringLiteral("\n") + QString::fromStdString(p.domains[static_cast<std::size_t>(p.domain[k])]);
    return text;
}

} // namespace spectra
