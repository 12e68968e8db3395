// SPDX-License-Identifier: GPL-3.0-or-later
// Curves with bands, planes and their files.
#include "support.h"

#include "views/export.h"
#include "views/plotview.h"

#include <QPainter>
#include <QSvgRenderer>
#include <QTemporaryDir>

#include <cmath>

namespace spectra::viewtest {
namespace {

PlotData curves()
{
    PlotData plot;
    plot.title = QStringLiteral("Held-out loss");
    plot.xTitle = QStringLiteral("step");
    plot.yTitle = QStringLiteral("held-out loss (nats)");
    for (int m = 0; m < 3; ++m) {
        PlotSeries s;
        s.label = QStringLiteral("Method %1").arg(m + 1);
        s.color = m;
        for (int i = 1; i <= 40; ++i) {
            s.x.push_back(i * 25);
            s.y.push_back(4 + 0.15 * m + 4 * std::exp(-i / 9.0));
            s.low.push_back(s.y.back() - 0.08);
            s.high.push_back(s.y.back() + 0.08);
        }
        plot.series.push_back(s);
    }
    return plot;
}

PlotData plane()
{
    PlotData plot;
    plot.title = QStringLiteral("Loss against balance");
    plot.xTitle = QStringLiteral("load CV");
    plot.yTitle = QStringLiteral("held-out loss (nats)");
    const double x[] = {0.08, 0.24, 0.30, 0.02}, y[] = {3.95, 4.01, 3.93, 4.2};
    for (int m = 0; m < 4; ++m) {
        PlotSeries s;
        s.label = QStringLiteral("Method %1").arg(m + 1);
        s.color = m;
        s.x = {x[m]};
        s.y = {y[m]};
        s.low = {y[m] - 0.02};
        s.high = {y[m] + 0.02};
        s.xLow = {x[m] - 0.01};
        s.xHigh = {x[m] + 0.01};
        s.points = s.named = true;
        s.front = m != 1;
        plot.series.push_back(s);
    }
    return plot;
}

int inkOf(const QImage &image, const QColor &color)
{
    int count = 0;
    for (int y = 0; y < image.height(); ++y)
        for (int x = 0; x < image.width(); ++x) {
            const QColor c = image.pixelColor(x, y);
            count += std::abs(c.red() - color.red()) + std::abs(c.green() - color.green()) + std::abs(c.blue() - color.blue()) < 40;
        }
    return count;
}

TEST(Plots, everyThemeAndFormat)
{
    QTemporaryDir folder;
    for (const ThemeKind theme : {ThemeKind::light, ThemeKind::dark, ThemeKind::print})
        for (const PlotData &data : {curves(), plane()}) {
            PlotView view(data);
            EXPECT_EQ(view.state(), ViewState::ready);
            FigureOptions options;
            options.theme = theme;
            options.dpi = 144;
            options.overwrite = true;
            for (const char *ending : {"png", "svg", "pdf", "csv"}) {
                const QString path = folder.filePath(QStringLiteral("plot.%1").arg(QLatin1String(ending)));
                const auto done = exportView(view, path, options);
                ASSERT_TRUE(done.ok()) << done.error().what;
                EXPECT_GT(QFileInfo(path).size(), 100);
            }
            const QImage image(folder.filePath(QStringLiteral("plot.png")));
            for (int m = 0; m < 3; ++m) {
                const Theme t = Theme::make(theme);
                EXPECT_GT(inkOf(image, mixed(expertColor(m), t.text, t.isDark() ? 0.12 : 0.06)), 15) << "method " << m << " is seen";
            }
            EXPECT_TRUE(QSvgRenderer(folder.filePath(QStringLiteral("plot.svg"))).isValid());
            EXPECT_EQ(readProvenance(folder.filePath(QStringLiteral("plot.png")))[QStringLiteral("title")].toString(), data.title);
        }
}

TEST(Plots, smallSizesAndHostileNumbersAreDrawn)
{
    PlotData data = curves();
    data.series[0].y[3] = NAN;
    data.series[0].low[5] = data.series[0].high[5] = NAN;
    data.series[1].high[7] = INFINITY;
    data.series[2].y = std::vector<double>(40, 4.0);
    data.logY = true;
    data.series[1].y[0] = 0;
    data.series[1].y[1] = -3;
    data.notes << QStringLiteral("a note");
    PlotView view(data);
    for (const QSize size : {QSize(20, 20), QSize(90, 60), QSize(600, 80), QSize(80, 600), QSize(500, 300)}) {
        QImage image(size, QImage::Format_RGB32);
        QPainter p(&image);
        view.paintFigure(p, QRectF(QPointF(), size), Theme::make(ThemeKind::light));
    }
    PlotView empty(PlotData{QStringLiteral("none"), {}, {}, false, false, {}, {QStringLiteral("not run")}});
    EXPECT_EQ(empty.state(), ViewState::empty);
    EXPECT_TRUE(empty.message().contains(QStringLiteral("not run")));
}

TEST(Plots, tableHoldsWhatIsDrawn)
{
    const PlotView view(curves());
    const TableData table = view.tableData();
    EXPECT_EQ(table.rows, 120);
    EXPECT_EQ(table.cell(40, 0).toString(), QStringLiteral("Method 2"));
    EXPECT_EQ(table.cell(0, 1).toDouble(), 25);
}

TEST(PlotAxis, rangesAndTicks)
{
    const PlotAxis wide = PlotAxis::around({1, 2}, {-100, 100}, false);
    EXPECT_GE(wide.low, -1) << "one wide interval does not flatten the rest";
    EXPECT_LE(wide.high, 4);
    const PlotAxis log = PlotAxis::around({1, 1000, 0, -5}, {}, true);
    EXPECT_NEAR(log.share(31.6227766), 0.5, 1e-6);
    EXPECT_NEAR(log.value(log.share(42)), 42, 1e-9);
    EXPECT_EQ(log.ticks(4), (std::vector<double>{1, 10, 100, 1000}));
    const PlotAxis narrow = PlotAxis::around({0.1, 0.2}, {}, true);
    EXPECT_GE(narrow.ticks(5).size(), 2u);
    const PlotAxis one = PlotAxis::around({5}, {}, false);
    EXPECT_LT(one.low, 5);
    EXPECT_GT(one.high, 5);
    EXPECT_GT(PlotAxis::around({0.3, 0.3 + 1e-16}, {}, false).high, 0.301) << "rounding is no range";
    EXPECT_LT(PlotAxis::around({}, {}, false).low, PlotAxis::around({}, {}, false).high);
}

} // namespace
} // namespace spectra::viewtest
