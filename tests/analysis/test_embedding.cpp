// SPDX-License-Identifier: GPL-3.0-or-later
// t-SNE against its exact form, scikit-learn and openTSNE; PCA and map quality against scikit-learn.
#include "analysis/embedding/affinities.h"
#include "analysis/embedding/fft.h"
#include "analysis/embedding/kernels.h"
#include "analysis/embedding/mapquality.h"
#include "analysis/embedding/pca.h"
#include "analysis/embedding/repulsion.h"
#include "analysis/embedding/tsne.h"
#include "analysis/embedding/tsneexact.h"
#include "engine/core/parallel.h"
#include "engine/core/random.h"
#include "tests/analysis/mapdata.h"
#include "tests/analysis/metricfixture.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <set>
#include <thread>

using namespace spectra;
using test::clusteredPoints;

namespace {

const nlohmann::json &fixture()
{
    static const nlohmann::json f = test::readFixture("embedding.json");
    return f;
}

const std::vector<float> &thePoints()
{
    static const std::vector<float> x = clusteredPoints(2000, 20, 24, 42);
    return x;
}
MatrixView theView()
{
    return {thePoints().data(), 2000, 20};
}

struct Threads {
    explicit Threads(int n) { setThreadCount(n); }
    ~Threads() { setThreadCount(0); }
};

double relativeError(const std::vector<float> &got, const std::vector<double> &expected)
{
    double miss = 0, norm = 0;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        miss += (static_cast<double>(got[i]) - expected[i]) * (static_cast<double>(got[i]) - expected[i]);
        norm += expected[i] * expected[i];
    }
    return std::sqrt(miss / norm);
}

TEST(Fft, SciPyAndBack)
{
    for (const auto &c : fixture()["fft"]) {
        const int n = c["n"];
        const auto size = static_cast<std::size_t>(n);
        const std::vector<double> u = test::uniforms(static_cast<std::uint64_t>(n), 2 * size);
        std::vector<detail::Lanes> x(size), scratch(size);
        for (std::size_t i = 0; i < size; ++i)
            for (int l = 0; l < detail::kLanes; ++l) { // every lane its own multiple
                x[i].re[l] = static_cast<float>((u[i] - 0.5) * (l + 1));
                x[i].im[l] = static_cast<float>((u[size + i] - 0.5) * (l + 1));
            }
        const std::vector<detail::Lanes> before = x;
        const detail::BatchFft fft(n);
        detail::Lanes *y = fft.forward(x.data(), scratch.data());
        const double scale = 16 * std::sqrt(n);
        for (std::size_t i = 0; i < size; ++i)
            for (int l = 0; l < detail::kLanes; ++l) {
                ASSERT_NEAR(static_cast<double>(y[i].re[l]), c["re"][i].get<double>() * (l + 1), 2e-6 * scale) << n;
                ASSERT_NEAR(static_cast<double>(y[i].im[l]), c["im"][i].get<double>() * (l + 1), 2e-6 * scale) << n;
            }
        detail::Lanes *back = fft.inverse(y, y == x.data() ? scratch.data() : x.data());
        for (std::size_t i = 0; i < size; ++i)
            ASSERT_NEAR(static_cast<double>(back[i].re[7]) / n, static_cast<double>(before[i].re[7]), 1e-5);
    }
    EXPECT_EQ(detail::BatchFft::nextLength(65), 72);
    EXPECT_EQ(detail::BatchFft::nextLength(72), 72);
    EXPECT_EQ(detail::BatchFft::nextLength(1), 8);
}

class Force : public testing::TestWithParam<std::tuple<double, double>> {};

TEST_P(Force, MatchesTheExactSum)
{
    const auto [span, spacing] = GetParam();
    const std::size_t n = span > 50 ? 3000 : 1500; // about as dense as maps are
    std::vector<float> y = clusteredPoints(n, 2, 12, 5);
    float most = 0;
    for (const float v : y)
        most = std::max(most, std::abs(v));
    for (float &v : y)
        v *= static_cast<float>(span / 2) / most;
    std::vector<double> exact;
    const double z = exactRepulsion(y, exact);
    detail::Repulsion repulsion(static_cast<float>(spacing));
    std::vector<float> force(y.size());
    const double got = repulsion.evaluate(y.data(), static_cast<std::int64_t>(n), force.data());
    const double bound = spacing > 0.4 ? 2e-2 : 3e-3;
    EXPECT_LT(relativeError(force, exact), bound) << "span " << span << " spacing " << spacing;
    EXPECT_NEAR(got / z, 1, bound);
}
INSTANTIATE_TEST_SUITE_P(Spans, Force,
                         testing::Combine(testing::Values(1e-3, 5.0, 40.0, 100.0), testing::Values(0.5, 1.0 / 3)));

TEST(Tsne, GradientOfAFinishedMap)
{
    TsneOptions options;
    options.iterations = 400;
    const auto map = tsne(theView(), options);
    ASSERT_TRUE(map.ok());
    const std::vector<float> &y = map->coordinates;
    const auto neighbors = nearestNeighbors(theView(), 90);
    const auto p = tsneAffinities(*neighbors, 30);
    std::vector<double> exact;
    const double z = exactRepulsion(y, exact);
    for (const auto &[spacing, bound] : {std::pair{0.5f, 2e-2}, std::pair{1.0f / 3, 3e-3}}) {
        detail::Repulsion repulsion(spacing);
        std::vector<float> force(y.size());
        const double got = repulsion.evaluate(y.data(), 2000, force.data());
        EXPECT_LT(relativeError(force, exact), bound) << spacing;
        EXPECT_NEAR(got / z, 1, bound / 4) << spacing;
    }
    EXPECT_NEAR(*map->kl, exactKl(*p, y), 1e-4);
}

TEST(Tsne, AffinitiesAreThoseOfOpenTsne)
{
    const auto neighbors = nearestNeighbors(theView(), 90);
    ASSERT_TRUE(neighbors.ok());
    const auto p = tsneAffinities(*neighbors, 30);
    ASSERT_TRUE(p.ok());
    const auto &f = fixture()["affinity"];
    EXPECT_NEAR(static_cast<double>(p->value.size()), f["nnz"].get<double>(), 4); // equal distances may fall either way
    double sum = 0, squares = 0;
    for (const float v : p->value) {
        sum += static_cast<double>(v);
        squares += static_cast<double>(v) * static_cast<double>(v);
    }
    EXPECT_NEAR(sum, 1, 1e-5);
    EXPECT_NEAR(squares / f["sum_squares"].get<double>(), 1, 1e-3);
    for (std::size_t k = 0; k < f["row0"].size(); ++k) {
        ASSERT_EQ(p->column[k], f["row0_columns"][k].get<std::uint32_t>());
        EXPECT_NEAR(static_cast<double>(p->value[k]), f["row0"][k].get<double>(),
                    2e-3 * f["row0"][k].get<double>() + 1e-9);
    }
    // Symmetric, without a diagonal.
    for (std::int64_t i = 0; i < 50; ++i)
        for (auto k = p->row[static_cast<std::size_t>(i)]; k < p->row[static_cast<std::size_t>(i) + 1]; ++k) {
            const std::uint32_t j = p->column[static_cast<std::size_t>(k)];
            ASSERT_NE(j, i);
            const auto begin = p->column.begin() + p->row[j], end = p->column.begin() + p->row[j + 1];
            const auto found = std::lower_bound(begin, end, static_cast<std::uint32_t>(i));
            ASSERT_TRUE(found != end && *found == static_cast<std::uint32_t>(i));
            ASSERT_EQ(p->value[static_cast<std::size_t>(found - p->column.begin())],
                      p->value[static_cast<std::size_t>(k)]);
        }
}

TEST(Tsne, DivergenceAtMostThatOfScikitLearnAndOpenTsne)
{
    double sum = 0;
    for (const float v : thePoints())
        sum += static_cast<double>(v);
    ASSERT_NEAR(sum, fixture()["sum"].get<double>(), 1e-2) << "not the points that the fixture was made of";
    const auto p = tsneAffinities(*nearestNeighbors(theView(), 90), 30);
    for (const TsneMode mode : {TsneMode::fast, TsneMode::standard, TsneMode::accurate}) {
        TsneOptions options;
        options.mode = mode;
        const auto map = tsne(theView(), options);
        ASSERT_TRUE(map.ok());
        const double kl = exactKl(*p, map->coordinates);
        std::cout << "mode " << static_cast<int>(mode) << ": KL " << kl << ", scikit-learn "
                  << fixture()["kl"]["sklearn"] << ", openTSNE " << fixture()["kl"]["openTSNE"] << ", "
                  << map->seconds.optimise << " s\n";
        EXPECT_LE(kl, 1.01 * fixture()["kl"]["sklearn"].get<double>());
        EXPECT_LE(kl, 1.01 * fixture()["kl"]["openTSNE"].get<double>());
        EXPECT_NEAR(*map->kl, kl, 1e-4);
    }
}

TEST(Tsne, OneSeedOneMapAtAnyThreadCount)
{
    TsneOptions options;
    options.iterations = 300;
    options.init = TsneInit::random;
    options.seed = 5;
    std::vector<std::vector<float>> maps;
    for (const int threads : {1, 2, 5}) {
        const Threads set(threads);
        maps.push_back(tsne(theView(), options)->coordinates);
    }
    EXPECT_EQ(maps[0], maps[1]);
    EXPECT_EQ(maps[0], maps[2]);
    options.seed = 6;
    EXPECT_NE(tsne(theView(), options)->coordinates, maps[0]);
}

/// Six groups of 200 points: what the command line's contract asks for.
TEST(Tsne, SixGroups)
{
    Random random(3);
    std::vector<float> x(1200 * 20);
    std::vector<double> centre(20);
    for (std::size_t i = 0; i < 1200; ++i) {
        if (i % 200 == 0)
            for (double &c : centre)
                c = 4 * random.normal();
        for (std::size_t j = 0; j < 20; ++j)
            x[i * 20 + j] = static_cast<float>(centre[j] + 0.3 * random.normal());
    }
    TsneOptions options;
    options.seed = 5;
    const auto map = tsne({x.data(), 1200, 20}, options);
    ASSERT_TRUE(map.ok());
    EXPECT_GT(*map->kl, 0);
    EXPECT_LT(*map->kl, 1.25);
    const auto neighbors = nearestNeighbors({map->coordinates.data(), 1200, 2}, 10);
    int same = 0;
    for (std::size_t i = 0; i < 12000; ++i)
        same += neighbors->index[i] / 200 == static_cast<int>(i / 10 / 200);
    EXPECT_GT(same / 12000.0, 0.99);
}

TEST(Tsne, CallbackSeesAndStops)
{
    TsneOptions options;
    std::vector<int> seen;
    double last = 0;
    const auto map = tsne(theView(), options, {}, [&](const TsneUpdate &u) {
        seen.push_back(u.iteration);
        EXPECT_EQ(u.coordinates.size(), 4000u);
        EXPECT_EQ(u.exaggerating, u.iteration < 250);
        EXPECT_TRUE(std::isfinite(u.kl));
        last = u.kl;
        return u.iteration < 320;
    });
    ASSERT_TRUE(map.ok());
    EXPECT_TRUE(map->stopped);
    EXPECT_EQ(seen.size(), 33u);
    EXPECT_EQ(seen[1], 10);
    EXPECT_NEAR(last, *map->kl, 0.02); // the grid's Z against the exact one
}

TEST(Tsne, StopsWithinATenthOfASecond)
{
    const std::vector<float> x = clusteredPoints(6000, 40, 20, 9);
    TsneOptions options;
    options.iterations = 100000;
    for (const int wait : {5, 400}) { // while neighbours are sought, while the map is optimised
        std::stop_source source;
        std::chrono::steady_clock::time_point asked;
        std::jthread other([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(wait));
            asked = std::chrono::steady_clock::now();
            source.request_stop();
        });
        const auto map = tsne({x.data(), 6000, 40}, options, source.get_token());
        const auto ended = std::chrono::steady_clock::now();
        ASSERT_FALSE(map.ok());
        EXPECT_EQ(map.error().kind, ErrorKind::cancelled);
        other.join();
        EXPECT_LT(std::chrono::duration<double>(ended - asked).count(), 0.1 + 0.4); // the machine may be busy
    }
}

TEST(Tsne, OddInput)
{
    TsneOptions options;
    options.iterations = 60;
    std::vector<float> x = clusteredPoints(300, 6, 5, 1);
    EXPECT_EQ(tsne({x.data(), 0, 6}, options).error().kind, ErrorKind::input);
    EXPECT_EQ(tsne({x.data(), 1, 6}, options)->coordinates, (std::vector<float>{0, 0}));
    for (const std::int64_t n : {2, 3}) {
        const auto few = tsne({x.data(), n, 6}, options);
        ASSERT_TRUE(few.ok());
        EXPECT_EQ(few->coordinates.size(), static_cast<std::size_t>(2 * n));
        EXPECT_FALSE(few->kl);
        EXPECT_EQ(few->warnings.size(), 1u);
    }
    for (const std::int64_t n : {4, 5, 20}) {
        const auto some = tsne({x.data(), n, 6}, options);
        ASSERT_TRUE(some.ok()) << n;
        EXPECT_NEAR(some->perplexity, static_cast<double>(n - 1) / 3, 1e-12);
        EXPECT_EQ(some->warnings.size(), 1u);
        EXPECT_TRUE(std::isfinite(*some->kl));
    }
    std::vector<float> same(100 * 6, 0.25f);
    const auto alike = tsne({same.data(), 100, 6}, options);
    ASSERT_TRUE(alike.ok());
    EXPECT_TRUE(std::isfinite(*alike->kl));
    for (std::size_t i = 0; i < 300; ++i) { // constant columns, duplicates
        x[i * 6 + 2] = 7;
        x[i * 6 + 4] = -1;
    }
    std::copy(x.begin(), x.begin() + 150 * 6, x.begin() + 150 * 6);
    for (const auto init : {TsneInit::pca, TsneInit::random}) {
        options.init = init;
        const auto twice = tsne({x.data(), 300, 6}, options);
        ASSERT_TRUE(twice.ok());
        EXPECT_TRUE(std::isfinite(*twice->kl));
    }
    const auto line = tsne({x.data(), 300, 1}, options);
    EXPECT_TRUE(line.ok());
    options.metric = DistanceMetric::cosine;
    EXPECT_TRUE(tsne({x.data(), 300, 6}, options).ok());
    options.init = TsneInit::given;
    EXPECT_EQ(tsne({x.data(), 300, 6}, options).error().kind, ErrorKind::usage);
    options.initial.assign(600, 0.0f);
    options.iterations = 0;
    EXPECT_EQ(tsne({x.data(), 300, 6}, options)->coordinates, options.initial);
    x[77] = std::numeric_limits<float>::quiet_NaN();
    options.init = TsneInit::pca;
    const auto bad = tsne({x.data(), 300, 6}, options);
    ASSERT_FALSE(bad.ok());
    EXPECT_EQ(bad.error().kind, ErrorKind::input);
    EXPECT_NE(bad.error().where.find("row 12"), std::string::npos);
    options.perplexity = 0;
    EXPECT_EQ(tsne({x.data(), 300, 6}, options).error().kind, ErrorKind::usage);
}

TEST(Tsne, FewPointsFarApart)
{
    // Forces of the direct sum against the double-precision form, near and far.
    Random random(3, 1);
    for (const float spread : {1e-3f, 1.0f, 3000.0f}) {
        std::vector<float> y(2 * 37), px(37), py(37), force(2 * 37);
        for (float &v : y)
            v = spread * static_cast<float>(random.normal());
        for (std::size_t i = 0; i < 37; ++i) {
            px[i] = y[2 * i];
            py[i] = y[2 * i + 1];
        }
        std::vector<double> exact;
        const double z = exactRepulsion(y, exact);
        EXPECT_NEAR(detail::exactForces(px.data(), py.data(), 37, 0, 37, force.data()) / z, 1, 1e-5);
        const double largest = std::ranges::max(exact, {}, [](double v) { return std::abs(v); });
        for (std::size_t i = 0; i < exact.size(); ++i)
            EXPECT_NEAR(static_cast<double>(force[i]), exact[i], 1e-4 * std::abs(largest));
    }
    // Groups of two share no neighbours and drift apart: the map stays finite, and every pair stays together.
    std::vector<float> x;
    for (int i = 0; i < 8; ++i)
        for (int j = 0; j < 5; ++j)
            x.push_back(j == i / 2 ? 10.0f + 0.01f * static_cast<float>(i) : 0.0f);
    const auto map = tsne({x.data(), 8, 5}, {});
    ASSERT_TRUE(map.ok());
    EXPECT_EQ(map->iterations, 750);
    EXPECT_TRUE(std::isfinite(*map->kl));
    const auto nearest = nearestNeighbors({map->coordinates.data(), 8, 2}, 1);
    for (int i = 0; i < 8; ++i)
        EXPECT_EQ(nearest->index[static_cast<std::size_t>(i)], i ^ 1);
}

TEST(Neighbors, ExactIsExactAndTheGraphNearlySo)
{
    const std::int64_t n = 1501, d = 13;
    const std::vector<float> x = clusteredPoints(static_cast<std::size_t>(n), static_cast<std::size_t>(d), 7, 3);
    const auto exact = nearestNeighbors({x.data(), n, d}, 40);
    const auto graph = nearestNeighbors({x.data(), n, d}, 40, DistanceMetric::euclidean, NeighborMethod::hnsw);
    ASSERT_TRUE(exact.ok() && graph.ok());
    EXPECT_TRUE(exact->exact);
    EXPECT_FALSE(graph->exact);
    const auto again = nearestNeighbors({x.data(), n, d}, 40, DistanceMetric::euclidean, NeighborMethod::hnsw);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(graph->index, again->index) << "one seed, one graph";
    EXPECT_EQ(graph->distance, again->distance);
    double found = 0;
    for (std::int64_t i = 0; i < n; ++i) {
        std::vector<std::pair<double, std::int32_t>> all;
        for (std::int64_t j = 0; j < n; ++j) {
            double sum = 0;
            for (std::int64_t c = 0; c < d; ++c) {
                const double e = static_cast<double>(x[static_cast<std::size_t>(i * d + c)]) -
                                 static_cast<double>(x[static_cast<std::size_t>(j * d + c)]);
                sum += e * e;
            }
            if (j != i)
                all.emplace_back(sum, static_cast<std::int32_t>(j));
        }
        std::sort(all.begin(), all.end());
        std::set<std::int32_t> truth, got;
        for (std::size_t k = 0; k < 40; ++k) {
            EXPECT_NEAR(static_cast<double>(exact->distance[static_cast<std::size_t>(i) * 40 + k]), all[k].first,
                        1e-3 * all[k].first);
            truth.insert(all[k].second);
            got.insert(graph->index[static_cast<std::size_t>(i) * 40 + k]);
        }
        for (const std::int32_t j : got)
            found += truth.contains(j);
    }
    EXPECT_GT(found / static_cast<double>(n) / 40, 0.98);
    EXPECT_EQ(nearestNeighbors({x.data(), 5, d}, 40)->k, 4);
    EXPECT_EQ(nearestNeighbors({x.data(), 1, d}, 3)->k, 0);
}

TEST(Pca, ScikitLearn)
{
    const auto &f = fixture()["pca"];
    PcaOptions options;
    options.components = 3;
    for (const PcaSolver solver : {PcaSolver::full, PcaSolver::randomized}) {
        options.solver = solver;
        const auto got = pca({thePoints().data(), 300, 20}, options);
        ASSERT_TRUE(got.ok());
        for (std::size_t c = 0; c < 3; ++c) {
            EXPECT_NEAR(got->explainedVariance[c] / f["variance"][c].get<double>(), 1, 1e-6);
            EXPECT_NEAR(got->explainedVarianceRatio[c], f["ratio"][c].get<double>(), 1e-7);
        }
        for (std::size_t i = 0; i < 60; ++i)
            EXPECT_NEAR(static_cast<double>(got->axes[i]), f["axes"][i].get<double>(), 2e-5);
        for (std::size_t i = 0; i < 30; ++i)
            EXPECT_NEAR(static_cast<double>(got->scores[i]), f["scores"][i].get<double>(), 5e-4);
    }
    const std::vector<float> wide = clusteredPoints(30, 50, 3, 7);
    const auto got = pca({wide.data(), 30, 50});
    for (std::size_t c = 0; c < 2; ++c)
        EXPECT_NEAR(got->explainedVariance[c] / fixture()["pca_wide"]["variance"][c].get<double>(), 1, 1e-6);
    for (std::size_t i = 0; i < 100; ++i)
        EXPECT_NEAR(static_cast<double>(got->axes[i]), fixture()["pca_wide"]["axes"][i].get<double>(), 2e-5);
    EXPECT_EQ(pca({wide.data(), 1, 50})->scores.size(), 1u);
    EXPECT_EQ(pca({wide.data(), 0, 50}).error().kind, ErrorKind::input);
}

TEST(MapQuality, ScikitLearn)
{
    const auto &f = fixture()["quality"];
    const auto y = f["map"].get<std::vector<float>>();
    const auto q = mapQuality({thePoints().data(), 400, 20}, {y.data(), 400, 2});
    ASSERT_TRUE(q.ok());
    EXPECT_NEAR(*q->trustworthiness, f["trustworthiness"].get<double>(), 1e-6);
    EXPECT_NEAR(*q->continuity, f["continuity"].get<double>(), 1e-6);
    EXPECT_NEAR(*q->knnRecall10, f["recall"]["10"].get<double>(), 1e-9);
    EXPECT_NEAR(*q->knnRecall30, f["recall"]["30"].get<double>(), 1e-9);
    EXPECT_NEAR(*q->knnRecall90, f["recall"]["90"].get<double>(), 1e-9);
    EXPECT_FALSE(mapQuality({thePoints().data(), 20, 20}, {y.data(), 20, 2})->knnRecall30.has_value());
    EXPECT_EQ(mapQuality({thePoints().data(), 20, 20}, {y.data(), 21, 2}).error().kind, ErrorKind::usage);
}

} // namespace
