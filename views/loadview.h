// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <memory>

namespace spectra {

struct LoadData;

/// How the assignments spread over the experts: one layer as bars with the fair-share line, stacked by domain; or all
/// layers as a heatmap of load relative to fair share. CV, MaxVio, Gini and entropy beside it.
class LoadView : public View {
    Q_OBJECT
public:
    explicit LoadView(QWidget *parent = nullptr);
    ~LoadView() override;
    [[nodiscard]] TableData tableData() const override;

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void layerChanged() override;
    void domainsChanged() override;
    void rowsChanged(RowLayer layer) override;
    void sessionReset() override;
    void optionChanged(const QString &key) override;
    bool mousePressed(QMouseEvent *event) override;
    bool mouseMoved(QMouseEvent *event) override;
    bool mouseDoubleClicked(QMouseEvent *event) override;
    bool keyPressed(QKeyEvent *event) override;
    void mouseLeft() override;
    QString toolTipAt(const QPointF &position) const override;

private:
    struct Cell {
        int layer = -1, expert = -1, domain = -1;
    };
    [[nodiscard]] bool isMap() const { return option(QStringLiteral("mode")) == QLatin1String("layers"); }
    [[nodiscard]] Cell cellAt(const QPointF &position) const;
    [[nodiscard]] QRectF plotArea(const QRectF &area, const Theme &theme) const;
    [[nodiscard]] std::vector<double> loads(int layer) const; ///< of the domains shown
    [[nodiscard]] double domainLoad(int layer, int expert, int domain) const;
    [[nodiscard]] std::vector<int> order() const;
    [[nodiscard]] double axisTop() const;
    void paintBars(QPainter &p, const QRectF &area, const Theme &theme);
    void paintMap(QPainter &p, const QRectF &area, const Theme &theme);
    void setHover(const Cell &cell);
    void countSelection();
    void describe();

    std::shared_ptr<const LoadData> m_data;
    std::vector<std::int64_t> m_selected; ///< [E] assignments of selected rows in the shown layer
    Cell m_hover;
};

} // namespace spectra
