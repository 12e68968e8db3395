// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "views/view.h"

#include <vector>

namespace spectra {

/// One curve with its interval band, or points with interval bars. NaN in `low`, `high`, `xLow`, `xHigh`: no interval there.
struct PlotSeries {
    QString label;
    std::vector<double> x, y, low, high;
    std::vector<double> xLow, xHigh; ///< empty: none
    bool points = false;             ///< marks instead of a line
    bool named = false;              ///< its label stands beside its point instead of in the legend
    bool front = false;              ///< the undominated ones are joined by a stepped line
    int color = 0;                   ///< index of the hue; a fit takes that of its points
};

/// A picture of a study or of a training run: plain arrays, whoever made them.
struct PlotData {
    QString title, xTitle, yTitle;
    bool logX = false, logY = false;
    std::vector<PlotSeries> series;
    QStringList notes;               ///< under the picture, as many lines as fit in a fifth of it
};

/// Where the numbers of a plot lie on the paper. Linear or logarithmic; a logarithmic axis leaves out what is not positive.
struct PlotAxis {
    double low = 0, high = 1;
    bool log = false;

    /// The range of the values, with room; intervals may widen it by its own length at most, so that one wide interval does not
    /// flatten everything else.
    [[nodiscard]] static PlotAxis around(const std::vector<double> &values, const std::vector<double> &intervals, bool log);
    [[nodiscard]] double share(double value) const; ///< 0 at low, 1 at high
    [[nodiscard]] double value(double share) const;
    [[nodiscard]] std::vector<double> ticks(int count) const;
};

/// Curves over training with their bands, planes of two figures, sweeps along an axis, fitted laws.
class PlotView : public View {
    Q_OBJECT
public:
    explicit PlotView(PlotData plot, QWidget *parent = nullptr);
    [[nodiscard]] TableData tableData() const override;

protected:
    void paintContent(QPainter &painter, const QRectF &area, const Theme &theme) override;
    void refresh() override;
    QString toolTipAt(const QPointF &position) const override;

private:
    struct Frame {
        QRectF plot;
        PlotAxis x, y;
        [[nodiscard]] QPointF at(double vx, double vy) const;
        [[nodiscard]] bool shows(double vx, double vy) const; ///< a number that the axes can place
    };
    [[nodiscard]] Frame frame(const QRectF &area, const Theme &theme) const;
    [[nodiscard]] bool empty() const;
    [[nodiscard]] double legendSpace(double width, const Theme &theme) const;
    [[nodiscard]] double notesSpace(const QRectF &area, const Theme &theme) const;
    void paintAxes(QPainter &p, const Frame &f, const QRectF &area, const Theme &theme) const;
    void paintBand(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color) const;
    void paintLine(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color, const Theme &theme) const;
    void paintPoints(QPainter &p, const Frame &f, const PlotSeries &s, const QColor &color, const Theme &theme) const;
    void paintFront(QPainter &p, const Frame &f, const Theme &theme) const;
    void paintNames(QPainter &p, const Frame &f, const Theme &theme) const;

    PlotData m_data;
};

} // namespace spectra
