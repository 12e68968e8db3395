// SPDX-License-Identifier: GPL-3.0-or-later
// A run in memory, saved: the file says what the live trace said.
#include "engine/trace/half.h"
#include "engine/trace/livetrace.h"
#include "engine/trace/validator.h"
#include "tests/engine/trace/tracefixture.h"

#include <cmath>
#include <fstream>
#include <set>
#include <thread>

namespace spectra::test {
namespace {

class LiveSave : public TraceTest {
protected:
    /// Feeds sequences [0, whole) and then `begun` tokens of the next one, as the run of a prompt would: the lengths of
    /// sequences that generate are known when they end.
    static void feed(LiveTrace &live, const SyntheticRun &run, std::int64_t whole, std::int64_t begun, std::vector<LayerTables> &sums, bool means = true)
    {
        HiddenSample sample(run.spec().plannedLengths, run.spec().hiddenTokens, run.spec().seed);
        for (std::int64_t s = 0; s < whole + (begun > 0 ? 1 : 0); ++s) {
            const SequenceInfo info = run.info(s);
            SequenceInfo begin = info;
            begin.length = info.promptLength;
            begin.text = info.text.substr(0, 12);
            live.beginSequence(begin);
            const bool sampled = sample.wants(static_cast<std::int32_t>(s), info.length);
            const std::int64_t length = s < whole ? info.length : begun;
            for (std::int64_t from = 0; from < length; from += 48) {
                const std::int64_t to = std::min<std::int64_t>(length, from + 48);
                for (int layer = 0; layer < run.spec().layers(); ++layer)
                    live.addRouting(run.routing(s, layer, from, to, sampled));
                live.addTokens(run.tokens(s, from, to));
            }
            if (s == whole)
                break;
            for (int layer = 0; means && layer < run.spec().layers(); ++layer)
                live.addSequenceMeans(run.means(s, layer));
            run.addSums(s, sums);
            live.endSequence(static_cast<std::int32_t>(s), info);
        }
    }

    static void expectValid(const std::filesystem::path &path)
    {
        for (const Finding &f : validateTrace(path))
            ADD_FAILURE() << f.place << ": " << f.what;
    }

    /// Holds the saved file against the live trace; `half`: the columns that the spec stores as float16 are.
    static void expectSame(const LiveTrace &live, const TraceReader &file, bool half)
    {
        const auto a = live.info(), b = file.info();
        EXPECT_TRUE(b->complete);
        EXPECT_EQ(a->generator, b->generator);
        EXPECT_EQ(a->formatVersion, b->formatVersion);
        ASSERT_EQ(a->tokens, b->tokens);
        ASSERT_EQ(a->sequences, b->sequences);
        EXPECT_EQ(a->experts, b->experts);
        EXPECT_EQ(a->slots, b->slots);
        if (a->layers() > 0) { // a file tells them from its tables
            EXPECT_EQ(a->routerDim, b->routerDim);
            EXPECT_EQ(a->hidden, b->hidden);
        }
        EXPECT_EQ(a->decoderIndex, b->decoderIndex);
        EXPECT_EQ(a->domains, b->domains);
        EXPECT_EQ(a->model.name, b->model.name);
        EXPECT_EQ(a->model.router, b->model.router);
        EXPECT_EQ(a->model.config, b->model.config);
        EXPECT_EQ(a->model.sinkhornEpsilon, b->model.sinkhornEpsilon);
        EXPECT_EQ(a->environment.system, b->environment.system);
        EXPECT_EQ(a->environment.wallSeconds, b->environment.wallSeconds);
        EXPECT_EQ(a->hasNll, b->hasNll);
        EXPECT_EQ(a->hasNextTop1, b->hasNextTop1);
        const auto x = live.sequences(), y = file.sequences();
        ASSERT_TRUE(x.ok() && y.ok());
        ASSERT_EQ((*x)->size(), (*y)->size());
        for (std::size_t s = 0; s < (*x)->size(); ++s) {
            const SequenceInfo &p = (**x)[s], &q = (**y)[s];
            EXPECT_EQ(p.id, q.id);
            EXPECT_EQ(p.domain, q.domain);
            EXPECT_EQ(p.text, q.text) << s;
            EXPECT_EQ(p.label, q.label);
            EXPECT_EQ(p.offset, q.offset);
            EXPECT_EQ(p.length, q.length);
            EXPECT_EQ(p.promptLength, q.promptLength);
        }
        const TokenRange all{0, a->tokens};
        expectSameTokens(live, file, all);
        for (int c = 0; c <= static_cast<int>(Column::expertOutputs); ++c) {
            const auto column = static_cast<Column>(c);
            if (column == Column::gruPca)
                continue; // the one column that only a file has
            ASSERT_EQ(a->has(column), b->has(column)) << c;
            for (int layer = 0; a->has(column) && layer < a->layers(); ++layer)
                expectSameBlock(live, file, column, layer, all, half);
        }
        for (int t = 0; t < static_cast<int>(Table::gruPcaMean); ++t) {
            const auto table = static_cast<Table>(t);
            ASSERT_EQ(a->has(table), b->has(table)) << t;
            for (int layer = 0; a->has(table) && layer < a->layers(); ++layer)
                expectSameTable(live, file, table, layer);
        }
    }

    static void expectSameTokens(const LiveTrace &live, const TraceReader &file, TokenRange all)
    {
        const auto x = live.tokens(all), y = file.tokens(all);
        ASSERT_TRUE(x.ok() && y.ok()) << why(x) << why(y);
        EXPECT_EQ((*x)->id, (*y)->id);
        EXPECT_EQ((*x)->sequence, (*y)->sequence);
        EXPECT_EQ((*x)->position, (*y)->position);
        EXPECT_EQ((*x)->byteOffset, (*y)->byteOffset);
        EXPECT_EQ((*x)->nextTop1, (*y)->nextTop1);
        EXPECT_EQ((*x)->phase, (*y)->phase);
        EXPECT_EQ((*x)->mask, (*y)->mask);
        EXPECT_EQ((*x)->text, (*y)->text);
        ASSERT_EQ((*x)->nll.size(), (*y)->nll.size());
        std::set<std::int64_t> lasts;
        const auto sequences = live.sequences();
        for (const SequenceInfo &s : **sequences)
            lasts.insert(s.offset + s.length - 1);
        for (std::size_t i = 0; i < (*x)->nll.size(); ++i) {
            if (lasts.contains(static_cast<std::int64_t>(i)))
                EXPECT_TRUE(std::isnan((*y)->nll[i])) << i; // no target in the trace, also where a stop cut it
            else
                ASSERT_EQ((*x)->nll[i], (*y)->nll[i]) << i;
        }
    }

    static void expectSameBlock(const LiveTrace &live, const TraceReader &file, Column column, int layer, TokenRange all, bool half)
    {
        // Vectors, states and outputs are float16 in every file.
        const bool wide = column == Column::routingVectors || column == Column::expressionVectors || column == Column::gruState || column == Column::expertOutputs;
        const bool rounded = wide || (half && column != Column::entropy);
        const auto x = live.block(column, layer, all), y = file.block(column, layer, all);
        ASSERT_TRUE(x.ok() && y.ok()) << static_cast<int>(column) << why(x) << why(y);
        EXPECT_EQ((*x)->rows, (*y)->rows) << static_cast<int>(column);
        EXPECT_GT((*y)->rows, 0) << static_cast<int>(column);
        EXPECT_EQ((*x)->inner, (*y)->inner);
        EXPECT_EQ((*x)->token, (*y)->token) << static_cast<int>(column);
        EXPECT_EQ((*x)->u16, (*y)->u16);
        EXPECT_EQ((*x)->u8, (*y)->u8);
        ASSERT_EQ((*x)->f32.size(), (*y)->f32.size()) << static_cast<int>(column);
        for (std::size_t i = 0; i < (*x)->f32.size(); ++i) {
            const float want = rounded ? fromHalf(toHalf((*x)->f32[i])) : (*x)->f32[i];
            ASSERT_EQ((*y)->f32[i], want) << "column " << static_cast<int>(column) << " layer " << layer << " at " << i;
        }
    }

    static void expectSameTable(const LiveTrace &live, const TraceReader &file, Table table, int layer)
    {
        const auto x = live.table(table, layer), y = file.table(table, layer);
        ASSERT_TRUE(x.ok() && y.ok()) << static_cast<int>(table) << why(x) << why(y);
        ASSERT_EQ((*x)->shape, (*y)->shape) << static_cast<int>(table);
        // Those that the file copies are the same bits; means and cosines are summed in another order.
        const bool copied = table == Table::sequenceMeanRouting || table == Table::sequenceMeanExpression || table == Table::routerWeights || table == Table::bufferMeanExpression
            || table == Table::bufferPotential || table == Table::sinkhornViolation || table == Table::sinkhornPotentials;
        for (std::size_t i = 0; i < (*x)->values.size(); ++i) {
            const float p = (*x)->values[i], q = (*y)->values[i];
            ASSERT_EQ(std::isnan(p), std::isnan(q)) << static_cast<int>(table) << " at " << i;
            if (!std::isnan(p)) {
                ASSERT_NEAR(p, q, copied ? 0 : 1e-6) << static_cast<int>(table) << " at " << i;
            }
        }
    }

    void check(const SyntheticOptions &o)
    {
        const SyntheticRun run(o);
        LiveTrace live(run.spec());
        std::vector<LayerTables> sums;
        feed(live, run, run.sequences(), 0, sums);
        live.finish(run.tables(sums), 2.5);
        const auto saved = live.save(place("t.h5"), false);
        ASSERT_TRUE(saved.ok()) << why(saved);
        EXPECT_FALSE(std::filesystem::exists(place("t.h5.part")));
        const auto file = TraceReader::open(place("t.h5"));
        ASSERT_TRUE(file.ok()) << why(file);
        expectSame(live, **file, o.f16);
        EXPECT_EQ((*file)->info()->environment.wallSeconds, 2.5);
        EXPECT_EQ((*file)->info()->model.note, run.spec().model.note) << "a whole run says nothing of a stop";
        expectRun(**file, run, run.tokens());
        expectValid(place("t.h5"));
    }
};

TEST_F(LiveSave, theFileEqualsTheLiveTrace)
{
    SyntheticOptions o;
    o.f16 = false;
    check(o);
    // The column that is fitted when a trace is written comes with the file.
    const auto file = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(file.ok());
    EXPECT_TRUE((*file)->info()->has(Column::gruPca));
    EXPECT_TRUE((*file)->info()->has(Table::gruPcaBasis));
}

TEST_F(LiveSave, inFloat16) { check({}); }

TEST_F(LiveSave, linearRouter)
{
    SyntheticOptions o;
    o.linearRouter = true;
    o.transport = false;
    check(o);
}

TEST_F(LiveSave, denseModel)
{
    SyntheticOptions o;
    o.layers = 0;
    o.denseLayers = 2;
    check(o);
}

TEST_F(LiveSave, isTheFileThatTheRunWouldHaveWritten)
{
    SyntheticOptions o;
    o.capture.drop(Field::dense); // a live trace has no layers without experts
    o.tokens = 1500;
    const SyntheticRun run(o);
    LiveTrace live(run.spec());
    std::vector<LayerTables> sums;
    feed(live, run, run.sequences(), 0, sums);
    live.finish(run.tables(sums));
    ASSERT_TRUE(live.save(place("t.h5"), false).ok());
    ASSERT_TRUE(writeSyntheticTrace(place("u.h5"), o).ok());
    expectSameDatasets(place("t.h5"), place("u.h5"));
}

TEST_F(LiveSave, hiddenStatesAreThoseOfTheRunsOwnSample)
{
    // With and without a plan the writer alone would draw other sequences than these.
    for (const bool planned : {true, false}) {
        SyntheticOptions o;
        o.hiddenTokens = 350;
        const SyntheticRun run(o);
        TraceSpec spec = run.spec();
        if (planned) {
            for (std::int64_t s = 0; s < run.sequences(); ++s)
                spec.plannedLengths.push_back(run.info(s).length);
        }
        LiveTrace live(spec);
        const std::set<std::int64_t> chosen{1, 4, 11};
        std::vector<std::int64_t> tokens;
        for (std::int64_t s = 0; s < run.sequences(); ++s) {
            const SequenceInfo info = run.info(s);
            live.beginSequence(info);
            for (int layer = 0; layer < o.layers; ++layer)
                live.addRouting(run.routing(s, layer, 0, info.length, chosen.contains(s)));
            live.addTokens(run.tokens(s, 0, info.length));
            live.endSequence(static_cast<std::int32_t>(s), info);
            for (std::int64_t t = info.offset; chosen.contains(s) && t < info.offset + info.length; ++t)
                tokens.push_back(t);
        }
        live.finish({});
        const auto saved = live.save(place("t.h5"), true);
        ASSERT_TRUE(saved.ok()) << why(saved);
        const auto file = TraceReader::open(place("t.h5"));
        ASSERT_TRUE(file.ok()) << why(file);
        for (const Column c : {Column::hidden, Column::expertOutputs}) {
            const auto block = (*file)->block(c, 2, {0, run.tokens()});
            ASSERT_TRUE(block.ok()) << why(block);
            EXPECT_EQ((*block)->token, tokens);
        }
        EXPECT_EQ((*file)->info()->sampledTokens, static_cast<std::int64_t>(tokens.size()));
    }
}

TEST_F(LiveSave, aStoppedRunKeepsTheTokensOfEveryLayer)
{
    for (const std::int64_t whole : {std::int64_t(4), std::int64_t(0)}) {
        SyntheticOptions o;
        o.f16 = false;
        o.sequenceLength = 200;
        o.hiddenTokens = 100'000;
        const SyntheticRun run(o);
        const std::int64_t begun = run.info(whole).promptLength + 10; // it was generating
        TraceSpec spec = run.spec();
        for (std::int64_t s = 0; s < run.sequences(); ++s)
            spec.plannedLengths.push_back(run.info(s).length);
        LiveTrace live(spec);
        std::vector<LayerTables> sums;
        feed(live, run, whole, begun, sums);
        // The stop came inside a pass: two layers are ahead of the others, and the token columns have not come.
        for (int layer = 0; layer < 2; ++layer)
            live.addRouting(run.routing(whole, layer, begun, begun + 5, true));
        live.finish(run.tables(sums));
        const std::int64_t tokens = run.offset(whole) + begun;
        ASSERT_EQ(live.info()->tokens, tokens);
        const auto saved = live.save(place("t.h5"), true);
        ASSERT_TRUE(saved.ok()) << why(saved);
        const auto file = TraceReader::open(place("t.h5"));
        ASSERT_TRUE(file.ok()) << why(file);
        expectSame(live, **file, false);
        EXPECT_NE((*file)->info()->model.note.find("stopped before its end"), std::string::npos);
        const auto sequences = (*file)->sequences();
        ASSERT_TRUE(sequences.ok());
        EXPECT_EQ((*sequences)->back().length, begun);
        EXPECT_EQ((*sequences)->back().counted, begun - 1) << "counted here, from the mask";
        EXPECT_EQ((*file)->info()->has(Table::meanRouting), whole > 0);
        EXPECT_EQ((*file)->info()->has(Table::gramRouting), whole > 0);
        expectValid(place("t.h5"));
    }
}

TEST_F(LiveSave, columnsWithHolesAreLeftOut)
{
    SyntheticOptions o;
    o.tokens = 3000;
    o.hiddenTokens = 100'000;
    const SyntheticRun run(o);
    LiveTrace live(run.spec(), 4 << 20);
    std::vector<LayerTables> sums;
    feed(live, run, run.sequences(), 0, sums);
    live.finish(run.tables(sums));
    ASSERT_FALSE(live.block(Column::logits, 0, {run.tokens() - 10, run.tokens()}).ok()) << "the limit was not reached: it proves nothing";
    const auto hidden = live.block(Column::hidden, 0, {0, run.tokens()});
    ASSERT_TRUE(hidden.ok() && (*hidden)->rows > 0) << why(hidden);
    const auto saved = live.save(place("t.h5"), false);
    ASSERT_TRUE(saved.ok()) << why(saved);
    const auto file = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(file.ok()) << why(file);
    const auto info = (*file)->info();
    EXPECT_EQ(info->tokens, run.tokens());
    for (const Column c : {Column::logits, Column::selection, Column::probabilities, Column::routingVectors, Column::expressionVectors, Column::gruState, Column::gruPca})
        EXPECT_FALSE(info->has(c)) << static_cast<int>(c);
    for (const Column c : {Column::experts, Column::weights, Column::entropy, Column::dropped})
        EXPECT_TRUE(info->has(c)) << static_cast<int>(c);
    // What is kept beside the records is whole: transport, means, tables.
    for (const Table t : {Table::sinkhornViolation, Table::sinkhornPotentials, Table::meanRouting, Table::gramExpression, Table::sequenceMeanRouting, Table::expertInputMean}) {
        ASSERT_TRUE(info->has(t)) << static_cast<int>(t);
        expectSameTable(live, **file, t, 1);
    }
    expectValid(place("t.h5"));
}

TEST_F(LiveSave, aSequenceOfWhichHiddenStatesAreMissingIsNotInTheSample)
{
    SyntheticOptions o;
    o.tokens = 1000;
    o.hiddenTokens = 100'000;
    const SyntheticRun run(o);
    // A limit inside sequence 3: its first records are whole, its last ones narrow.
    std::vector<LayerTables> sums;
    LiveTrace until(run.spec());
    feed(until, run, 3, 48, sums);
    sums.clear();
    LiveTrace live(run.spec(), until.bytes());
    feed(live, run, run.sequences(), 0, sums);
    live.finish(run.tables(sums));
    const std::int64_t end = run.offset(3);
    const auto kept = live.block(Column::hidden, 0, {0, run.tokens()});
    ASSERT_TRUE(kept.ok()) << why(kept);
    ASSERT_GT((*kept)->rows, end) << "sequence 3 has none";
    ASSERT_LT((*kept)->rows, run.offset(4)) << "sequence 3 has all";
    ASSERT_TRUE(live.save(place("t.h5"), false).ok());
    const auto file = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(file.ok()) << why(file);
    const auto block = (*file)->block(Column::hidden, 1, {0, run.tokens()});
    ASSERT_TRUE(block.ok()) << why(block);
    EXPECT_EQ((*block)->rows, end) << "sequences 0 to 2";
    expectValid(place("t.h5"));
}

TEST_F(LiveSave, aRunThatHasNotEndedIsRefused)
{
    SyntheticOptions o;
    o.tokens = 300;
    const SyntheticRun run(o);
    LiveTrace live(run.spec());
    std::vector<LayerTables> sums;
    feed(live, run, 2, 0, sums);
    const auto early = live.save(place("t.h5"), false);
    ASSERT_FALSE(early.ok());
    EXPECT_EQ(early.error().kind, ErrorKind::usage);
    EXPECT_NE(early.error().what.find("not ended"), std::string::npos);
    LiveTrace empty(run.spec());
    empty.beginSequence(run.info(0));
    empty.finish({});
    const auto nothing = empty.save(place("t.h5"), false);
    ASSERT_FALSE(nothing.ok());
    EXPECT_EQ(nothing.error().kind, ErrorKind::usage);
    EXPECT_TRUE(std::filesystem::is_empty(place("t.h5").parent_path()));
}

TEST_F(LiveSave, whatIsThereStaysUnlessItMayBeReplaced)
{
    SyntheticOptions o;
    o.tokens = 300;
    const SyntheticRun run(o);
    LiveTrace live(run.spec());
    std::vector<LayerTables> sums;
    feed(live, run, run.sequences(), 0, sums);
    live.finish(run.tables(sums));
    std::ofstream(place("t.h5")) << "mine";
    const auto refused = live.save(place("t.h5"), false);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().kind, ErrorKind::work);
    std::string text;
    std::ifstream(place("t.h5")) >> text;
    EXPECT_EQ(text, "mine");
    EXPECT_FALSE(std::filesystem::exists(place("t.h5.part")));
    ASSERT_TRUE(live.save(place("t.h5"), true).ok());
    EXPECT_TRUE(TraceReader::open(place("t.h5")).ok());
    EXPECT_EQ(live.save(place("none/t.h5"), true).error().kind, ErrorKind::work);
    // What a killed run left can still be continued.
    {
        auto writer = TraceWriter::create(place("u.h5"), run.spec(), false);
        ASSERT_TRUE(writer.ok());
        ASSERT_TRUE(run.feed(**writer, 0, sums).ok());
        ASSERT_TRUE((*writer)->cancel().ok());
    }
    ASSERT_TRUE(TraceWriter::resumable(place("u.h5")));
    const auto beside = live.save(place("u.h5"), false);
    ASSERT_FALSE(beside.ok());
    EXPECT_EQ(beside.error().kind, ErrorKind::work);
    EXPECT_TRUE(TraceWriter::resumable(place("u.h5")));
}

TEST_F(LiveSave, aStopLeavesNothingBehind)
{
    SyntheticOptions o;
    o.tokens = 20'000;
    o.layers = 6;
    const SyntheticRun run(o);
    LiveTrace live(run.spec());
    std::vector<LayerTables> sums;
    feed(live, run, run.sequences(), 0, sums);
    live.finish(run.tables(sums));
    std::stop_source before;
    before.request_stop();
    EXPECT_EQ(live.save(place("t.h5"), false, before.get_token()).error().kind, ErrorKind::cancelled);
    EXPECT_TRUE(std::filesystem::is_empty(place("t.h5").parent_path()));
    // In the middle: as soon as the file is there. Views read all the while.
    std::ofstream(place("t.h5")) << "mine";
    std::stop_source stop;
    std::jthread stopper([&] {
        while (!std::filesystem::exists(place("t.h5.part")))
            std::this_thread::yield();
        EXPECT_TRUE(live.block(Column::weights, 3, {0, 100}).ok());
        stop.request_stop();
    });
    const auto stopped = live.save(place("t.h5"), true, stop.get_token());
    stopper.join();
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    EXPECT_FALSE(std::filesystem::exists(place("t.h5.part")));
    std::string text;
    std::ifstream(place("t.h5")) >> text;
    EXPECT_EQ(text, "mine");
    // And the trace is as it was.
    ASSERT_TRUE(live.save(place("u.h5"), false).ok());
}

} // namespace
} // namespace spectra::test
