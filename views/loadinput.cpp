// SPDX-License-Identifier: GPL-3.0-or-later
// Mouse and keyboard of the load view.
#include "views/loadview.h"

#include "views/loaddata.h"
#include "views/paintkit.h"

#include <QKeyEvent>
#include <QMouseEvent>

#include <algorithm>
#include <numeric>

namespace spectra {

LoadView::Cell LoadView::cellAt(const QPointF &position) const
{
    if (!m_data)
        return {};
    const QRectF plot = plotArea(canvasArea(), theme());
    const int e = static_cast<int>(m_data->table.experts);
    if (position.x() < plot.left() || position.x() >= plot.right())
        return {};
    const int column = std::clamp(static_cast<int>((position.x() - plot.left()) / plot.width() * e), 0, e - 1);
    if (isMap()) {
        if (position.y() < plot.top() || position.y() >= plot.bottom())
            return {};
        const auto layers = static_cast<int>(m_data->table.layers);
        return {std::clamp(static_cast<int>((position.y() - plot.top()) / plot.height() * layers), 0, layers - 1), column, -1};
    }
    // The whole column is the target: short bars are as easy to hit as tall ones.
    if (position.y() < plot.top() || position.y() > canvasArea().bottom())
        return {};
    const int expert = order()[static_cast<std::size_t>(column)], layer = session()->layer();
    Cell cell{layer, expert, -1};
    const auto l = loads(layer);
    const double sum = std::accumulate(l.begin(), l.end(), 0.0);
    double share = (plot.bottom() - position.y()) / plot.height() * axisTop() * sum;
    for (int q = 0; q < static_cast<int>(m_data->domains.size()) && share >= 0; ++q) {
        if (!session()->domainShown(q))
            continue;
        share -= domainLoad(layer, expert, q);
        if (share < 0)
            cell.domain = q;
    }
    return cell;
}

void LoadView::setHover(const Cell &cell)
{
    if (cell.layer == m_hover.layer && cell.expert == m_hover.expert && cell.domain == m_hover.domain)
        return;
    m_hover = cell;
    session()->highlightExpert(cell.expert >= 0 && cell.layer == session()->layer() ? std::optional<int>(cell.expert) : std::nullopt);
    repaintCanvas();
}

bool LoadView::mouseMoved(QMouseEvent *event)
{
    setHover(cellAt(event->position()));
    return true;
}

void LoadView::mouseLeft()
{
    if (session() != nullptr)
        setHover({});
}

bool LoadView::mousePressed(QMouseEvent *event)
{
    if (event->button() != Qt::LeftButton)
        return false;
    const Cell cell = cellAt(event->position());
    if (cell.expert < 0) {
        if (event->modifiers() == Qt::NoModifier)
            session()->setSelectedExperts({});
        return true;
    }
    if (cell.layer != session()->layer()) {
        session()->setLayer(cell.layer);
        session()->setSelectedExperts({cell.expert});
    } else {
        session()->selectExpert(cell.expert, selectModeOf(event->modifiers()));
    }
    return true;
}

/// A double click selects the tokens that the expert got.
bool LoadView::mouseDoubleClicked(QMouseEvent *event)
{
    const Cell cell = cellAt(event->position());
    const auto t = current();
    if (cell.expert < 0 || !t)
        return false;
    const SelectMode mode = selectModeOf(event->modifiers());
    session()->setSelectedExperts({cell.expert});
    load(tr("Reading layer %1").arg(session()->decoderLayer()),
         [this, source = t->source, cell, mode, known = m_data](JobContext &job) -> Result<LatestJob::Apply> {
             auto routing = layerRouting(source, cell.layer, job.stop());
             if (!routing)
                 return routing.error();
             auto columns = tokenColumns(source, job.stop());
             if (!columns)
                 return columns.error();
             auto rows = std::make_shared<RowSet>(static_cast<std::size_t>((*routing)->tokens));
             for (std::int64_t n = 0; n < (*routing)->tokens; ++n)
                 if ((*routing)->chose(n, cell.expert) && (*columns)->mask[static_cast<std::size_t>(n)] != 0
                     && (cell.domain < 0 || (*columns)->domain(n) == cell.domain))
                     rows->insert(static_cast<std::size_t>(n));
             auto loaded = std::make_shared<LoadData>(*known);
             loaded->columns = *columns;
             loaded->routing = *routing;
             loaded->routingLayer = cell.layer;
             return LatestJob::Apply([this, rows, cell, mode, loaded] {
                 m_data = loaded;
                 showReady();
                 session()->select(*rows, mode, tr("Select tokens of E%1").arg(cell.expert));
             });
         });
    return true;
}

bool LoadView::keyPressed(QKeyEvent *event)
{
    if (!m_data)
        return false;
    const int e = static_cast<int>(m_data->table.experts), layers = static_cast<int>(m_data->table.layers);
    const auto sequence = order();
    const auto place = static_cast<int>(std::find(sequence.begin(), sequence.end(), m_hover.expert) - sequence.begin());
    const bool started = m_hover.expert >= 0;
    const int layer = session()->layer();
    switch (event->key()) {
    case Qt::Key_Left: setHover({layer, sequence[static_cast<std::size_t>(started ? std::max(0, place - 1) : 0)], -1}); return true;
    case Qt::Key_Right: setHover({layer, sequence[static_cast<std::size_t>(started ? std::min(e - 1, place + 1) : 0)], -1}); return true;
    case Qt::Key_Up:
    case Qt::Key_PageUp:
    case Qt::Key_Down:
    case Qt::Key_PageDown: {
        const bool down = event->key() == Qt::Key_Down || event->key() == Qt::Key_PageDown;
        session()->setLayer(std::clamp(layer + (down ? 1 : -1), 0, layers - 1));
        if (started)
            setHover({session()->layer(), m_hover.expert, -1});
        return true;
    }
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_Space:
        if (started)
            session()->selectExpert(m_hover.expert, selectModeOf(event->modifiers()));
        return true;
    case Qt::Key_Escape:
        session()->setSelectedExperts({});
        setHover({});
        return true;
    default: return false;
    }
}

QString LoadView::toolTipAt(const QPointF &position) const
{
    const Cell c = cellAt(position);
    if (c.expert < 0)
        return {};
    const auto l = loads(c.layer);
    const double sum = std::accumulate(l.begin(), l.end(), 0.0), share = sum > 0 ? l[static_cast<std::size_t>(c.expert)] / sum : 0;
    QString text = tr("layer %1, E%2: %3 of the load, ×%4 of fair share")
                       .arg(m_data->decoderIndex[static_cast<std::size_t>(c.layer)])
                       .arg(c.expert)
                       .arg(formatPercent(share), formatNumber(share * static_cast<double>(l.size())));
    if (c.domain >= 0 && l[static_cast<std::size_t>(c.expert)] > 0)
        text += tr("\n%1: %2 of this expert's load")
                    .arg(domainName(m_data->domains[static_cast<std::size_t>(c.domain)]),
                         formatPercent(domainLoad(c.layer, c.expert, c.domain) / l[static_cast<std::size_t>(c.expert)]));
    return text + tr("\nClick: select the expert. Double click: select its tokens.");
}

} // namespace spectra
