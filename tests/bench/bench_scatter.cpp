// SPDX-License-Identifier: GPL-3.0-or-later
// Redraw of a map of N points (target: 1 M in at most 16 ms), a lasso over it, the point under the mouse, and what one
// selection step costs the session. The peer is QPainter drawing the same points.
#include "views/scatterraster.h"
#include "views/session.h"

#include "analysis/arraytrace.h"
#include "engine/core/random.h"

#include <QGuiApplication>
#include <QPainter>

#include <benchmark/benchmark.h>

namespace {

using namespace spectra;

ScatterRaster cloud(std::int64_t n, bool dimmed = false)
{
    Random random(1);
    auto xy = std::make_shared<std::vector<float>>();
    std::vector<std::uint8_t> color, flags;
    for (std::int64_t i = 0; i < n; ++i) {
        const auto c = random.below(8);
        xy->push_back(static_cast<float>(random.normal() + 4 * static_cast<double>(c % 4)));
        xy->push_back(static_cast<float>(random.normal() + 5 * static_cast<double>(c / 4)));
        color.push_back(static_cast<std::uint8_t>(c));
        flags.push_back(dimmed && i % 3 != 0 ? ScatterRaster::dimmed : 0);
    }
    std::vector<QRgb> palette;
    for (int e = 0; e < 8; ++e)
        palette.push_back(expertColor(e).rgb());
    ScatterRaster raster;
    raster.setPoints(xy);
    raster.setColors(palette, {}, color);
    raster.setFlags(flags);
    return raster;
}

void redraw(benchmark::State &state, double dpr, bool dimmed)
{
    const ScatterRaster raster = cloud(state.range(0), dimmed);
    const QSize size(900, 600);
    QImage image(size * dpr, QImage::Format_RGB32);
    ScatterCamera camera = ScatterCamera::fit(raster.bounds(), size);
    for (auto _ : state) {
        camera.centerX += 0.01; // a pan: every picture is another one
        raster.render(image, camera, dpr, ScatterRaster::radiusFor(raster.size(), 12), Qt::white);
        benchmark::DoNotOptimize(image.constBits());
    }
    state.counters["points/s"] = benchmark::Counter(static_cast<double>(state.iterations() * state.range(0)), benchmark::Counter::kIsRate);
}
void redrawPlain(benchmark::State &state) { redraw(state, 1, false); }
void redrawSelected(benchmark::State &state) { redraw(state, 1, true); }
void redrawHighDpi(benchmark::State &state) { redraw(state, 2, false); }
BENCHMARK(redrawPlain)->Arg(10'000)->Arg(100'000)->Arg(1'000'000)->Arg(2'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(redrawSelected)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(redrawHighDpi)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();

void peerPainter(benchmark::State &state)
{
    const ScatterRaster raster = cloud(state.range(0));
    const QSize size(900, 600);
    QImage image(size, QImage::Format_RGB32);
    const ScatterCamera camera = ScatterCamera::fit(raster.bounds(), size);
    for (auto _ : state) {
        image.fill(Qt::white);
        QPainter p(&image);
        p.setRenderHint(QPainter::Antialiasing);
        p.setPen(Qt::NoPen);
        for (std::int64_t i = 0; i < raster.size(); ++i) {
            p.setBrush(QColor::fromRgb(raster.color(i)));
            p.drawEllipse(camera.toPixel(raster.point(i).x(), raster.point(i).y()), 0.84, 0.84);
        }
    }
}
BENCHMARK(peerPainter)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();

void lasso(benchmark::State &state)
{
    const ScatterRaster raster = cloud(state.range(0));
    const ScatterCamera camera = ScatterCamera::fit(raster.bounds(), {900, 600});
    QPolygonF corners;
    for (int i = 0; i < 400; ++i)
        corners << QPointF(450 + 250 * std::cos(i * 0.0157), 300 + 200 * std::sin(i * 0.0157));
    QPainterPath path;
    path.addPolygon(corners);
    path.closeSubpath();
    for (auto _ : state)
        benchmark::DoNotOptimize(raster.inside(camera, path));
}
BENCHMARK(lasso)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();

void underTheMouse(benchmark::State &state)
{
    const ScatterRaster raster = cloud(state.range(0));
    const ScatterCamera camera = ScatterCamera::fit(raster.bounds(), {900, 600});
    for (auto _ : state)
        benchmark::DoNotOptimize(raster.nearest(camera, {431, 280}, 8));
}
BENCHMARK(underTheMouse)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();

void selectionStep(benchmark::State &state)
{
    const auto n = static_cast<std::size_t>(state.range(0));
    auto trace = std::make_shared<ArrayTrace>();
    trace->all.id.assign(n, 1);
    trace->finish();
    Session session;
    session.setSynchronous(true);
    session.addTrace(trace, QStringLiteral("million"));
    RowSet rows(n);
    std::size_t at = 0;
    for (auto _ : state) {
        rows.insert(at++ * 7 % n);
        session.select(rows, SelectMode::add, QStringLiteral("step"));
    }
}
BENCHMARK(selectionStep)->Arg(1'000'000)->Unit(benchmark::kMillisecond)->UseRealTime();

} // namespace

int main(int argc, char **argv)
{
    qputenv("QT_QPA_PLATFORM", "offscreen");
    const QGuiApplication app(argc, argv); // stamps are painted glyphs
    benchmark::Initialize(&argc, argv);
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
