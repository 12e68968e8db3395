// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <memory>
#include <vector>

namespace spectra {

struct DetailsData;
struct ExpertCards;

/// The token under the mouse (else the focused one): its text in context, its route over the layers, the chosen experts
/// with weights, −log p; and an expert (under the mouse, else selected, else the token's first): load, lift by domain,
/// the tokens it is typical for.
class DetailsView : public View {
    Q_OBJECT
public:
    explicit DetailsView(QWidget *parent = nullptr);
    ~DetailsView() override;
    [[nodiscard]] TableData tableData() const override;

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    void layerChanged() override;
    void domainsChanged() override {}
    void rowsChanged(RowLayer layer) override;
    void expertsChanged() override;
    void focusChanged() override;
    void sessionReset() override;
    bool mousePressed(QMouseEvent *event) override;
    bool keyPressed(QKeyEvent *event) override;
    QString toolTipAt(const QPointF &position) const override;

private:
    struct Target {
        QRectF area;
        int layer = -1, expert = -1;
    };
    [[nodiscard]] std::int64_t shownToken() const;
    [[nodiscard]] int shownExpert() const;
    void readCards();
    void describe();
    double paintToken(QPainter &p, QRectF area, const Theme &theme, std::int64_t token);
    double paintExpert(QPainter &p, QRectF area, const Theme &theme, int expert);

    std::shared_ptr<const DetailsData> m_data;
    std::shared_ptr<const ExpertCards> m_cards;
    std::unique_ptr<LatestJob> m_cardJob;
    std::vector<Target> m_targets; ///< what a click on the last picture means
};

} // namespace spectra
