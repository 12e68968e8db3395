// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/scatterraster.h"
#include "views/selectiontool.h"
#include "views/view.h"

#include <QImage>

#include <memory>

class QToolButton;

namespace spectra {

struct SpaceData;

/// A map of token states (router inputs, else routing distributions) or of expert vectors by t-SNE or PCA, running live.
/// Selection tools R, L, P, B on it select tokens in every view.
class SpaceView : public View {
    Q_OBJECT
public:
    explicit SpaceView(QWidget *parent = nullptr);
    ~SpaceView() override;
    [[nodiscard]] TableData tableData() const override;
    [[nodiscard]] QJsonObject saveState() const override;
    void restoreState(const QJsonObject &state) override;
    void setTheme(const Theme &theme) override;
    /// Where points stand on the canvas: tests aim at them.
    [[nodiscard]] QPointF positionOf(qint64 token) const;
    [[nodiscard]] qint64 points() const { return m_raster.size(); }
    /// Iterations that the shown map has had, and of how many.
    [[nodiscard]] int iteration() const;

public Q_SLOTS:
    /// Stops the running map and keeps what is there.
    void cancel() override;

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void domainsChanged() override;
    void rowsChanged(RowLayer layer) override;
    void expertsChanged() override;
    void sessionReset() override;
    void optionChanged(const QString &key) override;
    void traceGrew() override;
    bool mousePressed(QMouseEvent *event) override;
    bool mouseMoved(QMouseEvent *event) override;
    bool mouseReleased(QMouseEvent *event) override;
    bool mouseDoubleClicked(QMouseEvent *event) override;
    bool wheelTurned(QWheelEvent *event) override;
    bool keyPressed(QKeyEvent *event) override;
    void mouseLeft() override;
    QString toolTipAt(const QPointF &position) const override;

private:
    void updateChoices();
    void take(const std::shared_ptr<const SpaceData> &data);
    void recolor();
    void reflag();
    void describe();
    void selectRegion(const QPainterPath &region, SelectMode mode);
    void setTool(SelectTool tool);
    void setHover(std::int64_t point);
    [[nodiscard]] QRectF mapArea(const QRectF &area, const Theme &theme) const;
    [[nodiscard]] ScatterCamera camera(const QSizeF &size) const;
    void setCamera(const ScatterCamera &camera);
    [[nodiscard]] bool colorsAreContinuous() const;

    std::shared_ptr<const SpaceData> m_data;
    ScatterRaster m_raster;
    SelectionGesture m_gesture;
    SelectMode m_mode = SelectMode::replace;
    QImage m_image;
    ScatterCamera m_imageCamera;
    bool m_dirty = true;
    double m_zoom = 1, m_offsetX = 0, m_offsetY = 0; ///< relative to the fitted picture; offset in its half widths
    bool m_panning = false;
    QPointF m_panFrom;
    std::int64_t m_hover = -1;
    bool m_stopped = false;
    double m_low = 0, m_high = 1; ///< range of a continuous colour
    QToolButton *m_stop = nullptr;
};

} // namespace spectra
