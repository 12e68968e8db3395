// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <QImage>

#include <memory>

namespace spectra {

struct TrajectoryData;
struct TokenTexts;

/// Tokens from left to right, layers from top to bottom: colour is the top expert, brightness its weight (or routing
/// entropy, weight alone, −log p). From the whole trace down to single tokens with their text.
class TrajectoryView : public View {
    Q_OBJECT
public:
    explicit TrajectoryView(QWidget *parent = nullptr);
    ~TrajectoryView() override;
    [[nodiscard]] TableData tableData() const override;
    [[nodiscard]] QJsonObject saveState() const override;
    void restoreState(const QJsonObject &state) override;
    void setTheme(const Theme &theme) override;
    /// Middle of a token's cell on the canvas: tests aim there.
    [[nodiscard]] QPointF positionOf(qint64 token, int layer) const;
    /// Tokens [first, last) that are in view, fractions while zooming.
    [[nodiscard]] std::pair<double, double> window() const { return {m_first, m_last}; }

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void layerChanged() override { describe(); repaintCanvas(); }
    void domainsChanged() override { m_dirty = true; repaintCanvas(); }
    void rowsChanged(RowLayer layer) override;
    void expertsChanged() override;
    void focusChanged() override;
    void sessionReset() override;
    void optionChanged(const QString &key) override;
    bool mousePressed(QMouseEvent *event) override;
    bool mouseMoved(QMouseEvent *event) override;
    bool mouseReleased(QMouseEvent *event) override;
    bool mouseDoubleClicked(QMouseEvent *event) override;
    bool wheelTurned(QWheelEvent *event) override;
    bool keyPressed(QKeyEvent *event) override;
    void mouseLeft() override;
    QString toolTipAt(const QPointF &position) const override;

private:
    struct Layout {
        QRectF cells;
        double rowHeight = 0, tokenWidth = 0;
        QRectF texts, selection, legend;
    };
    [[nodiscard]] Layout layout(const QRectF &area, const Theme &theme) const;
    [[nodiscard]] std::int64_t tokenAt(const QPointF &position) const;
    [[nodiscard]] int layerAt(const QPointF &position) const;
    void setWindow(double first, double last);
    void showSequenceOf(std::int64_t token);
    void moveFocus(std::int64_t by);
    void readTexts();
    void describe();
    [[nodiscard]] QRgb cellColor(int layer, std::int64_t token, const Theme &theme) const;
    void paintImage(QPainter &p, const Layout &l, const Theme &theme);
    void paintTexts(QPainter &p, const Layout &l, double canvasLeft, const Theme &theme);

    std::shared_ptr<const TrajectoryData> m_data;
    std::shared_ptr<const TokenTexts> m_texts;
    std::unique_ptr<LatestJob> m_textJob;
    double m_first = 0, m_last = 0;
    bool m_placed = false;   ///< the window was chosen for this trace
    bool m_dirty = true;
    QImage m_image;
    double m_imageFirst = 0, m_imageLast = 0;
    std::int64_t m_dragFrom = -1, m_dragTo = -1;
    SelectMode m_mode = SelectMode::replace;
    bool m_panning = false;
    QPointF m_panFrom;
    int m_hoverLayer = -1;
};

} // namespace spectra
