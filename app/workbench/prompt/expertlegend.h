// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/session.h"
#include "views/theme.h"

#include <QWidget>

namespace spectra {

/// What the colours of the text mean: the layer, and each expert's colour. A click selects an expert.
class ExpertLegend : public QWidget {
    Q_OBJECT
public:
    explicit ExpertLegend(Session &session, QWidget *parent = nullptr);
    void setTheme(const Theme &theme);
    QSize sizeHint() const override;
    bool hasHeightForWidth() const override { return true; }
    int heightForWidth(int width) const override;

    static constexpr int maxShown = 16;

protected:
    void paintEvent(QPaintEvent *event) override;
    void mousePressEvent(QMouseEvent *event) override;

private:
    [[nodiscard]] std::vector<QRect> places(int width) const;
    Session &m_session;
    Theme m_theme;
};

} // namespace spectra
