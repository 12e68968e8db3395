// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <memory>

namespace spectra {

struct GramData;

/// E×E similarity of experts: Gram of routing or expression vectors, router weights, mean states, overlap of token types,
/// co-activation; one layer or small multiples over all.
class GramView : public View {
    Q_OBJECT
public:
    explicit GramView(QWidget *parent = nullptr);
    ~GramView() override;
    [[nodiscard]] TableData tableData() const override;

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void layerChanged() override;
    void domainsChanged() override {}
    void sessionReset() override;
    bool mousePressed(QMouseEvent *event) override;
    bool mouseMoved(QMouseEvent *event) override;
    bool keyPressed(QKeyEvent *event) override;
    void mouseLeft() override;
    QString toolTipAt(const QPointF &position) const override;

private:
    struct Place;
    [[nodiscard]] std::vector<Place> places(const QRectF &area, const Theme &theme) const;
    struct Cell {
        int layer = -1, row = -1, column = -1; ///< expert ids, not places in the order
    };
    [[nodiscard]] Cell cellAt(const QPointF &position) const;
    [[nodiscard]] int shownLayer() const;
    void setHover(const Cell &cell);
    void updateChoices();
    void describe();

    std::shared_ptr<const GramData> m_data;
    Cell m_hover;
};

} // namespace spectra
