// SPDX-License-Identifier: GPL-3.0-or-later
// What goes in comes out: every field, in every storage, in any order of arrival.
#include "engine/trace/half.h"
#include "engine/trace/livetrace.h"
#include "engine/trace/statebasis.h"
#include "engine/trace/validator.h"
#include "tests/engine/trace/tracefixture.h"

#include "engine/core/random.h"

#include <cmath>
#include <fstream>
#include <limits>

namespace spectra::test {
namespace {

class RoundTrip : public TraceTest {
protected:
    void check(const SyntheticOptions &options, const std::string &name = "t.h5")
    {
        const SyntheticRun run(options);
        auto written = writeSyntheticTrace(place(name), options);
        ASSERT_TRUE(written.ok()) << why(written);
        EXPECT_FALSE(std::filesystem::exists(place(name + ".part")));
        auto reader = TraceReader::open(place(name));
        ASSERT_TRUE(reader.ok()) << why(reader);
        EXPECT_TRUE((*reader)->info()->complete);
        expectRun(**reader, run, run.tokens());
        for (const Finding &f : validateTrace(place(name)))
            EXPECT_NE(f.severity, Finding::Severity::error) << f.place << ": " << f.what;
    }
};

TEST_F(RoundTrip, everyFieldInFloat16) { check({}); }

TEST_F(RoundTrip, everyFieldInFloat32Uncompressed)
{
    SyntheticOptions o;
    o.f16 = false;
    o.compress = 0;
    check(o);
}

TEST_F(RoundTrip, linearRouter)
{
    SyntheticOptions o;
    o.linearRouter = true;
    o.transport = false;
    check(o);
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok());
    EXPECT_TRUE((*reader)->info()->has(Table::routerWeights));
    EXPECT_TRUE((*reader)->info()->has(Table::gramRouterWeights));
    EXPECT_NE((*reader)->info()->missingColumns.at(Column::routingVectors).find("softmax_topk"), std::string::npos);
}

TEST_F(RoundTrip, minimalCaptureSaysWhatIsMissingAndWhy)
{
    SyntheticOptions o;
    o.capture = Capture::minimal();
    check(o);
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok());
    EXPECT_NE((*reader)->info()->missingColumns.at(Column::logits).find("--capture minimal,+logits"), std::string::npos);
    auto block = (*reader)->block(Column::logits, 0, {0, 1});
    ASSERT_FALSE(block.ok());
    EXPECT_EQ(block.error().kind, ErrorKind::usage);
}

TEST_F(RoundTrip, denseModel)
{
    SyntheticOptions o;
    o.layers = 0;
    o.denseLayers = 3;
    check(o);
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok());
    ASSERT_EQ((*reader)->denseIndex().size(), 3u);
    const SyntheticRun run(o);
    auto rows = (*reader)->dense(1, {0, run.tokens()});
    ASSERT_TRUE(rows.ok()) << why(rows);
    EXPECT_GT((*rows)->rows, 0);
    EXPECT_LE((*rows)->rows, o.hiddenTokens);
}

TEST_F(RoundTrip, wideVectorsAreCutIntoSeveralChunks)
{
    SyntheticOptions o;
    o.layers = 1;
    o.experts = 40;
    o.routerDim = 72; // 40 × 72 × 2 bytes × 256 rows = 1.4 MiB: two chunks, the second shorter
    o.hidden = 2100;
    o.tokens = 330;
    o.hiddenTokens = 150;
    check(o);
}

TEST_F(RoundTrip, oneSequenceLongerThanSeveralBlocks)
{
    SyntheticOptions o;
    o.tokens = 5000;
    o.sequenceLength = 5000;
    o.layers = 2;
    o.hiddenTokens = 10'000;
    o.recordTokens = 1000;
    check(o);
}

TEST_F(RoundTrip, sharedWhileItIsWritten)
{
    SyntheticOptions o;
    o.live = true;
    o.tokens = 1500;
    check(o);
}

TEST_F(RoundTrip, layersAndRangesInAnyOrder)
{
    SyntheticOptions o;
    o.tokens = 1500;
    const SyntheticRun run(o);
    auto writer = TraceWriter::create(place("t.h5"), run.spec(), false);
    ASSERT_TRUE(writer.ok()) << why(writer);
    std::vector<LayerTables> sums;
    Random random(3);
    // Three sequences at a time, their pieces shuffled: as a batch that generates would send them.
    for (std::int64_t s = 0; s < run.sequences(); s += 3) {
        struct Piece {
            std::int64_t sequence, from, to;
            int layer; ///< -1: tokens, -2: dense
        };
        std::vector<Piece> pieces;
        const std::int64_t last = std::min(run.sequences(), s + 3);
        for (std::int64_t q = s; q < last; ++q) {
            const SequenceInfo info = run.info(q);
            ASSERT_TRUE((*writer)->beginSequence(info).ok());
            const bool sampled = (*writer)->wantsHidden(static_cast<std::int32_t>(q), info.length);
            for (std::int64_t from = 0; from < info.length; from += 40)
                for (int layer = sampled ? -2 : -1; layer < o.layers; ++layer)
                    pieces.push_back({q, from, std::min<std::int64_t>(from + 40, info.length), layer});
        }
        random.shuffle(pieces);
        for (const Piece &p : pieces) {
            const bool sampled = (*writer)->wantsHidden(static_cast<std::int32_t>(p.sequence), run.info(p.sequence).length);
            Result<void> sent = p.layer == -1 ? (*writer)->addTokens(run.tokens(p.sequence, p.from, p.to))
                : p.layer == -2               ? (*writer)->addDense(run.dense(p.sequence, 0, p.from, p.to))
                                              : (*writer)->addRouting(run.routing(p.sequence, p.layer, p.from, p.to, sampled));
            ASSERT_TRUE(sent.ok()) << why(sent);
        }
        for (std::int64_t q = s; q < last; ++q) {
            for (int layer = 0; layer < o.layers; ++layer)
                ASSERT_TRUE((*writer)->addSequenceMeans(run.means(q, layer)).ok());
            run.addSums(q, sums);
            ASSERT_TRUE((*writer)->addExpertSums(sums).ok());
            ASSERT_TRUE((*writer)->endSequence(static_cast<std::int32_t>(q), run.info(q)).ok());
        }
    }
    auto finished = (*writer)->finish(run.tables(sums), 1.5);
    ASSERT_TRUE(finished.ok()) << why(finished);
    ASSERT_TRUE(writeSyntheticTrace(place("u.h5"), o).ok());
    expectSameDatasets(place("t.h5"), place("u.h5"));
}

TEST_F(RoundTrip, tablesFollowFromWhatWasGiven)
{
    SyntheticOptions o;
    const SyntheticRun run(o);
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok()) << why(reader);
    std::vector<LayerTables> sums;
    for (std::int64_t s = 0; s < run.sequences(); ++s)
        run.addSums(s, sums);
    const std::vector<LayerTables> tables = run.tables(sums);
    const auto E = static_cast<std::size_t>(o.experts), D = static_cast<std::size_t>(o.routerDim), H = static_cast<std::size_t>(o.hidden);
    for (int layer = 0; layer < o.layers; ++layer) {
        // Means weighted by counted tokens, in long double.
        std::vector<long double> mean(E * D, 0);
        long double weight = 0;
        for (std::int64_t s = 0; s < run.sequences(); ++s) {
            const SequenceMeans m = run.means(s, layer);
            const auto counted = static_cast<long double>(run.info(s).counted);
            weight += counted;
            for (std::size_t i = 0; i < mean.size(); ++i)
                mean[i] += counted * static_cast<long double>(m.expression[i]);
        }
        auto got = (*reader)->table(Table::meanExpression, layer);
        ASSERT_TRUE(got.ok()) << why(got);
        for (std::size_t i = 0; i < mean.size(); ++i)
            EXPECT_NEAR((*got)->values[i], static_cast<double>(mean[i] / weight), 1e-6);
        auto gram = (*reader)->table(Table::gramExpression, layer);
        ASSERT_TRUE(gram.ok());
        for (std::size_t a = 0; a < E; ++a) {
            for (std::size_t b = 0; b < E; ++b) {
                long double dot = 0, x = 0, y = 0;
                for (std::size_t i = 0; i < D; ++i) {
                    dot += mean[a * D + i] * mean[b * D + i];
                    x += mean[a * D + i] * mean[a * D + i];
                    y += mean[b * D + i] * mean[b * D + i];
                }
                EXPECT_NEAR((*gram)->values[a * E + b], static_cast<double>(dot / std::sqrt(x * y)), 1e-6);
            }
        }
        const LayerTables &t = tables[static_cast<std::size_t>(layer)];
        auto input = (*reader)->table(Table::expertInputMean, layer);
        ASSERT_TRUE(input.ok());
        for (std::size_t i = 0; i < E * H; ++i)
            EXPECT_NEAR((*input)->values[i], t.expertInputSum[i] / double(t.expertCount[i / H]), 1e-5);
        auto potential = (*reader)->table(Table::bufferPotential, layer);
        ASSERT_TRUE(potential.ok());
        EXPECT_EQ((*potential)->values, t.bufferPotential);
        auto violation = (*reader)->table(Table::sinkhornViolation, layer);
        ASSERT_TRUE(violation.ok());
        ASSERT_EQ((*violation)->values.size(), static_cast<std::size_t>(run.sequences()));
        EXPECT_FLOAT_EQ((*violation)->values[5], run.routing(5, layer, 0, 1, false).sinkhornViolation);
    }
}

TEST_F(RoundTrip, principalAxesExplainTheStates)
{
    SyntheticOptions o;
    o.tokens = 3000;
    const SyntheticRun run(o);
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok()) << why(reader);
    // Fitted on the first 1,024 counted tokens, found here from the run itself.
    std::vector<float> rows;
    std::int64_t counted = 0;
    const std::size_t W = static_cast<std::size_t>(o.experts * o.routerDim);
    for (std::int64_t s = 0; counted < 1024; ++s) {
        const std::int64_t length = run.info(s).length;
        const TokenRecord t = run.tokens(s, 0, length);
        const RoutingRecord r = run.routing(s, 1, 0, length, false);
        for (std::size_t i = 0; i < t.mask.size() && counted < 1024; ++i) {
            if (t.mask[i] == 0)
                continue;
            ++counted;
            rows.insert(rows.end(), r.gruState.begin() + static_cast<std::ptrdiff_t>(i * W), r.gruState.begin() + static_cast<std::ptrdiff_t>((i + 1) * W));
        }
    }
    const StateBasis basis = fitStateBasis(rows, static_cast<std::int64_t>(W), 8);
    auto axes = (*reader)->table(Table::gruPcaBasis, 1), mean = (*reader)->table(Table::gruPcaMean, 1);
    ASSERT_TRUE(axes.ok() && mean.ok());
    EXPECT_EQ((*axes)->values, basis.axes);
    EXPECT_EQ((*mean)->values, basis.mean);
    // Orthonormal, and each axis satisfies the eigenvalue equation of the covariance.
    std::vector<double> covariance(W * W, 0);
    for (std::size_t i = 0; i < 1024; ++i)
        for (std::size_t a = 0; a < W; ++a)
            for (std::size_t b = 0; b < W; ++b)
                covariance[a * W + b] += (double(rows[i * W + a]) - double(basis.mean[a])) * (double(rows[i * W + b]) - double(basis.mean[b]));
    double before = std::numeric_limits<double>::infinity(), largest = 0;
    for (std::size_t j = 0; j < 8; ++j) {
        const float *axis = basis.axes.data() + j * W;
        double lambda = 0, residual = 0;
        std::vector<double> image(W, 0);
        for (std::size_t a = 0; a < W; ++a)
            for (std::size_t b = 0; b < W; ++b)
                image[a] += covariance[a * W + b] * double(axis[b]);
        for (std::size_t a = 0; a < W; ++a)
            lambda += image[a] * double(axis[a]);
        largest = std::max(largest, lambda);
        for (std::size_t a = 0; a < W; ++a)
            residual += std::pow(image[a] - lambda * double(axis[a]), 2);
        EXPECT_LT(std::sqrt(residual), 1e-5 * largest) << j;
        EXPECT_LE(lambda, before * (1 + 1e-9));
        before = lambda;
        for (std::size_t i = 0; i <= j; ++i) {
            double dot = 0;
            for (std::size_t a = 0; a < W; ++a)
                dot += double(axis[a]) * double(basis.axes[i * W + a]);
            EXPECT_NEAR(dot, i == j ? 1 : 0, 1e-5);
        }
    }
    const RoutingRecord r = run.routing(0, 1, 0, 20, false);
    const std::vector<float> want = projectStates(basis, r.gruState, 8);
    auto got = (*reader)->block(Column::gruPca, 1, {0, 20});
    ASSERT_TRUE(got.ok());
    EXPECT_EQ((*got)->f32, want);
}

TEST_F(RoundTrip, liveTraceShowsTheSame)
{
    SyntheticOptions o;
    o.tokens = 800;
    const SyntheticRun run(o);
    LiveTrace live(run.spec());
    std::vector<LayerTables> sums;
    for (std::int64_t s = 0; s < run.sequences(); ++s) {
        const SequenceInfo info = run.info(s);
        live.beginSequence(info);
        HiddenSample sample(run.spec().plannedLengths, run.spec().hiddenTokens, run.spec().seed);
        const bool sampled = sample.wants(static_cast<std::int32_t>(s), info.length);
        for (std::int64_t from = 0; from < info.length; from += 50) {
            const std::int64_t to = std::min<std::int64_t>(info.length, from + 50);
            for (int layer = 0; layer < o.layers; ++layer)
                live.addRouting(run.routing(s, layer, from, to, sampled));
            EXPECT_EQ(live.info()->tokens, info.offset + from) << "tokens count when all their columns are there";
            live.addTokens(run.tokens(s, from, to));
            EXPECT_EQ(live.info()->tokens, info.offset + to);
        }
        for (int layer = 0; layer < o.layers; ++layer)
            live.addSequenceMeans(run.means(s, layer));
        run.addSums(s, sums);
        live.endSequence(static_cast<std::int32_t>(s), info);
    }
    live.finish(run.tables(sums));
    expectRun(live, run, run.tokens());
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    auto reader = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(reader.ok());
    for (int t = 0; t < static_cast<int>(Table::gruPcaMean); ++t) {
        const auto table = static_cast<Table>(t);
        EXPECT_EQ(live.info()->has(table), (*reader)->info()->has(table)) << t;
        if (!live.info()->has(table))
            continue;
        auto a = live.table(table, 1), b = (*reader)->table(table, 1);
        ASSERT_TRUE(a.ok() && b.ok()) << t;
        EXPECT_EQ((*a)->shape, (*b)->shape) << t;
        for (std::size_t i = 0; i < (*a)->values.size(); ++i)
            ASSERT_NEAR((*a)->values[i], (*b)->values[i], 1e-6) << t;
    }
}

TEST_F(RoundTrip, liveTraceStaysInsideItsMemory)
{
    SyntheticOptions o;
    o.tokens = 3000;
    const SyntheticRun run(o);
    LiveTrace live(run.spec(), 2 << 20);
    for (std::int64_t s = 0; s < run.sequences(); ++s) {
        const SequenceInfo info = run.info(s);
        live.beginSequence(info);
        for (int layer = 0; layer < o.layers; ++layer)
            live.addRouting(run.routing(s, layer, 0, info.length, false));
        live.addTokens(run.tokens(s, 0, info.length));
        live.endSequence(static_cast<std::int32_t>(s), info);
    }
    EXPECT_LT(live.bytes(), 4 << 20);
    EXPECT_EQ(live.info()->tokens, run.tokens());
    EXPECT_TRUE(live.block(Column::experts, 0, {run.tokens() - 10, run.tokens()}).ok());
    EXPECT_TRUE(live.block(Column::logits, 0, {0, 10}).ok());
    EXPECT_FALSE(live.block(Column::logits, 0, {run.tokens() - 10, run.tokens()}).ok());
}

TEST_F(RoundTrip, outputsAreRefusedOrReplacedAsAsked)
{
    SyntheticOptions o;
    o.tokens = 300;
    const SyntheticRun run(o);
    std::ofstream(place("t.h5")) << "mine";
    auto refused = TraceWriter::create(place("t.h5"), run.spec(), false);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::work);
    std::string text;
    std::ifstream(place("t.h5")) >> text;
    EXPECT_EQ(text, "mine");
    EXPECT_FALSE(std::filesystem::exists(place("t.h5.part")));
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    EXPECT_TRUE(TraceReader::open(place("t.h5")).ok());
    auto nowhere = TraceWriter::create("/proc/nowhere/t.h5", run.spec(), false);
    ASSERT_FALSE(nowhere.ok());
    EXPECT_EQ(nowhere.error().kind, ErrorKind::work);
    // A second run with the same output does not disturb the first; a left-over .part is replaced.
    auto first = TraceWriter::create(place("u.h5"), run.spec(), false);
    ASSERT_TRUE(first.ok()) << why(first);
    auto second = TraceWriter::create(place("u.h5"), run.spec(), false);
    ASSERT_FALSE(second.ok());
    EXPECT_NE(second.error().what.find("another run"), std::string::npos);
    ASSERT_TRUE((*first)->cancel().ok());
    EXPECT_TRUE(std::filesystem::exists(place("u.h5.part")));
    auto third = TraceWriter::create(place("u.h5"), run.spec(), false);
    ASSERT_TRUE(third.ok()) << why(third);
    (*third)->discard();
    EXPECT_FALSE(std::filesystem::exists(place("u.h5.part")));
}

TEST(Half, matchesTheStandardEverywhere)
{
    // Every half becomes a float and comes back; every float rounds to the nearer half, ties to even.
    for (std::uint32_t h = 0; h < 65536; ++h) {
        const auto half = static_cast<std::uint16_t>(h);
        const float f = fromHalf(half);
        if (std::isnan(f))
            EXPECT_TRUE(std::isnan(fromHalf(toHalf(f))));
        else
            ASSERT_EQ(toHalf(f), half);
    }
    Random random(1);
    for (int i = 0; i < 200'000; ++i) {
        const float f = static_cast<float>(std::ldexp(random.uniform(-1, 1), static_cast<int>(random.below(44)) - 27));
        const float back = fromHalf(toHalf(f));
        if (std::abs(f) >= 65520) {
            ASSERT_TRUE(std::isinf(back));
            continue;
        }
        const float up = fromHalf(static_cast<std::uint16_t>(toHalf(std::abs(f)) + 1));
        ASSERT_LE(std::abs(double(back) - double(f)), (double(up) - std::abs(double(back))) / 2 * 1.0000001) << f;
    }
    std::vector<float> many;
    for (int i = 0; i < 1003; ++i)
        many.push_back(static_cast<float>(random.normal() * 100));
    std::vector<std::uint16_t> halves(many.size());
    toHalf(many, halves.data());
    std::vector<float> back(many.size());
    fromHalf(halves, back.data());
    for (std::size_t i = 0; i < many.size(); ++i) {
        ASSERT_EQ(halves[i], toHalf(many[i]));
        ASSERT_EQ(back[i], fromHalf(halves[i]));
    }
}

} // namespace
} // namespace spectra::test
