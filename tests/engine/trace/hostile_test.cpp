// SPDX-License-Identifier: GPL-3.0-or-later
// Files from outside: other programs', damaged and hostile ones.
#include "engine/trace/arrayfile.h"
#include "engine/trace/chunkcache.h"
#include "engine/trace/h5.h"
#include "engine/trace/validator.h"
#include "tests/engine/trace/tracefixture.h"

#include "engine/core/random.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <numeric>
#include <thread>

namespace spectra::test {
namespace {

namespace fs = std::filesystem;

class HostileTest : public TraceTest {
protected:
    static std::string bytesOf(const fs::path &path)
    {
        std::ifstream in(path, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    static void write(const fs::path &path, const std::string &bytes) { std::ofstream(path, std::ios::binary) << bytes; }
    /// Reads all that an open trace offers; every answer is a value or an Error.
    static void readAll(const TraceSource &trace)
    {
        const auto info = trace.info();
        (void)trace.sequences().ok();
        const std::int64_t n = std::min<std::int64_t>(info->tokens, 20'000);
        (void)trace.tokens({0, n}).ok();
        for (int layer = 0; layer < std::min(info->layers(), 8); ++layer) {
            for (int c = 0; c <= static_cast<int>(Column::expertOutputs); ++c)
                (void)trace.block(static_cast<Column>(c), layer, {0, n}).ok();
            for (int t = 0; t <= static_cast<int>(Table::gruPcaBasis); ++t)
                (void)trace.table(static_cast<Table>(t), layer).ok();
        }
    }
    SyntheticOptions small() const
    {
        SyntheticOptions o;
        o.tokens = 700;
        o.layers = 2;
        o.routerDim = 4;
        return o;
    }
    void expectRefused(const fs::path &path, const std::string &dataset, const std::string &what)
    {
        auto opened = TraceReader::open(path);
        ASSERT_FALSE(opened.ok()) << dataset << " " << what;
        EXPECT_EQ(opened.error().kind, ErrorKind::input);
        EXPECT_NE(opened.error().where.find(dataset), std::string::npos) << opened.error().where;
        EXPECT_NE(opened.error().what.find(what), std::string::npos) << opened.error().what;
        EXPECT_TRUE(hasErrors(validateTrace(path)));
    }
};

TEST_F(HostileTest, filesThatAreNoTrace)
{
    write(place("empty.h5"), "");
    write(place("noise.h5"), "\x89HDF\r\n\x1a\n" + std::string(4000, '\x5a'));
    write(place("text.h5"), "hello");
    for (const char *name : {"empty.h5", "noise.h5", "text.h5", "missing.h5"}) {
        auto opened = openTrace(place(name));
        ASSERT_FALSE(opened.ok()) << name;
        EXPECT_EQ(opened.error().kind, ErrorKind::input) << name;
        EXPECT_NE(opened.error().where.find(name), std::string::npos);
    }
    EXPECT_FALSE(openTrace(place("")).ok());
    auto other = ArrayFile::create(place("other.h5"), false);
    ASSERT_TRUE(other.ok());
    const std::vector<float> x{1, 2, 3};
    ASSERT_TRUE((*other)->write("/a/x", {3}, x).ok());
    ASSERT_TRUE((*other)->commit().ok());
    auto opened = openTrace(place("other.h5"));
    ASSERT_FALSE(opened.ok());
    EXPECT_NE(opened.error().what.find("not a trace"), std::string::npos);
}

TEST_F(HostileTest, truncatedAndChangedFilesNeverHarmTheParent)
{
    ASSERT_TRUE(writeSyntheticTrace(place("good.h5"), small()).ok());
    const std::string good = bytesOf(place("good.h5"));
    Random random(21);
    int opened = 0, refused = 0;
    for (int i = 0; i < 250; ++i) {
        std::string bad = good;
        if (i % 5 == 0) {
            bad.resize(random.below(good.size()));
        } else {
            // Half of the changes go into the first kilobytes, where the structure is.
            const std::size_t area = i % 2 == 0 ? std::min<std::size_t>(good.size(), 60'000) : good.size();
            for (std::uint64_t n = 1 + random.below(i % 3 == 0 ? 40 : 3); n > 0; --n)
                bad[random.below(area)] = static_cast<char>(random.below(256));
        }
        write(place("bad.h5"), bad);
        OpenOptions options;
        options.probeSeconds = 20;
        auto trace = openTrace(place("bad.h5"), options);
        if (trace) {
            ++opened;
            readAll(**trace);
        } else {
            ++refused;
            EXPECT_EQ(trace.error().kind, ErrorKind::input) << why(trace);
            EXPECT_NE(trace.error().where.find("bad.h5"), std::string::npos) << why(trace);
        }
        fs::remove(place("bad.h5"));
    }
    std::printf("%d opened, %d refused\n", opened, refused);
    EXPECT_GT(refused, 50); // every truncation at least
    EXPECT_GT(opened, 10);  // changed values are no reason to refuse a file
}

TEST_F(HostileTest, missingAndMisshapenDatasetsAreNamed)
{
    const auto with = [&](const char *name, auto change) {
        EXPECT_TRUE(writeSyntheticTrace(place(name), small()).ok());
        auto file = h5::File::open(place(name), h5::File::Mode::readWrite);
        EXPECT_TRUE(file.ok()) << why(file);
        change(file->id());
        EXPECT_TRUE(file->close().ok());
        return place(name);
    };
    const auto replace = [](h5::Id file, const char *path, h5::Type type, std::vector<std::int64_t> shape) {
        EXPECT_TRUE(h5::remove(file, path).ok());
        h5::DatasetSpec spec;
        spec.type = type;
        spec.shape = std::move(shape);
        EXPECT_TRUE(h5::createDataset(file, path, spec).ok());
    };
    expectRefused(with("a.h5", [](h5::Id f) { EXPECT_TRUE(h5::remove(f, "/routing/experts").ok()); }), "/routing/experts", "missing");
    expectRefused(with("b.h5", [](h5::Id f) { EXPECT_TRUE(h5::remove(f, "/tokens/id").ok()); }), "/tokens/id", "missing");
    expectRefused(with("c.h5", [&](h5::Id f) { replace(f, "/routing/logits", h5::Type::f32, {2, 5, 8}); }), "/routing/logits", "expected at least");
    expectRefused(with("d.h5", [&](h5::Id f) { replace(f, "/routing/weights", h5::Type::f32, {2, 800, 3}); }), "/routing/weights", "slot");
    expectRefused(with("e.h5", [&](h5::Id f) { replace(f, "/routing/entropy", h5::Type::f32, {2}); }), "/routing/entropy", "expected 2 axes");
    expectRefused(with("f.h5", [&](h5::Id f) { replace(f, "/routing/experts", h5::Type::f32, {2, 800, 2}); }), "/routing/experts", "float32");
    expectRefused(with("g.h5", [&](h5::Id f) { replace(f, "/tokens/text", h5::Type::i32, {800}); }), "/tokens/text", "expected string");
    expectRefused(with("h.h5", [&](h5::Id f) { replace(f, "/gram/routing", h5::Type::f32, {2, 8, 7}); }), "/gram/routing", "expert");
    expectRefused(with("i.h5", [](h5::Id f) {
        auto tokens = h5::openGroup(f, "tokens");
        EXPECT_TRUE(h5::setAttribute(tokens->id(), "committed", std::int64_t(1) << 40).ok());
    }), "/tokens", "committed");
    // A huge shape without data behind it must not cost memory.
    expectRefused(with("j.h5", [](h5::Id f) {
        EXPECT_TRUE(h5::remove(f, "/tokens/id").ok());
        h5::DatasetSpec spec;
        spec.type = h5::Type::i32;
        spec.shape = {std::int64_t(1) << 40};
        spec.chunk = {4096};
        EXPECT_TRUE(h5::createDataset(f, "/tokens/id", spec).ok());
        auto tokens = h5::openGroup(f, "tokens");
        EXPECT_TRUE(h5::setAttribute(tokens->id(), "committed", std::int64_t(1) << 40).ok());
    }), "/tokens/id", "more than a file of its size holds");
    // Optional datasets may be missing: the reader says so and the validator agrees.
    const fs::path k = with("k.h5", [](h5::Id f) { EXPECT_TRUE(h5::remove(f, "/routing/logits").ok()); });
    auto opened = openTrace(k);
    ASSERT_TRUE(opened.ok()) << why(opened);
    EXPECT_FALSE((*opened)->info()->has(Column::logits));
    EXPECT_FALSE(hasErrors(validateTrace(k)));
}

TEST_F(HostileTest, theValidatorFindsWrongValues)
{
    const auto broken = [&](const char *name, const char *dataset, std::vector<std::int64_t> at, double value) {
        EXPECT_TRUE(writeSyntheticTrace(place(name), small()).ok());
        auto file = h5::File::open(place(name), h5::File::Mode::readWrite);
        EXPECT_TRUE(file.ok());
        {
            auto data = h5::openDataset(file->id(), dataset);
            EXPECT_TRUE(data.ok());
            EXPECT_TRUE(h5::writeSlab(data->id(), at, std::vector<std::int64_t>(at.size(), 1), h5::Type::f64, &value).ok());
        }
        EXPECT_TRUE(file->close().ok());
        const auto findings = validateTrace(place(name));
        EXPECT_TRUE(std::any_of(findings.begin(), findings.end(), [&](const Finding &f) { return f.severity == Finding::Severity::error && f.place == dataset; }))
            << dataset << ": " << findings.size() << " findings" << (findings.empty() ? "" : ", first " + findings[0].place + " " + findings[0].what);
    };
    broken("a.h5", "/routing/probabilities", {1, 300, 2}, 0.9);
    broken("b.h5", "/routing/weights", {0, 5, 1}, 1.5);
    broken("c.h5", "/routing/experts", {1, 9, 0}, 8);
    broken("d.h5", "/routing/entropy", {0, 5}, 0.1);
    broken("e.h5", "/tokens/position", {200}, 3);
    broken("f.h5", "/tokens/sequence", {200}, 0);
    broken("g.h5", "/tokens/nll", {3}, -1);
    broken("h.h5", "/gram/expression", {0, 1, 2}, 0.123);
    broken("i.h5", "/sequences/counted", {1}, 1);
    broken("j.h5", "/hidden/token", {2}, 0);
    broken("k.h5", "/sinkhorn/batch_offset", {2}, 0);
    broken("l.h5", "/routing/vectors", {0, 17, 1, 1}, std::numeric_limits<double>::quiet_NaN());
}

TEST_F(HostileTest, anotherWritersFileIsRead)
{
    auto opened = openTrace(std::string(SPECTRA_TEST_DIR) + "/fixtures/trace/foreign.h5");
    ASSERT_TRUE(opened.ok()) << why(opened);
    const auto info = (*opened)->info();
    EXPECT_EQ(info->tokens, 50);
    EXPECT_EQ(info->sequences, 2);
    EXPECT_EQ(info->experts, 5);
    EXPECT_EQ(info->decoderIndex, (std::vector<std::int32_t>{1, 3, 5}));
    EXPECT_EQ(info->domains, (std::vector<std::string>{"law", "code"}));
    EXPECT_TRUE(info->complete);
    EXPECT_EQ(info->missingColumns.at(Column::logits), "the source of this trace did not give it");
    auto tokens = (*opened)->tokens({10, 30});
    ASSERT_TRUE(tokens.ok()) << why(tokens);
    EXPECT_EQ((*tokens)->id[0], 110);
    EXPECT_EQ((*tokens)->text[19], "t29");
    EXPECT_EQ((*tokens)->position[10], 0);
    EXPECT_EQ((*tokens)->mask[0], 1) << "what was left out has a plain meaning";
    for (int layer = 0; layer < 3; ++layer) {
        auto p = (*opened)->block(Column::probabilities, layer, {3, 47}), w = (*opened)->block(Column::weights, layer, {3, 47});
        auto e = (*opened)->block(Column::experts, layer, {3, 47});
        ASSERT_TRUE(p.ok() && w.ok() && e.ok()) << why(p) << why(w) << why(e);
        for (std::size_t t = 0; t < 44; ++t) {
            const float *row = (*p)->f32.data() + t * 5;
            EXPECT_NEAR(std::accumulate(row, row + 5, 0.0), 1, 1e-6);
            const float a = row[(*e)->u16[t * 2]], b = row[(*e)->u16[t * 2 + 1]];
            EXPECT_NEAR((*w)->f32[t * 2], a / (a + b), 1e-6);
        }
    }
}

/// Runs Python with what Debian packages for the tests, where it is installed.
std::string python()
{
    for (const char *program : {"/usr/bin/python3", "python3"})
        if (std::system((std::string(program) + " -c 'import h5py, xarray, h5netcdf' 2>/dev/null").c_str()) == 0)
            return program;
    return {};
}

TEST_F(HostileTest, othersReadOurFiles)
{
    const std::string interpreter = python();
    if (interpreter.empty()) {
        std::puts("no Python with h5py, xarray and h5netcdf here: nothing was compared");
        return;
    }
    SyntheticOptions o;
    o.tokens = 900;
    const SyntheticRun run(o);
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    std::int64_t total = 0;
    for (std::int64_t s = 0; s < run.sequences(); ++s)
        for (const std::int32_t id : run.tokens(s, 0, run.info(s).length).id)
            total += id;
    const std::string command = interpreter + " " + SPECTRA_TEST_DIR "/fixtures/trace/read_trace.py " + place("t.h5").string() + " > " + place("said").string();
    ASSERT_EQ(std::system(command.c_str()), 0);
    EXPECT_EQ(bytesOf(place("said")), "ok " + std::to_string(total) + "\n");
}

TEST_F(HostileTest, manyThreadsReadOneTrace)
{
    SyntheticOptions o = small();
    o.tokens = 3000;
    const SyntheticRun run(o);
    ASSERT_TRUE(writeSyntheticTrace(place("t.h5"), o).ok());
    auto trace = TraceReader::open(place("t.h5"));
    ASSERT_TRUE(trace.ok());
    std::vector<std::jthread> threads;
    std::atomic<int> wrong{0};
    for (int n = 0; n < 6; ++n)
        threads.emplace_back([&, n] {
            Random random(static_cast<std::uint64_t>(n));
            for (int i = 0; i < 60; ++i) {
                const auto s = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(run.sequences())));
                const int layer = static_cast<int>(random.below(2));
                const std::int64_t first = run.offset(s), last = run.offset(s + 1);
                auto block = (*trace)->block(Column::experts, layer, {first, last});
                const RoutingRecord r = run.routing(s, layer, 0, last - first, false);
                if (!block || !std::equal(r.expertIds.begin(), r.expertIds.end(), (*block)->u16.begin(), (*block)->u16.end()))
                    ++wrong;
            }
        });
    threads.clear();
    EXPECT_EQ(wrong, 0);
    std::stop_source stop;
    stop.request_stop();
    auto stopped = (*trace)->block(Column::logits, 0, {0, 100}, stop.get_token());
    ASSERT_FALSE(stopped.ok());
    EXPECT_EQ(stopped.error().kind, ErrorKind::cancelled);
    EXPECT_EQ((*trace)->tokens({0, run.tokens() + 1}).error().kind, ErrorKind::usage);
    EXPECT_EQ((*trace)->block(Column::experts, 2, {0, 1}).error().kind, ErrorKind::usage);
}

TEST(ChunkCache, holdsItsBoundAndDropsTheOldest)
{
    ChunkCache cache(10'000);
    for (int i = 0; i < 20; ++i) {
        auto chunk = std::make_shared<Chunk>();
        chunk->bytes.resize(1000);
        cache.insert({1, 0, 0, i}, chunk);
        (void)cache.find({1, 0, 0, 0}); // the first stays in use
        EXPECT_LE(cache.bytes(), 10'000u);
    }
    EXPECT_NE(cache.find({1, 0, 0, 0}), nullptr);
    EXPECT_NE(cache.find({1, 0, 0, 19}), nullptr);
    EXPECT_EQ(cache.find({1, 0, 0, 5}), nullptr);
    cache.forget(1);
    EXPECT_EQ(cache.bytes(), 0u);
}

TEST_F(HostileTest, arrayFilesAppearWholeOrNotAtAll)
{
    const std::vector<float> rows{1, 2, 3, 4, 5, 6};
    {
        auto file = ArrayFile::create(place("a.h5"), false);
        ASSERT_TRUE(file.ok());
        ASSERT_TRUE((*file)->write("/ids", {2}, std::vector<std::int32_t>{7, 8}).ok());
        ASSERT_TRUE((*file)->append("/router/3/logits", {3}, rows).ok());
        ASSERT_TRUE((*file)->append("/router/3/logits", {3}, rows).ok());
        ASSERT_TRUE((*file)->write("/names", {"a", "ä"}).ok());
        ASSERT_TRUE((*file)->attribute("/router/3/logits", "units", "1").ok());
        EXPECT_FALSE((*file)->append("/router/3/logits", {2}, rows).ok());
        EXPECT_FALSE((*file)->write("/bad", {4}, rows).ok());
        EXPECT_FALSE(fs::exists(place("a.h5")));
        ASSERT_TRUE((*file)->commit().ok());
    }
    auto list = listDatasets(place("a.h5"));
    ASSERT_TRUE(list.ok()) << why(list);
    ASSERT_EQ(list->size(), 3u);
    EXPECT_EQ((*list)[2].path, "/router/3/logits");
    EXPECT_EQ((*list)[2].shape, (std::vector<std::int64_t>{4, 3}));
    EXPECT_EQ((*list)[2].type, "float32");
    EXPECT_TRUE(isHdf5(place("a.h5")));
    EXPECT_FALSE(ArrayFile::create(place("a.h5"), false).ok());
    {
        auto file = ArrayFile::create(place("b.h5"), false);
        ASSERT_TRUE(file.ok());
        ASSERT_TRUE((*file)->write("/x", {6}, rows).ok());
    }
    EXPECT_EQ(std::distance(fs::directory_iterator(place("")), fs::directory_iterator()), 1);
}

} // namespace
} // namespace spectra::test
